"""Cures against a run that stands still, or is killed, between what it knows and what it does."""

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.history import Plan, Setting
from tests.simulation.mutant import (
    CONFIRMED,
    KILL,
    NO_RESTART,
    SELF_FENCE,
    WITNESSES,
    Mutant,
    at_boundaries,
    call,
    event,
    failover,
    once,
)
from tests.simulation.mutation import Edit
from tests.simulation.schedules import A, B, plan


def _older_copy() -> Iterator[Plan]:
    """The old primary keeps the record of before its power cut; the run is killed when it has drained it."""
    setting = Setting(nodes=3, fence_command=False, self_fence_s=20)
    events = [
        event(5, "disk", A, "disk", "hang"),
        failover(156, accept_data_loss=True),
        event(180, "power_off", A),
    ]
    base = plan(1, setting, events, quiet_s=120.0)
    for number in range(56, 62):
        yield replace(base, fates=((27, "stall", 45.0), (number, "kill", 45.0)))


def _begun_late() -> Iterator[Plan]:
    """The run stands still where it has promoted, and another one goes on, whose own repoint is late on its way."""
    events = [event(3, "power_off", A), failover(20), failover(180)]
    base = plan(2, NO_RESTART, events, quiet_s=200.0, any_order=True)
    for number in range(38, 48):
        yield replace(base, fates=((27, "stall", 200.0), (number, "late", 1000.0)))


UNTOLD = Edit(
    "tasks.guard.on_node.guard_look:ask", "_ROLES[lines[1]]", 'STANDBY if lines[1][0] == "t" else PRIMARY'
)


THREE_WITNESSES = replace(WITNESSES, nodes=3)
# The run ends before the promotion that it asked for, and nobody calls again; A is back when that has come true.
OUTLASTED = (
    event(3, "isolate", A),
    event(5, "slow_promotion", B, 100.0),
    failover(30),
)

STALLED: tuple[Mutant, ...] = (
    Mutant(
        "S37",
        "an old primary that cannot ask the standby finds nowhere that it was told to promote itself",
        (
            Edit(
                "tasks.postgres.on_node.pg_promote:note_request",
                'keep_shared(p, "promotion", text)',
                "None",
            ),
        ),
        once(
            CONFIRMED,
            event(1, "slow_promotion", B, 100.0),
            event(3, "power_off", A),
            failover(8),
            event(47, "isolate", B),
            event(49, "power_on", A),
            quiet_s=300.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "S35",
        "a standby that was told to promote itself, and is cut off since, keeps the old primary from nothing",
        (Edit("tasks.guard.on_node.guard_note:held", "PROMOTION_HELD if", "START_HELD if"),),
        once(
            CONFIRMED,
            event(1, "slow_promotion", B, 100.0),
            event(1, "down", "nas"),
            event(3, "power_off", A),
            failover(8),
            event(65, "power_on", A),
            event(90, "isolate", B),
            quiet_s=300.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "S33",
        "a promotion that outlasts its run is accepted by nobody",
        (Edit("tasks.guard.on_node.guard_promoted:is_open", "if note is None or", "if True or"),),
        once(
            THREE_WITNESSES,
            *OUTLASTED,
            event(25, "down", "nas"),
            event(60, "up", "nas"),
            event(150, "power_off", B),
            event(160, "power_on", B),
            event(200, "mend", A),
            quiet_s=300.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "S34",
        "a primary that an operation has promoted outranks no other one, while the NAS is away",
        (Edit("tasks.guard.on_node.guard_rules:must_yield", "peer.state == PROMOTED or ", ""),),
        once(
            WITNESSES,
            *OUTLASTED,
            event(25, "down", "nas"),
            event(200, "mend", A),
            quiet_s=300.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "S30",
        "a standby that was told to promote itself consents to the old primary's start",
        (UNTOLD,),
        once(
            CONFIRMED,
            event(1, "slow_promotion", B, 40.0),
            event(3, "power_off", A),
            failover(8),
            event(23, "power_on", A),
            quiet_s=200.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "S29",
        "a next core is begun minutes late, by a run that has been replaced",
        (Edit("flows.machinery.next_cores:next_cores", '"by": work.in_time()', '"by": None'),),
        _begun_late,
        ("who was replaced stops",),
    ),
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
                "flows.machinery.operation:Operation._still_drained",
                "for node in self.held.drained",
                "for node in ()",
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
    Mutant(
        "S25",
        "a failover that finds a switchover half done opens traffic to a standby",
        (Edit("flows.failover:end_switchover", "    exchange(work)\n", ""),),
        at_boundaries(
            50,
            60,
            KILL,
            CONFIRMED,
            call(3, "switchover", to=B),
            failover(20),
        ),
        ("only a primary is opened",),
    ),
    Mutant(
        "S26",
        "of two copies of one phase the first is the newest, which does not know whom the run has drained",
        (Edit("tasks.operation.record:OperationRecord.progress", "self.revision, ", "0, "),),
        _older_copy,
        ("it becomes healthy",),
    ),
)
