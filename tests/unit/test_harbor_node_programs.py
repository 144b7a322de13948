"""What is sent to a node must run on the oldest node: Python 3.6, nothing but the standard library."""

import ast
import sys
from types import ModuleType

import pytest

from tasks.docker.on_node import daemon_apply, engine_facts, engine_start, lib
from tasks.harbor.on_node import (
    boot,
    clone,
    containers,
    install,
    prepare,
    read_config,
    repoint,
    secret_files,
    start,
    storage,
)
from tasks.node_source import source_of
from tasks.remote import package_states

PROGRAMS: list[tuple[ModuleType, ...]] = [
    (lib, package_states, engine_facts),
    (lib, engine_start),
    (lib, daemon_apply),
    (lib, install),
    (lib, read_config),
    (lib, prepare),
    (lib, secret_files),
    (lib, storage),
    (lib, containers, start),
    (lib, containers, boot),
    (lib, containers, clone, prepare, start, repoint),
]
# Arguments of subprocess.run that Python 3.7 brought.
TOO_NEW = {"capture_output", "text"}


def name_of(modules: tuple[ModuleType, ...]) -> str:
    """Name a program by its last module."""
    return modules[-1].__name__.rpartition(".")[2]


@pytest.mark.parametrize("modules", PROGRAMS, ids=name_of)
def test_a_program_is_python_3_6(modules: tuple[ModuleType, ...]) -> None:
    tree = ast.parse(source_of(*modules), feature_version=(3, 6))
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not keywords & TOO_NEW


@pytest.mark.parametrize("modules", PROGRAMS, ids=name_of)
def test_a_program_imports_only_the_standard_library(modules: tuple[ModuleType, ...]) -> None:
    tree = ast.parse(source_of(*modules))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("modules", PROGRAMS, ids=name_of)
def test_modules_that_become_one_text_do_not_overwrite_each_other(modules: tuple[ModuleType, ...]) -> None:
    defined: list[str] = []
    for node in ast.parse(source_of(*modules)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.Assign):
            defined += [target.id for target in node.targets if isinstance(target, ast.Name)]
    assert sorted(defined) == sorted(set(defined))


@pytest.mark.parametrize("modules", PROGRAMS, ids=name_of)
def test_only_the_last_module_is_run(modules: tuple[ModuleType, ...]) -> None:
    assert source_of(*modules).count('if __name__ == "__main__":') == 1


@pytest.mark.parametrize("modules", PROGRAMS, ids=name_of)
def test_a_program_fits_into_one_argument(modules: tuple[ModuleType, ...]) -> None:
    # Linux takes 128 KiB for one argument, and the shell around it quotes every quote with four characters.
    assert len(source_of(*modules)) < 64 * 1024
