"""Whatever lies in a folder `on_node` runs on a node: Python 3.6 to 3.13, the standard library, nothing else."""

import ast
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tasks.node_program import node_program, parts_of

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
# Arguments of subprocess.run that Python 3.7 brought.
TOO_NEW = {"capture_output", "text"}
# Runs there: defines everything that a program defines, which evaluates its annotations, and names what fails.
EVALUATE = """
import json, sys, types
failed = {}
for name, text in sorted(json.load(sys.stdin).items()):
    module = sys.modules["program"] = types.ModuleType("program")
    try:
        exec(compile(text, name, "exec"), vars(module))
    except Exception as error:
        failed[name] = str(error)
json.dump(failed, sys.stdout)
"""


def modules_on_nodes() -> list[str]:
    """Name every module that runs on a node."""
    paths = sorted(ROOT.glob("tasks/**/on_node/*.py"))
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if path.stem != "__init__"
    ]


MODULES = modules_on_nodes()


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(request.param)


def works(python: str) -> bool:
    """Whether there is such a Python here: a shim of a version that is not installed answers with an error."""
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0


def pythons() -> Iterator[str]:
    """Name each Python that this machine has, and the one that runs the tests."""
    yield sys.executable
    for version in VERSIONS:
        found = shutil.which(f"python{version}")
        if found and works(found):
            yield found
        else:
            yield from map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")))


def test_there_are_programs_to_look_at() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("python", sorted(set(pythons())), ids=lambda path: Path(path).name)
def test_every_module_is_imported_and_its_annotations_hold_on_each_python_of_this_machine(
    python: str,
) -> None:
    texts = json.dumps({name: node_program(import_module(name)) for name in MODULES})
    done = subprocess.run(
        [python, "-c", EVALUATE], input=texts.encode(), capture_output=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == {}


def test_annotations_are_of_python_3_6_also_where_only_a_new_python_is_at_hand(module: ModuleType) -> None:
    # `str | None` in one of them made every Debian 11 node useless; it parses everywhere.
    tree = ast.parse(node_program(module), feature_version=(3, 6))
    assert [ast.unparse(text) for text in _annotations(tree) if _too_new(text)] == []
    assert not {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)} & TOO_NEW


def _annotations(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.returns


def _too_new(annotation: ast.expr) -> bool:
    builtins = ("list", "dict", "set", "tuple", "frozenset", "type")
    return any(
        (isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr))
        or (
            isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and part.value.id in builtins
        )
        for part in ast.walk(annotation)
    )


def test_it_needs_only_the_standard_library_and_other_modules_of_nodes(module: ModuleType) -> None:
    tree = ast.parse(node_program(module))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
    assert all(part.__name__.rpartition(".")[0].endswith("on_node") for part in parts_of(module))


def test_the_text_holds_each_part_once_and_all_that_they_import_of_each_other(module: ModuleType) -> None:
    wanted = {
        statement.module
        for part in parts_of(module)
        for statement in ast.parse(Path(part.__file__ or "").read_text()).body
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("tasks.")
    }
    assert wanted == {part.__name__ for part in parts_of(module)[:-1]}


def test_modules_that_become_one_text_do_not_overwrite_each_other(module: ModuleType) -> None:
    defined: Counter[str] = Counter()
    for node in ast.parse(node_program(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] += 1
        elif isinstance(node, ast.Assign):
            defined.update(target.id for target in node.targets if isinstance(target, ast.Name))
    assert [name for name, times in defined.items() if times > 1] == []


def test_only_the_program_itself_is_run(module: ModuleType) -> None:
    assert node_program(module).count("if __name__ ==") <= 1


def test_it_fits_into_one_argument(module: ModuleType) -> None:
    # Linux takes 128 KiB for one argument; what is put around the program has had less than a tenth of it.
    assert len(shlex.quote(node_program(module)).encode()) < 112 * 1024
