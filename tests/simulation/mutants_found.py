"""Cures in flows and rules that drawn histories asked for, or looking for the kind of one: taken out."""

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.history import Plan, Setting
from tests.simulation.mutant import (
    CONFIRMED,
    KILL,
    NO_COMMAND,
    NO_RESTART,
    Mutant,
    at_boundaries,
    call,
    event,
    failover,
    once,
)
from tests.simulation.mutation import Edit
from tests.simulation.schedules import A, B, plan


def _late_jobservice() -> Iterator[Plan]:
    """A is switched off by the fence, boots with the address of B, and is the primary again; its jobservice is late."""
    hangs = plan(1, CONFIRMED, [event(3, "disk", A, "disk", "hang"), failover(6)], quiet_s=200.0)
    for number in range(88, 95):
        yield replace(hangs, fates=((50, "kill", 0.0), (number, "late", 200.0)))


def _stood_still() -> Iterator[Plan]:
    """B stands still for the look after which the failover ends early, and has begun a next core before."""
    setting = Setting(nodes=3, fence_command=False, self_fence_s=20)
    for tenth in range(20, 60):
        freeze = event(30 + tenth / 10, "freeze", B, 2.0)
        yield plan(1, setting, [event(3, "isolate", A), failover(30), freeze], quiet_s=120.0)


def _told_by_nobody() -> Iterator[Plan]:
    """A rejoin is killed before its report, and a false alarm's failover takes over from it."""
    events = [
        event(2, "lag", B),
        event(2.5, "burst", A),
        event(4, "power_off", A),
        failover(10, accept_data_loss=True),
        event(40, "no_lag", B),
        event(60, "power_on", A),
        call(100, "rejoin", node=A),
        call(900, "failover", "o2", expected_primary=B),
    ]
    base = plan(1, CONFIRMED, events, quiet_s=120.0)
    for number in range(132, 156, 4):
        yield replace(base, fates=((number, *KILL),))


