"""Cures in programs on the nodes that are taken out."""

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.history import Plan
from tests.simulation.mutant import (
    CONFIRMED,
    NO_RESTART,
    OLD_HARBOR,
    SELF_FENCE,
    Mutant,
    at_boundaries,
    event,
    failover,
    once,
)
from tests.simulation.mutants_flows import FLOWS, REPLACED
from tests.simulation.mutants_found import FOUND
from tests.simulation.mutants_stalled import STALLED, UNTOLD
from tests.simulation.mutation import Edit
from tests.simulation.schedules import A, B, plan


def _booting() -> Iterator[Plan]:
    """A boots while B is promoted, which begins a little later each time."""
    for later in range(12):
        slow, called = event(3, "slow_start", A, 1.0), 20.5 + later * 0.03
        booting = [slow, event(3.9, "power_off", A), event(5, "power_on", A), failover(called, "o2")]
        yield plan(1, OLD_HARBOR, booting)


def _back() -> Iterator[Plan]:
    """An isolated A, which has fenced itself, is in touch again while B is promoted, a little later each time.

    The NAS is away: it would tell A of the promotion as soon as B is told.
    """
    for later in range(24):
        back = event(55.6 + later * 0.04, "mend", A)
        gone = [event(3, "isolate", A), event(4, "down", "nas"), failover(20.2), back]
        yield plan(1, replace(SELF_FENCE, harbor=OLD_HARBOR.harbor), gone, quiet_s=100.0)


NODES: tuple[Mutant, ...] = (
    Mutant(
        "3a",
        "the self-fence notes before it stops",
        (
            Edit(
                "tasks.guard.on_node.guard_acts:fence",
                "    stop_server(p)\n",
                '    note_fence(p, {"why": why})\n    stop_server(p)\n',
            ),
        ),
        once(
            SELF_FENCE,
            event(3, "disk", A, "root", "full"),
            event(4, "isolate", A),
            failover(20),
            quiet_s=200.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "3c",
        "an isolated node starts as a primary although it would have fenced itself",
        (Edit("tasks.guard.on_node.boot_guard:is_alone", "return not in_touch(p)", "return False"),),
        once(
            SELF_FENCE,
            event(3, "isolate", A),
            event(3, "cut", A, "nas"),
            failover(20),
            event(100, "power_off", A),
            event(110, "power_on", A),
            quiet_s=200.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "3d",
        "a pass of the guard that fails is skipped",
        (Edit("tasks.guard.on_node.guard_watch:Guard.without_looking", "if not self.p:", "if True:"),),
        once(SELF_FENCE, event(3, "no_threads", A), event(4, "isolate", A), failover(20), quiet_s=200.0),
        ("two writers",),
    ),
    Mutant(
        "4",
        "a program asks nobody whether it may still act, nor whether the old primary lives",
        (
            Edit(
                "tasks.on_node.authority:why_not",
                '    given = p.get("authority")\n',
                '    return None\n    given = p.get("authority")\n',
            ),
            Edit("tasks.postgres.on_node.pg_promote:promote", 'p.get("unheard")', "False"),
        ),
        at_boundaries(
            30,
            50,
            ("late", 60.0),
            CONFIRMED,
            event(3, "power_off", A),
            failover(6),
            event(20, "power_on", A),
            # Otherwise its guard obeys the acceptance before its Harbor has written anything.
            event(60, "cut", A, B),
            event(60, "cut", A, "nas"),
            quiet_s=200.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "4",
        "a holder of another boot of the same machine is known to be dead",
        (
            Edit(
                "tasks.operation.holder:known_dead",
                "(other.boot, other.namespace, other.machine)",
                "(here.boot, here.namespace, other.machine)",
            ),
        ),
        at_boundaries(
            20,
            24,
            ("stall", 30.0),
            NO_RESTART,
            event(3, "crash", A),
            event(4, "clone", "o1"),
            failover(5),
            failover(12, "o1-clone"),
        ),
        ("a living lock is not taken",),
    ),
    Mutant(
        "5",
        "a primary of more than two minutes obeys no acceptance",
        (
            Edit(
                "tasks.guard.on_node.guard_rules:must_yield",
                "    if local.standby_signal:\n",
                "    if local.standby_signal or running_s > YIELD_S:\n",
            ),
        ),
        once(
            SELF_FENCE,
            event(3, "freeze", A, 300.0),
            event(4, "cut", A, B),
            event(4, "cut", A, "o1"),
            failover(20),
            event(280, "mend", A),
            quiet_s=300.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "5b",
        "a peer that cannot be asked consents",
        (Edit("tasks.guard.on_node.guard_rules:judge_start", "if unasked:", "if False:"),),
        once(
            NO_RESTART,
            event(2.5, "down", "nas"),
            event(3, "power_off", A),
            failover(6),
            event(60, "slow_start", B, 50.0),
            event(61, "power_off", B),
            event(62, "power_on", B),
            event(67, "power_on", A),
            quiet_s=200.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "14b",
        "a stale postmaster.pid is a server that runs",
        (
            Edit(
                "tasks.postgres.on_node.base_backup:in_use",
                "    running = servers_in(data)\n",
                '    if os.path.exists(data + "/postmaster.pid"):\n'
                '        return "A server runs."\n'
                "    running = servers_in(data)\n",
            ),
        ),
        once(CONFIRMED, *REPLACED),
        ("it becomes healthy",),
    ),
    Mutant(
        "S5",
        "a standby does not say that it hears the old primary again",
        (Edit("tasks.postgres.on_node.pg_promote:promote", 'p.get("unheard")', "False"),),
        at_boundaries(
            26,
            50,
            ("stall", 20.0),
            OLD_HARBOR,
            event(3, "power_off", A),
            event(9, "power_on", A),
            failover(6),
        ),
        ("two writers",),
    ),
    Mutant(
        "S8",
        "a standby does not try the old primary's port",
        (
            Edit(
                "tasks.postgres.on_node.pg_promote:sign_of_life", "if opens(address, int(port)):", "if False:"
            ),
        ),
        _booting,
        ("two writers",),
    ),
    Mutant(
        "S19",
        "a primary that fenced itself starts at the first pass that allows it",
        (
            Edit("tasks.guard.on_node.guard_rules:when_settled", "free_s < START_AFTER_S", "False"),
            # What the standby says of its request would hold it here; not in the moment before it was told.
            UNTOLD,
        ),
        _back,
        ("two writers",),
    ),
    Mutant(
        "S24",
        "an acceptance that came while the NAS was away is never written there",
        (
            Edit(
                "tasks.guard.on_node.guard_share:must_share",
                "return own is not None and",
                "return False and",
            ),
        ),
        once(
            CONFIRMED,
            event(3, "power_off", A),
            event(4, "down", "nas"),
            failover(6),
            event(200, "crash", B),
            quiet_s=5.0,
        ),
        ("two writers", "it becomes healthy"),
    ),
)

MUTANTS = (*FLOWS, *FOUND, *STALLED, *NODES)
