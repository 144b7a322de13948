"""Programs for a node, made of our own modules: checked like all others, sent as one text.

Every module in a folder `on_node` runs on a node: Python 3.6 (Ubuntu 18.04 is the oldest node) and the standard
library only. They import each other with `from tasks.….on_node.… import …`, which means nothing on the node, where
all of a program is one text; so no two modules of one program may define the same name.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

# Read as text, never parsed: Prefect's threads compile too, and two threads in ast.parse at once end in
# "AST constructor recursion depth mismatch" (seen on Python 3.11.7, in the step that wrote harbor.yml).
_OURS = re.compile(r"^from (tasks\.[\w.]+) import (\([^)]*\)|[^\n(]+)\n", re.MULTILINE)
_MAIN = re.compile(r'^if __name__ == "__main__":\n(?:[ \t]+[^\n]*\n|\n)*', re.MULTILINE)


def node_program(module: ModuleType) -> str:
    """Join a module and what it imports of ours into one program for `Host.python`.

    Call it when the caller is imported: the text is that of the process's start, whatever is installed meanwhile.

    Args:
        module: the program; of the modules that it imports, `if __name__ == "__main__"` is left out.

    Returns:
        The program's text; its first line is its name, which is what an error shows of it.
    """
    libraries = [_MAIN.sub("", _without_imports(library)) for library in _needed(module, [])]
    return "".join([f"# {module.__name__}\n", *libraries, _without_imports(module)])


def parts_of(module: ModuleType) -> list[ModuleType]:
    """Name what a program is made of, in the order of its text; the program itself is the last."""
    return [*_needed(module, []), module]


def _needed(module: ModuleType, found: list[ModuleType]) -> list[ModuleType]:
    for name, _ in _OURS.findall(_text(module)):
        library = sys.modules.get(name) or import_module(name)
        if library not in found:
            _needed(library, found)
            found.append(library)
    return found


def _without_imports(module: ModuleType) -> str:
    return _OURS.sub("", _text(module))


def _text(module: ModuleType) -> str:
    return Path(module.__file__ or "").read_text(encoding="utf-8")
