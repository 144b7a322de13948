"""When the watcher calls for a failover, and when it had better not."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from flows.rules.policy import Policy
from flows.rules.table import Decision
from flows.rules.watch import CALL_EVERY_S, Memory, Order, Watch, decide, follow, stood_still
from tasks.clock import Moment
from tasks.observation.beats import Beat
from tasks.operation.record import Lock, OperationKind, OperationRecord, Phase
from tasks.postgres.lsn import Lsn

T = Moment(1000.0, 1_700_000_000.0)
PATIENCE = 3.0
RECORD = OperationRecord("op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, T.wall - 90, "dead:9")


def later(seconds: float) -> Moment:
    """A moment after T."""
    return Moment(T.monotonic + seconds, T.wall + seconds)


def up(at: Moment, node: str = "node-a", **changes: Any) -> Beat:
    """A primary's line of this moment."""
    base = Beat(
        node,
        at.monotonic,
        up_s=500.0,
        boot="boot",
        answered_at=at.monotonic - 0.1,
        open_at=at.monotonic - 0.1,
        in_recovery=False,
        timeline=2,
        lsn=Lsn(0x5000000),
    )
    return replace(base, **changes)


def down(at: Moment, node: str = "node-b", **changes: Any) -> Beat:
    """A standby's line of this moment; what it heard is old unless given."""
    heard = {"receiver": "streaming", "heard_at": T.monotonic - 0.3}
    return up(at, node, in_recovery=True, **{**heard, **changes})


def silent(since: Moment = T) -> Beat:
    """The last line of a primary whose machine is gone."""
    return up(since)


def hung(at: Moment, since: Moment = T, **changes: Any) -> Beat:
    """A primary whose machine speaks and whose server does not answer."""
    good = since.monotonic
    return up(at, **{"answered_at": good, "open_at": good, **changes})


def known_at_t() -> Memory:
    """What a watcher knows that has seen all well for a minute."""
    return replace(follow(Memory(), [up(T), down(T)], T), void_at=T.monotonic - 60)


def seen(
    now: Moment, *beats: Beat, memory: Memory | None = None, policy: Policy | None = None
) -> tuple[Decision[Watch], Order | None]:
    """What a watcher that saw the primary well at T makes of these lines."""
    before = memory or known_at_t()
    known = {beat.node: beat for beat in beats}
    return decide(follow(before, beats, now), known, policy or Policy(), now, PATIENCE)


def test_a_sound_pair_is_left_alone() -> None:
    now = later(60)
    decision, order = seen(now, up(now), down(now))
    assert (decision.kind, order) == (Watch.CALM, None)


@pytest.mark.parametrize(
    ("after_s", "kind"), [(1.5, Watch.CALM), (2.0, Watch.SUSPECT), (2.8, Watch.SUSPECT), (3.1, Watch.CALL)]
)
def test_a_machine_without_power_is_called_for_after_three_seconds(after_s: float, kind: Watch) -> None:
    now = later(after_s)
    decision, order = seen(now, silent(), down(now))
    assert decision.kind is kind
    assert (order is not None) == (kind is Watch.CALL)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ended": True},
        {"answered_at": later(3.9).monotonic},  # whoever is in is answered, and nobody else gets in
        {"open_at": later(3.9).monotonic},  # the door opens, and no answer comes
        {"answered_at": later(3.9).monotonic, "open_at": later(3.9).monotonic, "in_recovery": True},
    ],
)
def test_a_server_that_is_gone_or_hangs_on_a_living_machine_is_called_for(changes: dict[str, Any]) -> None:
    now = later(4)
    decision, order = seen(now, hung(now, **changes), down(now))
    assert decision.kind is Watch.CALL
    assert order is not None
    assert (order.expected_primary, order.outage) == ("node-a", "node-a-2")
    assert order.reason.startswith("watcher: ")


def test_what_stood_still_for_two_seconds_is_no_trouble() -> None:
    for tenth in range(27):
        now = later(tenth / 10)
        assert seen(now, hung(now), down(now))[1] is None
    now = later(2.7)
    assert seen(now, up(now), down(now))[0].kind is Watch.CALM


def test_a_primary_that_its_standby_hears_is_only_out_of_our_sight() -> None:
    for after in (3.5, 5.0, 60.0):
        now = later(after)
        assert (
            seen(now, silent(), down(now, heard_at=now.monotonic - 1.0))[0].kind is Watch.HEARD
        )  # it is busy
        assert seen(now, silent(), down(now, heard_at=T.monotonic + after))[0].kind is Watch.HEARD
    idle = later(9)
    assert seen(idle, silent(), down(idle, heard_at=later(4.5).monotonic))[0].kind is Watch.HEARD


def test_a_machine_that_stands_still_for_two_seconds_under_load_is_no_trouble() -> None:
    # Its last line was written a moment before, with an answer of half a second: three seconds were over after two.
    last, still = later(10), up(later(10), answered_at=later(9.2).monotonic, open_at=later(9.2).monotonic)
    for after in (1.0, 1.9, 2.3, 2.6, 2.9):
        now = later(10 + after)
        heard = down(now, heard_at=last.monotonic)
        assert seen(now, still, heard, memory=known_at_t())[1] is None, after
    gone = later(13.1)
    assert seen(gone, still, down(gone, heard_at=last.monotonic))[0].kind is Watch.CALL


def test_what_a_standby_hears_says_nothing_for_a_server_that_lets_nobody_in() -> None:
    now = later(5)
    assert seen(now, hung(now), down(now, heard_at=now.monotonic))[0].kind is Watch.CALL


def test_who_hears_nobody_at_all_does_not_call() -> None:
    now = later(30)
    assert seen(now, silent(), down(T))[0].kind is Watch.BLIND


def test_what_was_not_seen_while_no_node_was_heard_is_no_trouble_of_the_primary() -> None:
    # The orchestrator's own network was away. The standby was heard again a second before the primary.
    known = follow(known_at_t(), [silent(), down(T)], later(20))
    back = later(20.5)
    assert seen(back, silent(), down(back), memory=known)[0].kind is Watch.VOID
    gone = later(24)
    assert seen(gone, silent(), down(gone), memory=known)[0].kind is Watch.CALL


def test_a_beacon_that_has_just_begun_says_nothing_against_its_server() -> None:
    now = later(10)
    nothing_yet = {"answered_at": None, "open_at": None, "in_recovery": None, "timeline": None, "lsn": None}
    new = up(now, **nothing_yet, session_at=now.monotonic - 0.2)
    assert seen(now, new, down(now, heard_at=now.monotonic - 0.5))[0].kind is Watch.HEARD
    assert seen(now, new, down(now))[0].kind is Watch.CALL
    old = replace(new, session_at=now.monotonic - 4)
    assert seen(now, old, down(now, heard_at=now.monotonic - 0.5))[0].kind is Watch.CALL


def test_a_primary_that_says_itself_that_it_is_a_standby_is_none_beside_the_one_that_is() -> None:
    # The site was set up anew: its timeline began at 1 again, and a failover was called for each minute.
    now = later(10)
    beats = [up(now, in_recovery=True, timeline=1), up(now, "node-b", timeline=1)]
    decision, order = seen(now, *beats)
    assert (decision.kind, order) == (Watch.CALM, None)
    assert "node-b" in decision.reasons[0]
    # A note that was left of the old set-up does not bring it back at each second look.
    left = {"accepted": {"primary": "node-a", "timeline": 2}}
    known = follow(known_at_t(), beats, now)
    assert follow(known, [beats[0], replace(beats[1], notes=left)], now).primary == "node-b"
    alone = [up(now, in_recovery=True, timeline=1), down(now)]
    assert seen(now, *alone)[0].kind is Watch.CALL


def test_what_was_seen_before_this_process_stood_still_is_void() -> None:
    stalled = known_at_t().void(later(20))
    for after, kind in ((20.5, Watch.VOID), (22.9, Watch.VOID), (23.1, Watch.CALL)):
        now = later(after)
        assert seen(now, silent(), down(now), memory=stalled)[0].kind is kind
    now = later(21)
    assert seen(now, up(now), down(now), memory=stalled)[0].kind is Watch.CALM


@pytest.mark.parametrize(
    ("now", "void"),
    [
        (Moment(1001.0, T.wall + 1.0), False),
        (Moment(1002.4, T.wall + 2.4), False),
        (Moment(1002.6, T.wall + 2.6), True),  # stopped, or starved
        (Moment(1001.0, T.wall + 31.0), True),  # the machine slept, or its clock was set
        (Moment(1001.0, T.wall - 29.0), True),
    ],
)
def test_a_loop_knows_when_it_stood_still(now: Moment, void: bool) -> None:
    assert bool(stood_still(T, now, 1.0)) is void


def test_it_is_called_again_each_minute_while_the_trouble_lasts() -> None:
    known = known_at_t().called(later(3), taken=True)
    kinds = {
        after: seen(later(after), silent(), down(later(after)), memory=known)[0].kind for after in (4, 62, 64)
    }
    assert kinds == {4: Watch.CALLED, 62: Watch.CALLED, 64: Watch.CALL}
    assert CALL_EVERY_S == 60


def test_a_call_that_nobody_took_is_made_again_soon() -> None:
    known = known_at_t().called(later(3), taken=False)
    assert seen(later(7), silent(), down(later(7)), memory=known)[0].kind is Watch.CALLED
    assert seen(later(9), silent(), down(later(9)), memory=known)[0].kind is Watch.CALL


@pytest.mark.parametrize("where", ["node-a", "node-b", "NAS"])
def test_a_pause_holds_it_back_though_the_node_that_told_of_it_is_gone(where: str) -> None:
    now, note = later(60), {"reason": "kernel", "since": T.wall, "by": "ann"}
    beats = [silent(), down(now)]
    if where == "NAS":
        beats[1] = replace(beats[1], notes={"shared_paused": note})
    else:
        beats = [replace(beat, notes={"paused": note}) if beat.node == where else beat for beat in beats]
    decision, order = seen(now, *beats)
    assert (decision.kind, order) == (Watch.HELD, None)
    assert "kernel" in decision.reasons[0]
    damaged = replace(down(now), notes={"paused": {"damaged": True}})
    assert seen(now, silent(), damaged)[0].kind is Watch.HELD


def test_a_pause_that_was_ended_while_a_node_was_off_is_over() -> None:
    now, note = later(60), {"reason": "kernel", "since": T.wall, "by": "ann"}
    off = replace(silent(), notes={"paused": note, "shared_paused": note}, shared_at=T.monotonic)
    told = down(now, notes={"shared_paused": None}, shared_at=now.monotonic - 9)
    assert seen(now, off, told)[0].kind is Watch.CALL
    # The NAS was read before the pause was told of.
    early = replace(told, shared_at=T.monotonic - 1)
    assert seen(now, off, early)[0].kind is Watch.HELD
    # Who is heard holds it, whatever the NAS says.
    assert (
        seen(now, silent(), replace(told, notes={"paused": note, "shared_paused": None}))[0].kind
        is Watch.HELD
    )


def test_who_works_on_the_site_holds_it_back_until_the_lock_is_over() -> None:
    now = later(60)
    lock = Lock("op-2", "other:7", now.wall - 5, now.wall + 30)
    assert seen(now, silent(), down(now, notes={"lock": asdict(lock)}))[0].kind is Watch.HELD
    over = replace(lock, expires_at=now.wall - 1)
    assert seen(now, silent(), down(now, notes={"lock": asdict(over)}))[0].kind is Watch.CALL
    # The lock on a machine that is silent may be over as well; nobody could say so.
    assert seen(now, replace(silent(), notes={"lock": asdict(lock)}), down(now))[0].kind is Watch.CALL


def test_the_cooldown_holds_it_back_and_no_longer() -> None:
    done = RECORD.at(Phase.DONE)
    notes = {"operation": {**asdict(done), "kind": "failover", "phase": "done"}}
    now = later(60)
    assert seen(now, silent(), down(now, notes=notes), policy=Policy(cooldown_s=600))[0].kind is Watch.HELD
    assert seen(now, silent(), down(now, notes=notes), policy=Policy(cooldown_s=100))[0].kind is Watch.CALL
    # A machine that speaks can have its server restarted, which costs nothing.
    lives = [hung(now, notes=notes), down(now, notes=notes)]
    assert seen(now, *lives, policy=Policy(cooldown_s=600))[0].kind is Watch.CALL


def test_another_primary_on_a_newer_timeline_ends_the_trouble() -> None:
    now = later(60)
    promoted = up(now, "node-b", timeline=3)
    decision, _ = seen(now, silent(), promoted)
    assert decision.kind is Watch.CALM
    assert "node-b" in decision.reasons[0]


def test_the_new_primary_that_was_accepted_gets_its_time() -> None:
    # Its server may be busy with its end of recovery when the acceptance is written.
    now = later(60)
    told = down(now, notes={"accepted": {"primary": "node-b", "timeline": 3}}, answered_at=T.monotonic)
    known = follow(follow(Memory(), [up(T)], T), [silent(), told], now)
    assert (known.primary, known.timeline) == ("node-b", 3)
    assert seen(now, silent(), told, memory=known)[0].kind is not Watch.CALL


def test_a_watcher_that_starts_in_an_outage_knows_the_primary_by_who_was_accepted() -> None:
    fresh, told = Memory(void_at=T.monotonic), {"accepted": {"primary": "node-a", "timeline": 2}}
    for after, kind in ((2.0, Watch.VOID), (4.0, Watch.CALL)):
        now = later(after)
        line = down(now, notes=told, heard_at=T.monotonic - 30)
        fresh = follow(fresh, [line], T)
        assert seen(now, line, memory=fresh)[0].kind is kind


def test_nobody_known_is_called_for() -> None:
    now = later(60)
    assert seen(now, down(now), memory=Memory(void_at=T.monotonic))[0].kind is Watch.UNKNOWN


def test_two_primaries_are_no_case_for_a_failover() -> None:
    now = later(60)
    assert seen(now, up(now), up(now, "node-b", timeline=3))[0].kind is Watch.SPLIT
    # In a switchover the old one has just ended.
    ended = up(now, ended=True)
    assert seen(now, ended, up(now, "node-b", timeline=3))[0].kind is Watch.CALM


def test_an_operation_that_was_killed_after_promoting_goes_on() -> None:
    # Another node is the primary, so no alert lasted; and every Harbor still used the old one.
    now = later(60)
    left = {**asdict(RECORD), "kind": "failover", "phase": "promoted"}
    beats = [silent(), up(now, "node-b", timeline=3, notes={"operation": left})]
    decision, order = seen(now, *beats)
    assert decision.kind is Watch.CALL
    assert order is not None
    assert (order.expected_primary, order.outage) == ("node-a", "op-1")
    # Whose lock has been renewed meanwhile is not known by who hears nobody.
    assert seen(later(120), *beats)[0].kind is Watch.BLIND
    lock = Lock("op-1", "other:7", now.wall - 5, now.wall + 30)
    beats[1] = replace(beats[1], notes={"operation": left, "lock": asdict(lock)})
    assert seen(now, *beats)[0].kind is Watch.HELD


def test_what_a_damaged_record_says_is_for_the_flow_to_refuse() -> None:
    now = later(60)
    told = down(now, notes={"operation": {"damaged": True}, "lock": {"damaged": True}, "accepted": 5})
    assert seen(now, silent(), told)[0].kind is Watch.CALL
