"""Which rules of which tables the histories have taken."""

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import flows.rules
from flows.rules import table, verdict
from flows.rules.table import Check, Rule
from flows.rules.verdict import FINDINGS, Finding

_ROOTS = ("flows.", "tasks.", "tests.simulation.")
Taken = set[tuple[str, str]]


def tables() -> dict[str, Sequence[Any]]:
    """List every table of rules, checks and findings by its name."""
    found: dict[str, Sequence[Any]] = {}
    for module in pkgutil.iter_modules(flows.rules.__path__):
        names = vars(importlib.import_module(f"flows.rules.{module.name}"))
        for name, value in names.items():
            rows = isinstance(value, tuple) and bool(value)
            if rows and name.isupper() and all(isinstance(row, Rule | Check | Finding) for row in value):
                found[name] = value
    return found


@contextlib.contextmanager
def counted(taken: Taken) -> Iterator[None]:
    """Note every rule that is taken inside the `with`; inside closed seams."""
    names = {id(rows): name for name, rows in tables().items()}
    match, violations, judge = table.first_match, table.violations, verdict.judge

    def first_match(rules: Sequence[Any], view: Any) -> Any:
        decision = match(rules, view)
        taken.add((names.get(id(rules), ""), decision.rule))
        return decision

    def found_violations(checks: Iterable[Any], view: Any) -> list[Any]:
        found = violations(checks, view)
        taken.update((names.get(id(checks), ""), check.name) for check in found)
        return found

    def judged(view: Any) -> Any:
        taken.update(("FINDINGS", finding.name) for finding in FINDINGS if finding.holds(view))
        return judge(view)

    pairs = {id(match): first_match, id(violations): found_violations, id(judge): judged}
    undo = []
    for path, module in list(sys.modules.items()):
        for name, value in list(vars(module).items()) if path.startswith(_ROOTS) and module else ():
            if id(value) in pairs and module is not sys.modules[__name__]:
                undo.append((module, name, value))
                setattr(module, name, pairs[id(value)])
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)


def untaken(taken: Taken) -> tuple[dict[str, list[str]], list[str]]:
    """Return the rules that were not taken, by table, and the tables of which no rule was.

    The latter belong to flows that are not simulated.
    """
    missing, unused = {}, []
    for name, rows in sorted(tables().items()):
        left = [row.name for row in rows if (name, row.name) not in taken]
        if len(left) == len(rows):
            unused.append(name)
        elif left:
            missing[name] = left
    return missing, unused
