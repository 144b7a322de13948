"""Decisions as tables: rules over frozen views, with their reasons.

A rule table answers with the first rule that holds; a check table answers with every check that is violated.
Both are data, so that they can be rendered into the documentation and enumerated by tests.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from tasks.clock import Moment
from tasks.errors import HarborHaError

View = TypeVar("View")
Kind = TypeVar("Kind", bound=StrEnum)

# A decision is taken on what was just seen. A look takes up to 4 s and a confirmation some rounds; a pair of
# facts from before a stall of the orchestrator has promoted a standby beside a living primary elsewhere.
FACTS_LIMIT_S = 15.0


class FactsTooOld(HarborHaError):
    """Facts were too old to decide on; look again."""


class NoRuleHolds(HarborHaError):
    """No rule of a table holds: a hole in the table, found by its tests before an operator finds it."""


@dataclass(frozen=True)
class Rule(Generic[View, Kind]):
    """One line of a decision table.

    Attributes:
        name: how reports and tests call it.
        condition: the predicate in words, for the documentation.
        when: the predicate.
        kind: what is decided.
        reason: why, for the operator; `{…}` are attributes of the view.
        remedy: what the operator does, when there is something to do.
    """

    name: str
    condition: str
    when: Callable[[View], bool]
    kind: Kind
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Decision(Generic[Kind]):
    """What was decided, and on what ground.

    Attributes:
        kind: the decision.
        rule: the name of the rule, or of the table for a list of checks.
        reasons: every reason, in words.
        remedies: what to do about each reason; same length, empty where nothing can be done.
        warnings: what is worth knowing and did not decide.
        evidence: the view that was decided on, attribute by attribute.
        first: of all the remedies, what to do now.
    """

    kind: Kind
    rule: str
    reasons: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    first: str = ""

    def lines(self) -> list[str]:
        """Return reasons with their remedies, one line each, for an error or a report."""
        return [
            f"{reason} -> {remedy}" if remedy else reason
            for reason, remedy in zip(self.reasons, self.remedies, strict=True)
        ]


def first_match(rules: Sequence[Rule[View, Kind]], view: View) -> Decision[Kind]:
    """Decide by the first rule that holds.

    Raises:
        NoRuleHolds: when none does.
    """
    for rule in rules:
        if rule.when(view):
            seen = evidence(view)
            return Decision(
                rule.kind,
                rule.name,
                (fill(rule.reason, seen),),
                (fill(rule.remedy, seen),),
                evidence=seen,
            )
    raise NoRuleHolds(f"No rule holds for {view}.", remedy="Report this as a defect.")


class Weight(StrEnum):
    """What a violated check means for what was asked."""

    REFUSE = "refuse"
    DATA_LOSS = "data loss"  # refuses unless the operator accepts the loss
    WARN = "warn"


@dataclass(frozen=True)
class Check(Generic[View]):
    """One precondition.

    Attributes:
        name: how reports and tests call it.
        condition: when it is violated, in words, for the documentation.
        violated: the predicate.
        weight: what a violation means.
        reason: what is wrong, for the operator; `{…}` are attributes of the view.
        remedy: what the operator does about it.
    """

    name: str
    condition: str
    violated: Callable[[View], bool]
    weight: Weight
    reason: str
    remedy: str


def violations(checks: Iterable[Check[View]], view: View) -> list[Check[View]]:
    """Return every check that is violated, in the order of the table."""
    return [check for check in checks if check.violated(view)]


def weigh(
    table: str,
    checks: Iterable[Check[View]],
    view: View,
    *,
    yes: Kind,
    no: Kind,
    accept_data_loss: bool = False,
) -> Decision[Kind]:
    """Decide by a list of preconditions: no violated one may be left.

    Args:
        table: the name of the table.
        checks: the preconditions.
        view: what they are held against.
        yes: the decision when nothing stands against it.
        no: the decision otherwise.
        accept_data_loss: the operator accepts losing writes; nothing else is accepted with it.
    """
    seen = evidence(view)
    against: list[Check[View]] = []
    warnings: list[str] = []
    for check in violations(checks, view):
        waived = check.weight is Weight.DATA_LOSS and accept_data_loss
        if check.weight is Weight.WARN or waived:
            warnings.append(fill(check.reason, seen) + (" (accepted by the operator)" if waived else ""))
        else:
            against.append(check)
    return Decision(
        no if against else yes,
        table,
        tuple(fill(check.reason, seen) for check in against),
        tuple(fill(check.remedy, seen) for check in against),
        tuple(warnings),
        seen,
    )


def evidence(view: object) -> dict[str, Any]:
    """Return the public attributes of a view, computed ones included, as plain values by name."""
    names = [name for name in dir(view) if not name.startswith("_")]
    values = {name: getattr(view, name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


def fill(template: str, seen: Mapping[str, Any]) -> str:
    """Put the values of a view into a reason."""
    return template.format_map(seen)


def describe_bytes(count: int | None) -> str:
    """Name a number of bytes, or say that it is not known."""
    return "an unknown number of bytes" if count is None else f"{count:,} bytes"


def require_fresh(
    observations: Iterable[tuple[str, Moment]], now: Moment, limit_s: float = FACTS_LIMIT_S
) -> None:
    """Refuse to decide on old facts.

    Args:
        observations: what was observed and when the look began.
        now: the moment of the decision.
        limit_s: how old a fact may be, in seconds.

    Raises:
        FactsTooOld: names every one that is older, or that comes from the future (another clock).
    """
    old = [(what, at.age(now)) for what, at in observations if not 0 <= at.age(now) <= limit_s]
    if old:
        ages = ", ".join(f"{what} {age:.1f} s" for what, age in old)
        raise FactsTooOld(
            f"Facts are older than {limit_s:.0f} s: {ages}.",
            meaning="What they say may no longer be so.",
            remedy="Look again; nothing was decided.",
        )
