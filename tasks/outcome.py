"""The result of a step that can change something."""

from dataclasses import dataclass, field
from typing import Any

# A label of a flow's run: a primary is accepted, so the alert that started the run needs no further one.
PRIMARY_ACCEPTED = "harbor-ha.primary-accepted"


@dataclass(frozen=True)
class Outcome:
    """What one step did on one node.

    Attributes:
        changed: whether anything was changed; running a step again must give False.
        detail: one line for the report, without secrets.
        data: plain values for the steps that follow, without secrets.
    """

    changed: bool
    detail: str
    data: dict[str, Any] = field(default_factory=dict)


def unchanged(detail: str, **data: Any) -> Outcome:
    """Say that a step found everything as it should be."""
    return Outcome(False, detail, data)


def changed(detail: str, **data: Any) -> Outcome:
    """Say that a step changed something."""
    return Outcome(True, detail, data)