FOUND: tuple[Mutant, ...] = (
    Mutant(
        "S32",
        "the new primary's own Harbor stays drained, as the operation before had left it",
        (Edit("flows.machinery.traffic:open_traffic", "        serve_target(work)\n", "        pass\n"),),
        lambda: iter(
            [
                plan(
                    1,
                    CONFIRMED,
                    [
                        event(3, "power_off", A),
                        failover(10),
                        event(60, "power_on", A),
                        call(100, "rejoin", node=A),
                        event(106, "cut", "o1", "balancer"),
                        event(1499, "check"),
                        event(1500, "power_off", B),
                        call(1510, "failover", "o2", expected_primary=B),
                    ],
                    quiet_s=30.0,
                    serves=True,
                )
            ]
        ),
        ("it serves again",),
    ),
    Mutant(
        "S31",
        "what a rejoin found is forgotten with its record",
        (
            Edit("tasks.postgres.on_node.pg_lost_commits:lost", "earlier(p, result)", "[]"),
            Edit("flows.rules.site_view:_operations", "*untold_losses(nodes)", ""),
        ),
        _told_by_nobody,
        ("losses are told",),
    ),
    Mutant(
        "S1",
        "a term that was claimed and never used ends the operation that goes on",
        (
            Edit(
                "flows.machinery.operation:Operation.resume",
                "term = highest_term(self.seen.nodes) + 1",
                "term = record.term",
            ),
        ),
        at_boundaries(
            18, 24, KILL, CONFIRMED, call(3, "switchover", to=B), event(10, "isolate", B), failover(20)
        ),
        ("it becomes healthy",),
    ),
    Mutant(
        "S6",
        "who has lost its lock puts back what is another's",
        (
            Edit(
                "flows.machinery.operation:Operation.abort",
                "self.run.on(operation.advance, *self._locked_paths(), record=self.held, required=[])",
                "pass",
            ),
            # Who puts Harbor back asks once more, unless that was a moment ago.
            Edit(
                "flows.machinery.operation:Operation.in_time",
                "self.run.on(operation.advance, *self._locked_paths(), record=self.held, required=[])",
                "pass",
            ),
        ),
        at_boundaries(
            16, 45, ("stall", 100.0), NO_RESTART, event(3, "crash", A), failover(5), failover(75, "o2")
        ),
        ("who was replaced stops",),
    ),
    Mutant(
        "S7",
        "a lock is over by the wall clock",
        (
            Edit(
                "tasks.operation.record:Lock.alive",
                "if self.renewed is None or boot is None or uptime is None:",
                "if True:",
            ),
        ),
        at_boundaries(
            18, 22, KILL, CONFIRMED, event(2, "clock", B, 7200.0), call(3, "switchover", "o2", to=B)
        ),
        ("it becomes healthy",),
    ),
    Mutant(
        "S9",
        "a rejoin does not say what it has stopped",
        (Edit("flows.rejoin:stop", "    work.stays.append(", "    str("),),
        once(NO_COMMAND, event(3, "hang", B), call(5, "rejoin", node=B), event(7, "power_off", A)),
        ("a report is true",),
    ),
    Mutant(
        "S10",
        "a switchover that begins anew writes with the term that it read before",
        (
            Edit(
                "flows.switchover:admit",
                "        work.resume(record)\n",
                "        work.resume(record)\n"
                "        work.record = work.held.at(work.held.phase, term=record.term)\n",
            ),
        ),
        at_boundaries(
            18, 24, KILL, CONFIRMED, call(3, "switchover", to=B), event(10, "isolate", B), failover(20)
        ),
        ("it becomes healthy",),
    ),
    Mutant(
        "S11",
        "a Harbor that did not follow at once stays out of the load balancer",
        (Edit("flows.machinery.traffic:finish", "    serve_left_behind(work)\n", ""),),
        at_boundaries(
            62,
            84,
            KILL,
            CONFIRMED,
            call(3, "switchover", to=B),
            event(6.2, "hang", B),
            call(20, "switchover", to=B),
            event(60, "unhang", B),
        ),
        ("it becomes healthy",),
    ),
    Mutant(
        "S23",
        "a second look begins with the first one, and counts",
        (
            Edit("flows.machinery.operation:Operation.begin_with", "budget_s), PACE_S)", "budget_s), 0.0)"),
            Edit("flows.rules.silence:_silent", ">= apart_s", ">= 0.0"),
        ),
        once(CONFIRMED, event(3, "power_off", A), failover(20)),
        ("silence is seen twice",),
    ),
    Mutant(
        "S13",
        "a jobservice that does not come back when all is put back is told by nobody",
        (
            Edit("flows.machinery.traffic:unstage", "*jobs_left_behind(", "*jobs_left_behind({} and "),
            Edit("flows.rules.site_view:_wrong_database", "elif node.harbor.jobs_behind:", "elif False:"),
        ),
        _late_jobservice,
        ("check tells",),
    ),
    Mutant(
        "S27",
        "Harbor is made ready for another primary, and it is not written that it was",
        (
            Edit("flows.failover:admit", "staged=ready", "staged=False"),
            Edit("flows.machinery.next_cores:made_ready", "work.held.staged and ", ""),
        ),
        once(CONFIRMED, event(3, "isolate", A), failover(5), event(7, "mend", A)),
        ("one core",),
    ),
    Mutant(
        "S28",
        "a next core stays where the last look did not reach its node",
        (Edit("flows.machinery.traffic:unstage", "sorted(work.readied)", "()"),),
        _stood_still,
        ("one core",),
    ),
    Mutant(
        "S16",
        "an operation that goes on keeps its number while none is higher",
        (
            Edit(
                "flows.machinery.operation:Operation.resume",
                "term = highest_term(self.seen.nodes) + 1",
                "highest = highest_term(self.seen.nodes)\n"
                "    term = record.term if record.term and record.term == highest else highest + 1",
            ),
        ),
        at_boundaries(
            14,
            20,
            KILL,
            NO_COMMAND,
            event(3, "down", "nas"),
            event(3, "power_off", A),
            failover(6),
            event(60, "power_off", B),
            event(65, "power_on", A),
            failover(120, "o2"),
        ),
        ("it becomes healthy",),
    ),
)
