"""Cures in flows and rules that the audit asked for: taken out."""

from dataclasses import replace

from tests.simulation.mutant import (
    CONFIRMED,
    KILL,
    NO_COMMAND,
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
from tests.simulation.mutation import Edit, Without
from tests.simulation.schedules import A, B

# A is switched off and B promoted; A's WAL is not kept any more, so that rejoin has to copy.
REPLACED = (
    event(3, "power_off", A),
    failover(6),
    event(60, "slot_lost", A),
    event(70, "power_on", A),
    call(100, "rejoin", node=A),
)

# B has just been promoted; its SQL stalls for a moment, and A does not see it.
UNSEEN = (event(6.2, "hang", B), event(6.2, "cut", A, B), event(60, "unhang", B))


FLOWS: tuple[Mutant, ...] = (
    Mutant(
        "1",
        "not to be reached is to be unpromoted",
        (Without("flows.rules.resume", "RESUME_RULES", ("promoted or not", "target away")),),
        at_boundaries(
            56,
            70,
            KILL,
            CONFIRMED,
            call(3, "switchover", to=B),
            *UNSEEN,
            call(20, "switchover", to=B),
        ),
        ("only forward", "two writers"),
    ),
    Mutant(
        "1",
        "what has come to promoting is aborted like anything else",
        (
            Edit("flows.machinery.operation:Operation.abort", "phase not in _ABORTABLE", 'phase == "no"'),
            Edit(
                "tasks.operation.record:OperationRecord.past_return",
                "return self.phase in PAST_RETURN and self.kind is not OperationKind.REJOIN",
                "return False",
            ),
        ),
        at_boundaries(
            34,
            50,
            KILL,
            CONFIRMED,
            event(3, "power_off", A),
            failover(6),
            event(33, "hang", B),
            failover(60),
            event(100, "unhang", B),
        ),
        ("only forward",),
    ),
    Mutant(
        "2",
        "a fence is believed whoever climbed it, and for ever",
        (
            Edit(
                "tasks.operation.record:OperationRecord.at",
                "    return replace(",
                '    changes = {k: v for k, v in changes.items() if k != "fence" or v}\n    return replace(',
            ),
            Edit(
                "flows.machinery.fence:fence",
                "    climb = Climb(work)\n",
                "    work.fenced_at = time.monotonic()\n"
                "    if work.held.fence:\n"
                "        return\n"
                "    climb = Climb(work)\n",
            ),
        ),
        at_boundaries(
            24,
            40,
            KILL,
            CONFIRMED,
            event(3, "power_off", A),
            failover(6),
            event(40, "power_on", A),
            event(395, "check"),
            event(400, "isolate", A),
            failover(410),
            quiet_s=200.0,
        ),
        ("two writers",),
    ),
    Mutant(
        "3b",
        "the self-fence is the site file's, whatever the guard goes by",
        (
            Edit(
                "flows.machinery.fence:Climb.next",
                "last.self_fence_s if last is not None else None",
                "work.run.site.failover.self_fence_s",
            ),
        ),
        once(replace(SELF_FENCE, guard_s=1e5), event(3, "isolate", A), failover(20), quiet_s=200.0),
        ("two writers",),
    ),
    Mutant(
        "8b",
        "the old primary's exact end is not weighed",
        (
            Edit(
                "flows.machinery.exact_end:weigh_exact_end",
                "    record, seen = work.held, work.seen\n",
                '    return ""\n',
            ),
        ),
        at_boundaries(
            12,
            45,
            ("stall", 5.0),
            NO_RESTART,
            event(3, "lag", B),
            event(4, "check"),
            event(5, "burst", A),
            event(6, "cut", A, B),
            event(7, "hang", A),
            failover(25),
            event(28, "unhang", A),
            quiet_s=200.0,
        ),
        ("who has more goes on",),
    ),
    Mutant(
        "8c",
        "after a promotion commits wait for nobody, with `required` too",
        (
            Edit(
                "tasks.postgres.promote:sync_names_after",
                'if site.postgres.durability != "required":',
                "if True:",
            ),
        ),
        once(replace(CONFIRMED, durability="required"), event(3, "power_off", A), failover(6)),
        ("required is kept",),
    ),
    Mutant(
        "9",
        "a node that cannot write keeps the lock from all",
        (Edit("tasks.operation.store:_act", "raise Unwritable(", "raise NotMirrored("),),
        once(CONFIRMED, event(3, "disk", A, "root", "full"), event(4, "hang", A), failover(20), serves=True),
        ("it serves again",),
    ),
    Mutant(
        "9",
        "a fence over SSH that fails ends the failover",
        (
            Edit(
                "flows.machinery.fence:Climb._over_ssh",
                "if isinstance(error, LockLost) or (isinstance(error, Superseded) and self._node in work.locked):",
                "if True:",
            ),
        ),
        once(CONFIRMED, event(3, "disk", A, "disk", "hang"), failover(20), serves=True),
        ("it serves again",),
    ),
    Mutant(
        "9",
        "a data disk that hangs is a primary that lives, as long as it is heard",
        (Edit("flows.machinery.service:stalled", "if not _mute(work.seen.node(primary)) or", "if True or"),),
        once(CONFIRMED, event(3, "disk", A, "disk", "hang"), failover(20), serves=True),
        ("it serves again",),
    ),
    Mutant(
        "10b",
        "a machine that completes handshakes is one that lives",
        (
            Edit(
                "flows.machinery.service:unresponsive",
                "    witnesses = work.witnesses\n",
                "    return False\n",
            ),
        ),
        once(CONFIRMED, event(3, "freeze", A, 5000.0), failover(20), serves=True),
        ("it serves again",),
    ),
    Mutant(
        "12",
        "a server in crash recovery is stopped",
        (
            Without("flows.rules.restart", "RESTART_RULES", ("in recovery", "slow, and alive")),
            Edit(
                "tasks.postgres.on_node.pg_compensate:recovering",
                "    status = postmaster_status(p)\n",
                "    return False\n",
            ),
        ),
        once(
            CONFIRMED,
            event(2, "slow_start", A, 12.0),
            event(3, "power_off", A),
            event(4, "power_on", A),
            failover(27),
        ),
        ("a recovery is not killed",),
    ),
    Mutant(
        "13",
        "what was drained and staged is left when nothing is promoted",
        (Edit("flows.machinery.traffic:put_back", "record, left = work.held, []", "return []"),),
        once(WITNESSES, event(3, "isolate", A), failover(20), event(23.2, "hang", B), quiet_s=200.0),
        ("a report is true", "it becomes healthy"),
    ),
    Mutant(
        "14",
        "what the attempt before has erased is looked at: WAL that is gone leads to no copy",
        (
            Edit(
                "flows.rejoin:classify",
                "cloning=begun and record is not None and record.phase is Phase.CLONING",
                "cloning=False",
            ),
            Without("flows.rules.rejoin", "REJOIN_RULES", ("clone begun", "needed WAL is gone")),
            Edit("flows.rejoin:follow", "if way is Rejoin.CLONE:", "if True:"),
        ),
        once(NO_COMMAND, event(3, "power_off", B), event(5, "slot_lost", B), event(8, "power_on", B)),
        ("it becomes healthy",),
    ),
    Mutant(
        "14c",
        "what follows a promotion depends on Harbor's answer",
        (
            Edit(
                "flows.machinery.traffic:see_write",
                '    if said.get("answer") != OK:\n',
                '    if said.get("answer") != OK:\n'
                "        from tasks.errors import Refused\n"
                '        raise Refused("No write.", [])\n',
            ),
        ),
        once(CONFIRMED, event(3, "power_off", A), event(4, "harbor_read_only"), failover(6), quiet_s=200.0),
        ("what follows a promotion",),
    ),
)
