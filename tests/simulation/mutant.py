"""What a mutant is: a cure that is taken out, and a few histories that go red then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.faults import Event
from tests.simulation.history import Plan, Setting
from tests.simulation.mutation import Change
from tests.simulation.schedules import A, plan

CONFIRMED = Setting()
NO_COMMAND = Setting(fence_command=False)
WITNESSES = Setting(fence_command=False, fencing="witnesses")
SELF_FENCE = Setting(fence_command=False, self_fence_s=20)
NO_RESTART = Setting(restart_first=False)
# Its core is not started before the promotion, and until then it writes to the old primary.
OLD_HARBOR = Setting(fence_command=False, fencing="witnesses", harbor="2.4.3")
KILL = ("kill", 0.0)
Plans = Callable[[], Iterator[Plan]]


@dataclass(frozen=True)
class Mutant:
    """A cure that is taken out.

    Attributes:
        row: of the audit's table; S: found by this simulation.
        without: what the code does then, in words.
        changes: the text or rules that are taken out.
        plans: histories, of which one at the least goes red.
        invariants: those that may be violated.
    """

    row: str
    without: str
    changes: tuple[Change, ...]
    plans: Plans
    invariants: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the test calls it."""
        return f"{self.row}: {self.without}"


def event(at: float, kind: str, *args: Any) -> Event:
    """Have something befall the site, so many seconds after the beginning."""
    return Event(at, kind, args)


def call(at: float, flow: str, orchestrator: str = "o1", **given: Any) -> Event:
    """Call a flow."""
    return Event(at, "call", (orchestrator, flow, tuple(given.items())))


def failover(at: float, orchestrator: str = "o1", **more: Any) -> Event:
    """Call failover for node-a."""
    return call(at, "failover", orchestrator, expected_primary=A, **more)


def once(setting: Setting, *events: Event, quiet_s: float = 120.0, serves: bool = False) -> Plans:
    """One history."""
    return lambda: iter([plan(1, setting, list(events), quiet_s=quiet_s, serves=serves)])


def at_boundaries(
    first: int, last: int, fate: tuple[str, float], setting: Setting, *events: Event, quiet_s: float = 120.0
) -> Plans:
    """The same history with the orchestrator killed or stalled at each of some boundaries."""

    def plans() -> Iterator[Plan]:
        base = plan(1, setting, list(events), quiet_s=quiet_s)
        for number in range(first, last):
            yield replace(base, fates=((number, *fate),))

    return plans
