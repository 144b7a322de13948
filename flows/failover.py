"""The primary is dead: make sure of it, fence it, promote the standby, let Harbor work again."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.machinery.confirm import confirm
from flows.machinery.ending import NOTHING_TO_DO, ends_named
from flows.machinery.entry import decide_entry
from flows.machinery.exact_end import weigh_exact_end
from flows.machinery.exchange import exchange, exchanged, follow, take_back
from flows.machinery.fence import fence
from flows.machinery.next_cores import is_down, made_ready, may_replace, next_cores
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish, say_accepted
from flows.machinery.service import stalled
from flows.machinery.sight import identity, last_primary, open_record
from flows.machinery.traffic import finish, open_traffic, put_back, unreachable_harbors
from flows.machinery.typed import require_typed
from flows.rules.admission import Admission, admit_failover
from flows.rules.fence import Rung, recorded_rung
from flows.rules.last_look import FENCE_LIMIT_S, LastLook, last_look
from flows.rules.promotion import MayPromote, may_fail_over
from flows.rules.restart import Restart, how_to_restart
from flows.rules.resume import Entry
from flows.rules.table import FACTS_LIMIT_S
from tasks import clock
from tasks.errors import HarborHaError, Refused
from tasks.operation.record import OperationKind, Phase
from tasks.operation.store import holder
from tasks.postgres import ha_steps as postgres

# From its beginning; to look at a machine that is off takes nearly two seconds of it.
_JUST_SEEN_S = 3.0
# A call that waited this long in a queue tells of another night; while its alert lasts there is a newer one.
ALERT_LIMIT = timedelta(minutes=10)

_CALM = (Admission.NOOP, Admission.PAUSED, Admission.IN_PROGRESS)


@flow(
    name="failover",
    flow_run_name="failover of {site} from {expected_primary}",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
)
@ends_named
def failover(
    site: str,
    expected_primary: str,
    reason: str = "",
    accept_data_loss: bool = False,
    attest_fenced: bool = False,
    dry_run: bool = False,
    alert_time: str = "",
    confirm_site: str = "",
) -> dict[str, Any]:
    """Promote the standby when the primary is really gone; do nothing when it is not.

    A second or late call is a no-op that says so. Killed at any moment, the next call goes on.

    Args:
        site: Name of the saved site.
        expected_primary: The node that the caller believes to be the primary; another one makes the call a no-op.
        reason: Why it was called; for the report.
        accept_data_loss: Promote although the standby may lack acknowledged writes; they are reported.
        attest_fenced: You attest that the old primary's machine is off and stays off until rejoin has run.
        dry_run: Look, decide, and change nothing.
        alert_time: When the alert was last told (ISO 8601); a call that waited for long starts nothing.
        confirm_site: The site's name once more, typed; only with accept_data_loss or attest_fenced.
    """
    run = Protocol.begin("failover", site, dry_run)
    if (accept_data_loss or attest_fenced) and not dry_run:
        require_typed(site, confirm_site, "It may cost acknowledged writes, on your word.")
    if _too_old(alert_time):
        headline_of_old = f"Nothing was done: the alert was told at {alert_time}, over {ALERT_LIMIT} ago."
        return publish(run, headline_of_old, state=NOTHING_TO_DO)
    with Operation.begin_with(run, expected_primary) as work:
        work.way_back = put_back
        calm, held_back = admit(work, expected_primary, reason, by_operator=accept_data_loss or attest_fenced)
        if calm:
            return publish(run, calm, work.sections, state=NOTHING_TO_DO)
        if work.record is not None:
            # What has come to promoting goes on, whichever node this call is about.
            expected_primary = work.record.expected_primary
        entry = point_of_entry(work)
        if entry is Entry.CLOSE:
            return end_early(work, f"Nothing was done: {work.held.target} is the primary and was before.")
        if entry is Entry.OBSERVE:
            with next_cores(work, but=expected_primary) if made_ready(work) else nullcontext():
                calm = confirm(work, expected_primary) or restart_first(work, expected_primary) or held_back
                if not calm:
                    approve(work, expected_primary, accept_data_loss=accept_data_loss)
                    if dry_run:
                        return publish(run, what_it_would(work, expected_primary), work.sections)
                    calm = replace_primary(
                        work, attest_fenced=attest_fenced, accept_data_loss=accept_data_loss
                    )
            if calm:
                return end_early(work, calm)
        elif entry is Entry.PROVE:
            return end_switchover(work)
        elif entry is not Entry.FINISH:
            open_traffic(work)
        finish(work)
        say_accepted()
        return publish(run, headline(work), work.sections)


def admit(work: Operation, expected_primary: str, reason: str, *, by_operator: bool) -> tuple[str, str]:
    """Compare the call with what is known; take the lock for it.

    Returns:
        why nothing is to be done, or nothing; and why nothing but a restart of the primary may be done, or nothing.

    Raises:
        Refused: the call makes no sense, or another's record cannot be read.
    """
    nodes, policy = work.seen.nodes, work.policy
    admission = admit_failover(
        nodes, expected_primary, policy, holder(), clock.now(), by_operator=by_operator
    )
    work.note("Admission", admission)
    if admission.kind is Admission.NOOP:
        say_accepted()
    cooling = admission.kind is Admission.COOLDOWN
    if admission.kind in _CALM or (cooling and not can_restart(work, expected_primary)):
        return f"Nothing was done: {admission.reasons[0]}", ""
    # Said after a restart that did not help: something was done then.
    held_back = f"{expected_primary} was not replaced: {admission.reasons[0]}" if cooling else ""
    if admission.kind is Admission.REFUSE:
        work.refuse("No failover.", admission)
    record = open_record(work.seen) if admission.kind is Admission.RESUME else None
    if work.run.dry_run:
        goes_on = record is not None and record.past_return
        return (f"Would go on: {admission.reasons[0]}" if goes_on else ""), held_back
    if record is not None:
        work.resume(record)
    else:
        target = choose_target(work, expected_primary)
        ready = not cooling and may_replace(work, expected_primary)
        if ready:
            work.never_staged = frozenset(unreachable_harbors(work))
        work.open(OperationKind.FAILOVER, expected_primary, target, {"reason": reason}, staged=ready)
    return "", held_back


def what_it_would(work: Operation, expected_primary: str) -> str:
    """Say what a call would do that is no rehearsal, now that nothing speaks against it."""
    target = target_of(work, expected_primary)
    again = can_restart(work, expected_primary)
    replaced = f"fence {expected_primary} and promote {target}" if target != expected_primary else ""
    if again and replaced:
        return f"Would start PostgreSQL on {expected_primary} again and, if that does not help, {replaced}."
    return f"Would {replaced or f'start PostgreSQL on {expected_primary} again'}."


def choose_target(work: Operation, expected_primary: str) -> str:
    """Choose the standby that has the most; with two nodes it is the other one, with one it is itself."""
    others = work.seen.others(expected_primary) or [work.seen.node(expected_primary)]
    return max(others, key=lambda node: (node.is_standby, node.position.lsn if node.position else 0)).name


def target_of(work: Operation, expected_primary: str) -> str:
    """Name the node that is to be promoted."""
    return work.held.target if work.record else choose_target(work, expected_primary)


def point_of_entry(work: Operation) -> Entry:
    """Say where to begin: from the start, or where a killed run of the same failover left off.

    Raises:
        Refused: two nodes run as primaries, or whether the target was promoted cannot be known.
    """
    if work.record is None or work.record.phase is Phase.STARTED:
        return Entry.OBSERVE
    decision = decide_entry(work)
    if decision.kind is Entry.REFUSE:
        work.refuse("The failover cannot go on.", decision)
    if decision.kind is Entry.OBSERVE:
        # A fence is true for the process that climbed it, and for a minute; what was seen then is no fact now.
        work.record = work.held.at(Phase.STARTED, fence=None, orchestrator=work.held.orchestrator)
    return decision.kind


def can_restart(work: Operation, expected_primary: str) -> bool:
    """Tell whether the primary's server is to be started again: that costs nothing, at any time."""
    return work.policy.restart_first and is_down(work, expected_primary)


def restart_first(work: Operation, expected_primary: str) -> str:
    """Start a primary whose machine lives and whose server died or hangs: nothing is lost, no new timeline.

    Returns:
        that it worked, or nothing.
    """
    primary = work.seen.node(expected_primary)
    begun = work.record is not None and work.held.phase is not Phase.STARTED
    if not can_restart(work, expected_primary) or begun or work.run.dry_run:
        return ""
    path = work.path(primary)
    budget = float(work.run.site.failover.restart_budget_s)
    work.confirm_intent()
    timeline = primary.timeline or (work.record.from_timeline if work.record else None) or 1
    way = how_to_restart(
        primary,
        work.seen.others(expected_primary),
        work.before.others(expected_primary) if work.before else (),
    )
    work.note("Restart", way)
    patience = {Restart.WAIT: budget, Restart.PATIENCE: budget / 2}.get(way.kind, 0.0)
    done, failed = work.run.try_each(
        postgres.restart_primary,
        [path],
        timeline=timeline,
        limit_s=budget,
        patience_s=patience,
        authority=work.authority(),
    )
    if failed:
        work.sections.setdefault("Restart", []).append(f"did not help: {failed[path]}")
        if primary.observed_at.age(clock.now()) > FACTS_LIMIT_S / 2:
            work.look_at(expected_primary)
        return ""
    return f"{expected_primary} was restarted and is the primary again: {done[path].detail}. No failover."


def approve(work: Operation, expected_primary: str, *, accept_data_loss: bool) -> None:
    """Weigh what a promotion would cost.

    Raises:
        Refused: with every reason, when the standby may not take over, or there is none.
    """
    if target_of(work, expected_primary) == expected_primary:
        if work.run.dry_run and can_restart(work, expected_primary):
            return
        raise Refused(
            f"{expected_primary} cannot be replaced: it is the site's only database node.",
            [
                f"PostgreSQL on {expected_primary} does not answer -> see to it there, or restore (docs/restore.md)"
            ],
        )
    stands_still = stalled(work, expected_primary)
    seen, now = work.seen, clock.now()
    record = work.record
    standby = seen.node(target_of(work, expected_primary))
    kept = [record.last_primary if record else None, last_primary(seen, expected_primary)]
    last = max((known for known in kept if known is not None), key=lambda known: known.at, default=None)
    decision = may_fail_over(
        standby,
        seen.node(expected_primary),
        last,
        (record.system_identifier if record else None) or identity(seen),
        work.policy,
        now,
        accept_data_loss=accept_data_loss,
        begun_at=record.started_at if record else None,
        stalled=stands_still,
    )
    work.note("The standby", decision)
    if decision.kind is MayPromote.REFUSE:
        work.refuse(f"{standby.name} must not take over.", decision)


def replace_primary(work: Operation, *, attest_fenced: bool, accept_data_loss: bool) -> str:
    """Fence, look again, promote, open; meanwhile every reachable Harbor makes ready for the new primary.

    Returns:
        nothing, or why the old primary is the primary again.

    Raises:
        Refused: nothing was promoted, and every Harbor is as it was.
    """
    if not work.held.staged:
        work.never_staged = frozenset(unreachable_harbors(work))
    work.advance(Phase.FENCING, staged=True)
    with next_cores(work):
        fence(work, attest_fenced=attest_fenced)
        calm = look_once_more(work, attest_fenced=attest_fenced, accept_data_loss=accept_data_loss)
        if calm:
            return calm
        work.advance(Phase.PROMOTING)
        promote(work)
        open_traffic(work)
    return ""


def look_once_more(work: Operation, *, attest_fenced: bool, accept_data_loss: bool) -> str:
    """See that the fence holds and the standby is one still, by facts from after the fence.

    Returns:
        nothing, or why the old primary is the primary again.

    Raises:
        Refused: the old primary is back, or the fence does not hold.
    """
    record = work.held
    if work.fence_age_s > FENCE_LIMIT_S:
        fence(work, attest_fenced=attest_fenced)
        record = work.held
    rung = recorded_rung(record)
    # Every rung but the word of an operator is chosen by a look that began when the fence held.
    seen_at = work.witnesses.observed_at if work.witnesses is not None else None
    just_seen = seen_at is not None and seen_at.age(clock.now()) < _JUST_SEEN_S
    # A look from before the lock, which the second one may be, has not seen what another run did until then.
    before_lock = seen_at is not None and work.locked_at is not None and seen_at.monotonic < work.locked_at
    if rung is Rung.ATTESTED or before_lock or not just_seen:
        work.look_at(record.expected_primary)
    assert work.witnesses is not None
    calm = weigh_exact_end(work, accept_data_loss=accept_data_loss)
    if calm:
        return calm
    seen = work.seen
    decision = last_look(
        rung,
        seen.node(record.expected_primary),
        seen.node(record.target),
        work.witnesses,
        clock.now(),
        fence_age_s=work.fence_age_s,
    )
    work.note("Last look", decision)
    if decision.kind is LastLook.FENCE_AGAIN:
        fence(work, attest_fenced=False)
        return look_once_more(work, attest_fenced=False, accept_data_loss=accept_data_loss)
    if decision.kind is LastLook.ABORT:
        work.refuse("The promotion was held back.", decision)
    return ""


def promote(work: Operation) -> None:
    """Promote the standby, which is written down as the intent, and prove it by a write."""
    record = work.held
    rung = recorded_rung(record)
    outcome = work.run.on(
        postgres.promote,
        record.target,
        from_timeline=record.from_timeline or 1,
        operation=record.op_id,
        # Seen stopped and held on its own machine it cannot be heard; what the receiver tells is from before.
        unheard="" if rung is Rung.STOPPED else record.expected_primary,
        authority=work.authority(),
    )
    # Not written by itself: the next record, written before Harbor is repointed, says it too.
    work.record = work.held.at(Phase.PROMOTED, promoted_timeline=outcome.data["timeline"])


def end_switchover(work: Operation) -> dict[str, Any]:
    """Bring a switchover to its end that was killed when it had stopped the primary: nothing is to be fenced.

    Raises:
        HarborHaError: the standby lacks something; the old primary was taken back.
    """
    work.way_back = take_back
    exchange(work)
    open_traffic(work, follow=follow)
    finish(work, follow=follow)
    say_accepted()
    return publish(work.run, exchanged(work), work.sections)


def end_early(work: Operation, headline: str) -> dict[str, Any]:
    """Put back what a killed run left, give the lock back, and report that no failover was due."""
    left = work.abort()
    sections = {**({"What stays changed": left} if left else {}), **work.sections}
    return publish(work.run, headline, sections, state=NOTHING_TO_DO)


def headline(work: Operation) -> str:
    """Say in one sentence how it ended."""
    record = work.held
    rung = record.fence.rung if record.fence else "unknown"
    clients = f" {work.sections['Clients'][0]}" if "Clients" in work.sections else ""
    return (
        f"{record.target} is the primary on timeline {record.promoted_timeline}; "
        f"{record.expected_primary} was fenced ({rung}). Run rejoin for it.{clients}"
    )


def _too_old(alert_time: str) -> bool:
    if not alert_time:
        return False
    try:
        began = datetime.fromisoformat(alert_time)
    except ValueError as error:
        raise Refused(
            "No failover.", [f"alert_time is {alert_time!r} -> give it as ISO 8601, 2026-01-31T03:00:00Z"]
        ) from error
    return datetime.now(UTC) - began.astimezone(UTC) > ALERT_LIMIT


__all__ = ["HarborHaError", "failover"]
