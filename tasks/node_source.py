"""Programs for a node, made of our own modules: checked like all others, sent as one text."""

import ast
import functools
import inspect
import threading
from types import ModuleType

# Two threads in ast.parse at once end in "AST constructor recursion depth mismatch" (seen on Python 3.11.7, in
# the step that wrote harbor.yml on both nodes), and functools.cache lets both of them in.
_parsing = threading.Lock()


def source_of(*modules: ModuleType) -> str:
    """Join modules into one program for `Host.python`.

    Args:
        modules: the library modules first, the program last; of all others `if __name__ == "__main__"` is left
            out. They use Python 3.6 and the standard library only (Ubuntu 18.04 is the oldest node), and
            import each other with `from tasks.… import …`, which means nothing on the node, where all is one
            text. So no two of them may define the same name.

    Returns:
        The program's text; its first line is its name, which is what an error shows of it.
    """
    with _parsing:
        return _joined(modules)


@functools.cache
def _joined(modules: tuple[ModuleType, ...]) -> str:
    libraries = [line for module in modules[:-1] for line in _kept(module, library=True)]
    name = f"# {modules[-1].__name__}"
    return "\n".join([name, *libraries, *_kept(modules[-1], library=False)]) + "\n"


def _kept(module: ModuleType, *, library: bool) -> list[str]:
    source = inspect.getsource(module)
    dropped: set[int] = set()
    for statement in ast.parse(source).body:
        local = isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("tasks.")
        main = library and isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
        if local or main:
            dropped.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return [line for number, line in enumerate(source.splitlines(), 1) if number not in dropped]
