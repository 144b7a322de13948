"""Which histories are run: every small one, and drawn ones beyond."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.faults import Event
from tests.simulation.history import Plan, Setting
from tests.simulation.world.symptoms import SYMPTOMS

A, B, C = "node-a", "node-b", "node-c"
SETTINGS = (
    Setting(),
    Setting(fence_command=False),
    Setting(fence_command=False, self_fence_s=20),
    Setting(fence_command=True, self_fence_s=20),
    Setting(fence_command=False, fencing="witnesses"),
    Setting(restart_first=False),
    Setting(nodes=3),
    Setting(nodes=3, fence_command=False, self_fence_s=20),
    Setting(durability="required"),
    Setting(fence_command=False, self_fence_s=20, guard_s=60.0),
    Setting(harbor="2.4.3"),
    Setting(harbor="2.4.3", fence_command=False, fencing="witnesses"),
)
FAILOVER = ("o1", "failover", (("expected_primary", A),))
SWITCHOVER = ("o1", "switchover", (("to", B),))
REJOIN = ("o1", "rejoin", (("node", A),))

# One thing that goes wrong with the primary, by name.
PRIMARY_FAULTS: dict[str, tuple[Any, ...]] = {
    "no power": (Event(1, "power_off", (A,)),),
    "crash": (Event(1, "crash", (A,)),),
    "hang": (Event(1, "hang", (A,)),),
    "disk full": (Event(1, "disk", (A, "disk", "full")),),
    "disk hangs": (Event(1, "disk", (A, "disk", "hang")),),
    "root full, crash": (Event(1, "disk", (A, "root", "full")), Event(1.5, "crash", (A,))),
    "isolated": (Event(1, "isolate", (A,)),),
    "isolated, root full": (Event(0.5, "disk", (A, "root", "full")), Event(1, "isolate", (A,))),
    "frozen": (Event(1, "freeze", (A, 90.0)),),
    "nothing": (),
}
# One more thing, while a flow works.
SECOND_FAULTS: dict[str, tuple[Any, ...]] = {
    "nothing": (),
    "standby hangs for a moment": (Event(45, "hang", (B,)),),
    "standby crashes": (Event(40, "crash", (B,)),),
    "the primary is switched on": (Event(50, "power_on", (A,)),),
    "fence fails": (Event(0, "fence", ("fails",)),),
    "fence times out after acting": (Event(0, "fence", ("times out after acting",)),),
    "a program comes late": (Event(0.5, "late_program", (B, 60.0)),),
    "slow promotion": (Event(0, "slow_promotion", (B, 100.0)),),
    "standby lags": (Event(0, "lag", (B,)), Event(0.5, "burst", (A,))),
    "balancer down": (Event(0, "down", ("balancer",)),),
}


def shifted(events: tuple[Any, ...], by: float) -> list[Event]:
    """Move events in time."""
    return [replace(event, at=event.at + by) for event in events]


def lone(call: tuple[Any, ...]) -> Plan:
    """Give a history of one flow that has something to do, called again when it was killed."""
    flow = call[1]
    events = [Event(3, "power_off", (A if flow == "failover" else B,))] if flow != "switchover" else []
    if flow == "rejoin":
        # A standby that was away for too long: it has to be copied.
        call = ("o1", "rejoin", (("node", B),))
        events += [Event(5, "slot_lost", (B,)), Event(8, "power_on", (B,))]
    return plan(1, SETTINGS[0], [*events, Event(40, "call", call), Event(130, "call", call)])


def small(seed: int = 1) -> Iterator[tuple[str, Plan]]:
    """Give every primary fault with every second fault: the basis of what is exhausted."""
    for first, one in PRIMARY_FAULTS.items():
        for second, two in SECOND_FAULTS.items():
            for setting in SETTINGS[:5]:
                calls = [Event(20, "call", FAILOVER), Event(400, "call", FAILOVER)]
                events = [*shifted(one, 3), *shifted(two, 3), *calls]
                serves = second == "nothing" and setting.fence_command
                yield (f"{first}; {second}", plan(seed, setting, events, serves=serves))


def plan(seed: int, setting: Setting, events: list[Event], **more: Any) -> Plan:
    """Put events in order."""
    return Plan(seed, setting, tuple(sorted(events, key=lambda event: event.at)), **more)


def killed_everywhere(base: Plan, boundaries: int, fates: tuple[tuple[str, float], ...]) -> Iterator[Plan]:
    """Kill or stall the orchestrator at each boundary of a history."""
    for number in range(1, boundaries + 1):
        for kind, seconds in fates:
            yield replace(base, fates=((number, kind, seconds),))


def drawn(seed: int) -> Plan:
    """Draw a history by its number."""
    rng = random.Random(seed)
    setting = rng.choice(SETTINGS)
    nodes = [A, B, C][: setting.nodes]
    events: list[Event] = []
    time = rng.uniform(2, 10)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        events += fault_by_chance(rng, time, nodes)
        time += rng.choice((0.3, 2.0, 8.0, 25.0, 60.0, 200.0)) * rng.uniform(0.5, 1.5)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        events.append(call_by_chance(rng, rng.uniform(1, time + 60), nodes))
    if rng.random() < 0.7:
        events.append(Event(rng.uniform(0, 10), "alert", (rng.choice((1, 3)),)))
    if rng.random() < 0.3:
        events.append(Event(rng.uniform(0, time), "check"))
    fates = tuple(
        (
            rng.randrange(1, 120),
            rng.choice(("kill", "kill", "stall", "stall", "late")),
            rng.choice((3.0, 20.0, 45.0, 200.0, 1000.0)),
        )
        for _ in range(rng.choice((0, 0, 1, 1, 2)))
    )
    quiet_s = rng.choice((5.0, 60.0, 150.0, 1000.0))
    return plan(seed, setting, events, fates=fates, quiet_s=quiet_s, any_order=True)


def fault_by_chance(rng: random.Random, at: float, nodes: list[str]) -> list[Event]:
    """Draw something that goes wrong, and when it ends, if it does."""
    node = A if rng.random() < 0.7 else rng.choice(nodes)
    other = rng.choice([name for name in nodes if name != node])
    place = rng.choice([other, "o1", "o2", "balancer", "redis", "nas"])
    symptom = rng.choice(list(SYMPTOMS))
    later = at + rng.choice((1.0, 5.0, 15.0, 60.0, 250.0)) * rng.uniform(0.5, 1.5)
    choices: list[list[Event]] = [
        [Event(at, "power_off", (node,))],
        [Event(at, "power_off", (node,)), Event(later, "power_on", (node,))],
        [
            Event(at, "power_off", (node,)),
            Event(at, "power_off", (other,)),
            Event(later, "power_on", (node,)),
        ],
        [Event(at, "freeze", (node, rng.choice((2.0, 12.0, 60.0, 300.0))))],
        [Event(at, "crash", (node,))],
        [Event(at, "hang", (node,))],
        [Event(at, "hang", (node,)), Event(later, "unhang", (node,))],
        [Event(at, "no_threads", (node,))],
        [Event(at, "harbor_read_only")],
        [Event(at, "disk", (node, rng.choice(("root", "disk")), rng.choice(("full", "read-only"))))],
        [Event(at, "disk", (node, "disk", "hang"))],
        [Event(at, "cut", (node, place))],
        [Event(at, "cut", (node, place)), Event(later, "mend", (node,))],
        [Event(at, "isolate", (node,))],
        [Event(at, "isolate", (node,)), Event(later, "mend", (node,))],
        [Event(at, "isolate", (rng.choice(("o1", "o2")),))],
        [
            Event(
                at, "clock", (rng.choice([*nodes, "o1", "o2"]), rng.choice((-7200.0, -300.0, 300.0, 7200.0)))
            )
        ],
        [Event(at, "kill", (rng.choice(("o1", "o2")),))],
        [Event(at, "stall", (rng.choice(("o1", "o2")), rng.choice((10.0, 60.0, 400.0))))],
        [
            Event(at, "clone", ("o1",)),
            Event(later, "call", ("o1-clone", "failover", (("expected_primary", A),))),
        ],
        [Event(at, "fence", (rng.choice(("fails", "times out after acting", "lies", "truthful")),))],
        [Event(at, "late_program", (node, rng.choice((20.0, 45.0, 120.0))))],
        [Event(at, "lag", (other,)), Event(at + 0.5, "burst", (node,))],
        [Event(at, "lag", (other,)), Event(later, "no_lag", (other,))],
        [Event(at, "slow_promotion", (rng.choice(nodes), rng.choice((15.0, 40.0, 100.0))))],
        [
            Event(at, "slow_promotion", (other, rng.choice((15.0, 40.0, 100.0)))),
            Event(at, "power_off", (node,)),
            Event(later, "power_on", (node,)),
        ],
        [
            Event(at, "slow_promotion", (other, rng.choice((15.0, 40.0, 100.0)))),
            Event(at, "isolate", (node,)),
            Event(later + rng.uniform(0.0, 150.0), "mend", (node,)),
        ],
        [
            Event(at, "slow_promotion", (other, rng.choice((40.0, 100.0)))),
            Event(at, "power_off", (node,)),
            Event(at + rng.uniform(10.0, 120.0), rng.choice(("isolate", "power_off")), (other,)),
            Event(at + rng.uniform(30.0, 250.0), "power_on", (node,)),
            Event(at + rng.uniform(130.0, 300.0), "power_on", (other,)),
            Event(at + rng.uniform(130.0, 300.0), "mend", (other,)),
        ],
        [Event(at, "slow_start", (node, rng.choice((12.0, 50.0))))],
        [Event(at, "slot_lost", (node,))],
        [Event(at, "harbor_stops", (node,))],
        [Event(at, "down", (rng.choice(("balancer", "redis", "nas")),))],
        [Event(at, "guard", (node, False))],
        [Event(at, "read_only", (node,))],
        [Event(at, "symptom", (rng.choice(nodes), symptom))],
        [Event(at, "symptom", (node, symptom)), Event(later, "no_symptom", (node, symptom))],
    ]
    return rng.choice(choices)


def call_by_chance(rng: random.Random, at: float, nodes: list[str]) -> Event:
    """Draw a call of a flow."""
    orchestrator = rng.choice(("o1", "o1", "o2"))
    primary = A if rng.random() < 0.8 else rng.choice(nodes)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("failover", {"expected_primary": primary}),
        ("failover", {"expected_primary": primary}),
        ("failover", {"expected_primary": primary, "dry_run": True}),
        ("failover", {"expected_primary": primary, "accept_data_loss": True}),
        ("switchover", {"to": rng.choice(nodes[1:])}),
        ("switchover", {"to": rng.choice(nodes)}),
        ("rejoin", {"node": rng.choice(nodes)}),
        ("failover", {"expected_primary": "node-z"}),
        ("pause", {"reason": "maintenance"}),
        ("pause", {"end": True}),
    ]
    flow, given = rng.choice(calls)
    return Event(at, "call", (orchestrator, flow, tuple(given.items())))
