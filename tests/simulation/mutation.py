"""Takes a cure out of the real code while a `with` lasts: a line of a function, or a rule of a table."""

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_ROOTS = ("flows.", "tasks.", "tests.simulation.")


class Stale(Exception):
    """The code that a mutant takes out is not there any more; the mutant has to be written anew."""


@dataclass(frozen=True)
class Edit:
    """Other text in one function.

    Attributes:
        target: the function, as `module:name` or `module:Class.name`.
        old: what is taken out; it must be there.
        new: what stands there instead.
    """

    target: str
    old: str
    new: str


@dataclass(frozen=True)
class Without:
    """A table of rules without some of them."""

    module: str
    table: str
    rules: tuple[str, ...]


Change = Edit | Without


@contextlib.contextmanager
def taken_out(*changes: Change) -> Iterator[None]:
    """Have the real code run with the changes inside the `with`; inside closed seams."""
    with contextlib.ExitStack() as undo:
        for change in changes:
            if isinstance(change, Edit):
                _edit(change, undo)
            else:
                _without(change, undo)
        yield


def _edit(change: Edit, undo: contextlib.ExitStack) -> None:
    path, _, name = change.target.partition(":")
    owner: Any = sys.modules[path]
    *classes, name = name.split(".")
    for inner in classes:
        owner = getattr(owner, inner)
    original = inspect.getattr_static(owner, name)
    function: Any = original.fget if isinstance(original, property) else original
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    if source.count(change.old) != 1:
        raise Stale(f"{change.target} does not hold this once any more: {change.old}")
    found: dict[str, Any] = {}
    code = compile(source.replace(change.old, change.new), f"mutant of {change.target}", "exec")
    exec(code, inspect.unwrap(function).__globals__, found)  # noqa: S102 - our own function with other text
    if classes:
        _put(owner, name, found[name], undo)
    else:
        _swap(original, found[name], undo)


def _without(change: Without, undo: contextlib.ExitStack) -> None:
    module = sys.modules[change.module]
    rules = getattr(module, change.table)
    kept = tuple(rule for rule in rules if rule.name not in change.rules)
    if len(kept) != len(rules) - len(change.rules):
        raise Stale(f"{change.table} does not hold all of {', '.join(change.rules)} any more")
    _put(module, change.table, kept, undo)


def _swap(original: Callable[..., Any], mutant: Callable[..., Any], undo: contextlib.ExitStack) -> None:
    """Put the mutant wherever a module holds the original."""
    for path, module in list(sys.modules.items()):
        if not path.startswith(_ROOTS) or module is None:
            continue
        for name, value in list(module.__dict__.items()):
            if value is original:
                _put(module, name, mutant, undo)


def _put(owner: Any, name: str, value: Any, undo: contextlib.ExitStack) -> None:
    before = inspect.getattr_static(owner, name)
    setattr(owner, name, value)
    undo.callback(setattr, owner, name, before)
