"""Longer histories: a site with several outages, each brought back, and now and then an alert while the primary serves.

What one operation leaves is met by the next one. A history of one outage ends before a false alarm comes, and none had
shown that a failover which does nothing makes a rejoin forget whom it had told of its losses.
"""

import random
from typing import Any

from tests.simulation.faults import Event
from tests.simulation.history import Plan
from tests.simulation.schedules import SETTINGS, A, B, C, call_by_chance, drawn, fault_by_chance, plan

_ENDS = ("power_on", "mend", "unhang", "no_lag")


def by_number(seed: int) -> Plan:
    """Draw a history by its number: each fourth is a long one."""
    return long_life(seed) if seed % 4 == 3 else drawn(seed)


def long_life(seed: int) -> Plan:
    """Draw a history of two or three outages by its number."""
    rng = random.Random(seed)
    setting = rng.choice(SETTINGS)
    nodes = [A, B, C][: setting.nodes]
    events: list[Event] = []
    now = 3.0
    for _ in range(rng.choice((2, 2, 3))):
        events += _outage(rng, now, nodes)
        now += rng.uniform(60, 200)
        events += [Event(now, kind, (node,)) for node in nodes for kind in _ENDS]
        for _ in range(rng.choice((1, 1, 2))):
            events.append(_calls(rng, now + rng.uniform(10, 120), "rejoin", node=rng.choice(nodes)))
        now += rng.choice((150.0, 700.0))
        events += [
            _calls(rng, now + rng.uniform(0, 60), "failover", expected_primary=node)
            for node in nodes
            if rng.random() < 0.5
        ]
        now += rng.choice((100.0, 700.0))
    fates = tuple(
        (
            rng.randrange(1, 400),
            rng.choice(("kill", "kill", "kill", "stall", "late")),
            rng.choice((3.0, 20.0, 45.0, 200.0, 1000.0)),
        )
        for _ in range(rng.choice((0, 1, 2, 3)))
    )
    quiet_s = rng.choice((5.0, 60.0, 150.0))
    return plan(seed, setting, events, fates=fates, quiet_s=quiet_s, any_order=True)


def _outage(rng: random.Random, at: float, nodes: list[str]) -> list[Event]:
    """One thing that goes wrong, and what is called for it."""
    node = rng.choice(nodes)
    chance = rng.random()
    if chance < 0.25:
        return [_calls(rng, at, "switchover", to=rng.choice(nodes))]
    if chance < 0.5:
        return [*fault_by_chance(rng, at, nodes), call_by_chance(rng, at + rng.uniform(5, 40), nodes)]
    behind = [Event(at, "lag", (rng.choice(nodes),)), Event(at + 0.5, "burst", (node,))]
    vouched = {"accept_data_loss": True} if rng.random() < 0.6 else {}
    return [
        *(behind if rng.random() < 0.5 else []),
        Event(at + 2, rng.choice(("power_off", "crash", "isolate", "hang")), (node,)),
        _calls(rng, at + rng.uniform(7, 32), "failover", expected_primary=node, **vouched),
    ]


def _calls(rng: random.Random, at: float, flow: str, **given: Any) -> Event:
    return Event(at, "call", (rng.choice(("o1", "o1", "o2")), flow, tuple(given.items())))
