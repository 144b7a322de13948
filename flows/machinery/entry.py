"""Where a killed operation goes on: the target is asked under our lock, then the rule decides."""

from flows.machinery.operation import Operation
from flows.rules.resume import Entry, Target, re_entry, target_of_hold
from flows.rules.table import Decision
from tasks import clock
from tasks.errors import HarborHaError
from tasks.postgres import ha_steps as postgres


def decide_entry(work: Operation) -> Decision[Entry]:
    """Ask the target what it is, now that nobody else can change it, and say where the operation goes on."""
    record, seen = work.held, work.seen
    target = seen.node(record.target)
    held, timeline = Target.AWAY, None
    if target.reachable:
        try:
            answer = work.run.on(postgres.hold, work.path(target), authority=work.authority()).data
            held = target_of_hold(answer["state"], answer["timeline"], record.from_timeline)
            timeline = answer["timeline"]
        except HarborHaError as error:
            work.sections.setdefault("Resumed", []).append(f"{record.target} could not be asked: {error}")
    decision = re_entry(record, seen.node(record.expected_primary), target, held, clock.now())
    work.note("Resumed", decision)
    if decision.kind in (Entry.OPEN_TRAFFIC, Entry.FINISH):
        work.record = work.held.at(work.held.phase, promoted_timeline=timeline or target.timeline)
    return decision
