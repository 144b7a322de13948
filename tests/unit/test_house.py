"""The house: imports go downwards, nothing goes round in a circle, and a reader finds what the folders promise."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("blocks", "tasks", "flows", "deployments")
MAX_LINES = 400


def modules() -> dict[str, Path]:
    """Name every module of the product, with its file."""
    paths = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
    return {_name(path): path for path in paths}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = modules()


def imports_of(path: Path) -> set[str]:
    """Name the modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in MODULES else node.module for name in full)
    return found


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield each module that reaches itself, with the way."""
    for start in graph:
        ways, seen = [[start]], set()
        while ways:
            way = ways.pop()
            for step in graph.get(way[-1], ()):
                if step == start:
                    yield [*way, start]
                    ways = []
                    break
                if step not in seen:
                    seen.add(step)
                    ways.append([*way, step])


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards_and_never_into_lab_or_tests(name: str) -> None:
    floor = FLOORS.index(name.partition(".")[0])
    above = {*FLOORS[floor + 1 :], "lab", "tests", "benchmarks"}
    assert {other for other in imports_of(MODULES[name]) if other.partition(".")[0] in above} == set()


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {
        name: {other for other in imports_of(path) if other in MODULES} for name, path in MODULES.items()
    }
    assert list(circles(graph)) == []


def test_machinery_and_rules_of_the_flows_know_no_flow() -> None:
    for name, path in MODULES.items():
        if name.startswith(("flows.machinery", "flows.rules")):
            assert all(not _is_flow(other) for other in imports_of(path)), name


def _is_flow(name: str) -> bool:
    return (
        name.startswith("flows.") and name.count(".") == 1 and name not in ("flows.machinery", "flows.rules")
    )


def test_who_lists_the_flows_sees_what_an_operator_can_run_and_nothing_else() -> None:
    for path in sorted((ROOT / "flows").glob("*.py")):
        if path.stem != "__init__":
            assert "\n@flow(" in path.read_text(encoding="utf-8"), path.name


def test_the_rules_do_no_work_of_their_own() -> None:
    outside = ("prefect", "paramiko", "psycopg2", "oss2", "socket", "subprocess", "httpx", "requests")
    for name, path in MODULES.items():
        if name.startswith("flows.rules"):
            assert not {other for other in imports_of(path) if other.partition(".")[0] in outside}, name


@pytest.mark.parametrize("name", MODULES)
def test_a_file_is_read_at_one_sitting(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES
