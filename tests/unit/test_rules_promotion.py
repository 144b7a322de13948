"""May the standby take over, and what would be lost?"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rules.policy import Policy
from flows.rules.promotion import CANDIDATE_CHECKS, MayPromote, may_fail_over
from flows.rules.table import Decision, FactsTooOld, Weight
from tasks.clock import Moment
from tasks.operation.record import LastPrimary
from tasks.postgres.facts import Disk, NodeFacts
from tasks.postgres.lsn import Lsn, WalPosition
from tests.unit.facts_builder import (
    NOW,
    SYSTEM,
    cluster,
    control,
    deaf_standby,
    node,
    primary,
    receiver,
    standby,
    stopped,
    unreached,
)

LAST = LastPrimary("node-a", WalPosition(2, Lsn(0x6000000)), NOW.wall - 20)


def ask(candidate: NodeFacts | None = None, **options: Any) -> Decision[MayPromote]:
    old = options.pop("old", unreached())
    last = options.pop("last", LAST)
    policy = options.pop("policy", Policy())
    identity = options.pop("identity", SYSTEM)
    return may_fail_over(candidate or deaf_standby(), old, last, identity, policy, NOW, **options)


def names(decision: Decision[MayPromote]) -> set[str]:
    """The checks that refused, found again by their remedies and reasons."""
    return {check.name for check in CANDIDATE_CHECKS if any(_like(check.reason, r) for r in decision.reasons)}


def _like(template: str, reason: str) -> bool:
    pieces = [part.split("{")[0].strip() for part in template.split("}") if part.split("{")[0].strip()]
    return all(piece in reason for piece in pieces)


def test_a_standby_that_has_everything_may_take_over() -> None:
    decision = ask()
    assert decision.kind is MayPromote.ALLOW
    assert decision.reasons == ()


def test_lag_up_to_the_limit_is_allowed_and_a_byte_more_is_not() -> None:
    limit = Policy().max_lag_bytes
    at = deaf_standby(replay_lsn=Lsn(0x6000000 - limit), receive_lsn=None)
    beyond = deaf_standby(replay_lsn=Lsn(0x6000000 - limit - 1), receive_lsn=None)
    assert ask(at).kind is MayPromote.ALLOW
    refused = ask(beyond)
    assert refused.kind is MayPromote.REFUSE
    assert f"{limit + 1:,} bytes behind" in refused.reasons[0]


def test_received_and_not_yet_replayed_is_not_lost() -> None:
    assert ask(deaf_standby(replay_lsn=Lsn(0x1000000))).kind is MayPromote.ALLOW


def test_after_a_restart_the_received_position_may_be_below_the_replayed_one() -> None:
    assert ask(deaf_standby(receive_lsn=Lsn(0x5000000))).kind is MayPromote.ALLOW


def test_accepting_data_loss_turns_lag_into_a_warning_with_its_size() -> None:
    behind = deaf_standby(replay_lsn=Lsn(0x1000000), receive_lsn=None)
    decision = ask(behind, accept_data_loss=True)
    assert decision.kind is MayPromote.ALLOW
    assert "83,886,080 bytes behind" in decision.warnings[0]


def test_an_unknown_loss_is_refused() -> None:
    assert names(ask(last=None)) == {"loss not known"}
    assert ask(last=None, accept_data_loss=True).kind is MayPromote.ALLOW


def test_an_old_bound_bounds_nothing() -> None:
    assert names(ask(last=replace(LAST, at=NOW.wall - 3600))) == {"bound too old"}


def heard(at: float, **changes: Any) -> dict[str, Any]:
    """What the durability service of a standby leaves when it has lost its primary."""
    return {"heard": {"silent": True, "at": at, **changes}}


def lost_for(seconds: float, **note: Any) -> NodeFacts:
    """A standby that lost its primary some time ago, and whose receiver is gone."""
    return replace(deaf_standby(), state=heard(NOW.wall - seconds, **note))


@pytest.mark.parametrize("hours", [0.02, 1, 24, 72])
def test_the_answer_after_days_is_the_answer_after_a_minute(hours: float) -> None:
    died = hours * 3600
    seen = replace(LAST, at=NOW.wall - died - 25)
    decision = ask(lost_for(died), last=seen)
    assert decision.kind is MayPromote.ALLOW, decision.reasons
    assert decision.evidence["position_age_s"] == 25.0


def test_a_position_that_was_old_when_the_primary_was_last_heard_bounds_nothing() -> None:
    seen = replace(LAST, at=NOW.wall - 3600 - 181)
    assert names(ask(lost_for(3600), last=seen)) == {"bound too old"}


def test_the_receiver_tells_the_last_word_while_it_is_there() -> None:
    silent = deaf_standby(receiver=receiver(message_age_s=400.0))
    assert ask(silent, last=replace(LAST, at=NOW.wall - 420)).kind is MayPromote.ALLOW
    assert names(ask(silent, last=replace(LAST, at=NOW.wall - 600))) == {"bound too old"}


def test_a_standby_that_was_cut_off_while_the_primary_lived_says_nothing_of_its_end() -> None:
    # check saw the primary half an hour after the standby had lost it; how long it lived then, nobody knows.
    seen = replace(LAST, at=NOW.wall - 1800)
    assert names(ask(lost_for(3600), last=seen)) == {"bound too old"}


def test_a_note_from_while_it_was_heard_is_no_end() -> None:
    seen = replace(LAST, at=NOW.wall - 3600)
    assert names(ask(lost_for(3590, silent=False), last=seen)) == {"bound too old"}


@pytest.mark.parametrize(
    "note", [None, "x", {"silent": True}, {"silent": True, "at": "noon"}, {"damaged": True}]
)
def test_a_note_that_cannot_be_read_is_no_end(note: object) -> None:
    damaged = replace(deaf_standby(), state={"heard": note})
    assert names(ask(damaged, last=replace(LAST, at=NOW.wall - 3600))) == {"bound too old"}


def test_the_note_is_read_by_the_clock_of_its_node() -> None:
    # The standby's clock is 1000 s ahead: its 13:00 is the orchestrator's 12:43.
    ahead = replace(lost_for(3600 - 1000), clock_skew_s=1000.0)
    assert ask(ahead, last=replace(LAST, at=NOW.wall - 3620)).evidence["position_age_s"] == 20.0
    unknown = replace(lost_for(3600), clock_skew_s=None)
    assert names(ask(unknown, last=replace(LAST, at=NOW.wall - 3620))) == {"bound too old"}


def test_a_killed_run_that_is_called_again_counts_to_where_it_began() -> None:
    began = NOW.wall - 3600
    seen = replace(LAST, at=began - 30)
    assert ask(last=seen, begun_at=began).kind is MayPromote.ALLOW
    # The primary came back after that run began: its end is another one.
    back = replace(LAST, at=began + 600)
    assert names(ask(last=back, begun_at=began)) == {"bound too old"}
    assert names(ask(lost_for(60), last=seen, begun_at=began)) == {"bound too old"}


def test_a_position_seen_without_a_word_of_the_standby_is_as_old_as_it_is() -> None:
    assert names(ask(last=replace(LAST, at=NOW.wall - 236))) == {"bound too old"}


def test_a_clean_shutdown_gives_the_exact_end_whatever_check_last_saw() -> None:
    decision = ask(deaf_standby(replay_lsn=Lsn(0x50000A0), receive_lsn=None), old=stopped(), last=None)
    assert decision.kind is MayPromote.ALLOW
    assert decision.evidence["lag_bytes"] == 0
    assert decision.evidence["position_exact"]


def test_a_crash_leaves_no_exact_end() -> None:
    crashed = stopped(control=control(state="in production"), checkpoint_end=None)
    assert names(ask(old=crashed, last=None)) == {"loss not known"}


def test_a_promise_of_synchrony_that_was_not_kept_needs_the_operator() -> None:
    policy = Policy(durability="preferred")
    assert names(ask(policy=policy)) == {"not synchronous"}
    kept = replace(deaf_standby(), state={"durability": {"state": "SYNC"}})
    assert ask(kept, policy=policy).kind is MayPromote.ALLOW
    degraded = replace(deaf_standby(), state={"durability": {"state": "ASYNC_DEGRADED"}})
    assert ask(degraded, policy=policy, accept_data_loss=True).kind is MayPromote.ALLOW


HARD: dict[str, NodeFacts] = {
    "standby not reached": unreached("node-b"),
    "standby not answering": node("node-b", cluster=cluster(processes=(), standby_signal=True)),
    "not a standby": primary("node-b"),
    "another database": deaf_standby(system_identifier="1"),
    "older timeline": deaf_standby(timeline=1),
    "primary is heard": standby(),
    "replay paused": deaf_standby(replay_paused=True),
    "disk nearly full": replace(deaf_standby(), data_disk=Disk(100, 9)),
    "pg_hba.conf broken": deaf_standby(hba_errors=1),
    "recovery target set": standby(
        server_changes={"receiver": None}, cluster=cluster(auto_conf=("recovery_target_time",))
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_what_has_nothing_to_do_with_loss_cannot_be_accepted_away(name: str) -> None:
    decision = ask(HARD[name], accept_data_loss=True)
    assert decision.kind is MayPromote.REFUSE
    assert names(decision) == {name}


def test_a_database_of_unknown_identity_is_not_promoted() -> None:
    assert names(ask(identity=None)) == {"database not known"}


def test_a_receiver_that_was_fresh_a_moment_ago_is_no_veto_once_the_primary_is_seen_stopped() -> None:
    assert ask(standby(), old=stopped()).kind is MayPromote.ALLOW


def test_a_receiver_that_is_fresh_is_no_veto_for_a_primary_that_commits_nothing() -> None:
    assert names(ask(standby(), old=unreached())) == {"primary is heard"}
    assert ask(standby(), old=unreached(), stalled=True).kind is MayPromote.ALLOW


def test_overridden_settings_are_told_and_do_not_keep_harbor_down() -> None:
    candidate = standby(server_changes={"receiver": None}, cluster=cluster(auto_conf=("primary_conninfo",)))
    decision = ask(candidate)
    assert decision.kind is MayPromote.ALLOW
    assert "primary_conninfo" in decision.warnings[0]


def test_every_reason_is_given_at_once() -> None:
    bad = replace(deaf_standby(replay_paused=True, hba_errors=2, timeline=1), data_disk=Disk(100, 1))
    assert {"replay paused", "pg_hba.conf broken", "older timeline", "disk nearly full"} <= names(ask(bad))


def test_old_facts_are_refused() -> None:
    with pytest.raises(FactsTooOld):
        ask(replace(deaf_standby(), observed_at=Moment(NOW.monotonic - 100, 0.0)))


@given(
    replayed=st.integers(0, 0x7000000),
    last=st.none() | st.integers(0, 0x7000000),
    age=st.floats(0, 10_000),
    accept=st.booleans(),
)
def test_nothing_is_lost_silently(replayed: int, last: int | None, age: float, accept: bool) -> None:
    known = None if last is None else LastPrimary("node-a", WalPosition(2, Lsn(last)), NOW.wall - age)
    candidate = deaf_standby(replay_lsn=Lsn(replayed), receive_lsn=None)
    decision = ask(candidate, last=known, accept_data_loss=accept)
    bounded = known is not None and known.position.lsn - replayed <= Policy().max_lag_bytes and age < 179
    if decision.kind is MayPromote.ALLOW and not accept:
        assert known is not None
        assert known.position.lsn - replayed <= Policy().max_lag_bytes
    if not bounded and age > 181:
        assert decision.reasons or decision.warnings


def test_the_weights_are_those_of_the_protocol() -> None:
    loss = {check.name for check in CANDIDATE_CHECKS if check.weight is Weight.DATA_LOSS}
    assert loss == {"lag too large", "loss not known", "bound too old", "not synchronous"}
