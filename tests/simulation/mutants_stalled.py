"""Cures against a run that stands still between what it knows and what it does."""

from tests.simulation.mutant import CONFIRMED, SELF_FENCE, WITNESSES, Mutant, at_boundaries, event, failover
from tests.simulation.mutation import Edit
from tests.simulation.schedules import A

STALLED: tuple[Mutant, ...] = (
    Mutant(
        "S20",
        "a node is drained minutes after that was written down, and nobody tells",
        (
            Edit(
                "flows.machinery.operation:Operation.in_time",
                "return self.written_at + MAX_INTENT_AGE_S",
                "return self.written_at + 1e9",
            ),
            Edit(
                "flows.machinery.operation:Operation.abort", "for node in self.held.drained", "for node in ()"
            ),
        ),
        at_boundaries(
            24,
            40,
            ("stall", 200.0),
            WITNESSES,
            event(4.3, "isolate", A),
            failover(6),
            event(34.8, "mend", A),
            failover(117.8),
            quiet_s=200.0,
        ),
        ("it becomes healthy",),
    ),
    Mutant(
        "S21",
        "a fence counts from the look after it, however long the run stood still in between",
        (
            Edit(
                "flows.machinery.fence:Climb.held_since",
                "return self._ordered_at",
                "return time.monotonic()",
            ),
        ),
        at_boundaries(
            23,
            26,
            ("stall", 150.0),
            CONFIRMED,
            event(3, "isolate", A),
            failover(6),
            event(40, "power_on", A),
            quiet_s=250.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "S22",
        "a silence goes on while nobody listens",
        (
            Edit(
                "flows.machinery.fence:Silence.observe",
                "    if time.monotonic() - self._seen_at > _UNSEEN_LIMIT_S:\n        self._since = None\n",
                "",
            ),
        ),
        at_boundaries(
            24,
            32,
            ("stall", 25.0),
            SELF_FENCE,
            event(3, "isolate", A),
            failover(6),
            event(16, "mend", A),
            event(29, "isolate", A),
        ),
        ("two writers",),
    ),
)
