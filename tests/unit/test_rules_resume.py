"""A flow that was killed goes on where the record and the facts say."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from flows.rules.fence import Rung, recorded_rung
from flows.rules.primary import Server
from flows.rules.resume import RESUME_RULES, Entry, ResumeView, Target, re_entry
from flows.rules.table import first_match
from tasks.operation.record import Fence, OperationKind, OperationRecord, Phase
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import NOW, deaf_standby, primary, standby, stopped, unreached

BOTH = (False, True)
VIEWS = [ResumeView(*row) for row in itertools.product(OperationKind, BOTH, BOTH, BOTH, Server, Target)]
RECORD = OperationRecord("op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, 1.0, "dead:9")
FENCE = Fence("COMMANDED", "switched off", 2.0)
PROMOTED = primary("node-b", server_changes={"timeline": 3})


def enter(node_a: NodeFacts, node_b: NodeFacts, held: Target, **changes: Any) -> Entry:
    return re_entry(replace(RECORD, **changes), node_a, node_b, held, NOW).kind


def test_every_rule_can_be_reached() -> None:
    assert {first_match(RESUME_RULES, view).rule for view in VIEWS} == {r.name for r in RESUME_RULES}


def test_a_promotion_that_happened_is_never_done_again_and_never_taken_back() -> None:
    for view in VIEWS:
        if view.target_state is Target.PROMOTED:
            assert first_match(RESUME_RULES, view).kind not in (Entry.OBSERVE, Entry.PROVE)
    stale = stopped(held=True)
    assert enter(stale, PROMOTED, Target.PROMOTED, phase=Phase.PROMOTING) is Entry.OPEN_TRAFFIC


def test_not_to_be_reached_is_not_to_be_unpromoted() -> None:
    # A switchover killed at promoting; the target's SQL stalls for a moment: the old primary was taken back beside it.
    for phase in (Phase.PROMOTING, Phase.OPENING, Phase.SETTLING):
        for kind in (OperationKind.SWITCHOVER, OperationKind.FAILOVER):
            assert enter(stopped(), deaf_standby(), Target.AWAY, kind=kind, phase=phase) is Entry.REFUSE
    for view in VIEWS:
        away = view.target_state is Target.AWAY and view.past_return and view.open
        if away and view.kind is not OperationKind.REJOIN:
            assert first_match(RESUME_RULES, view).kind is Entry.REFUSE


def test_a_target_that_was_told_to_promote_itself_is_waited_for() -> None:
    for view in VIEWS:
        if view.target_state is Target.PENDING and view.open and view.kind is not OperationKind.REJOIN:
            assert first_match(RESUME_RULES, view).kind is Entry.REFUSE


def test_two_primaries_are_never_resumed() -> None:
    for view in VIEWS:
        both = view.target_state is Target.PROMOTED and view.server is Server.WRITABLE
        if both and view.open and view.kind is not OperationKind.REJOIN:
            assert first_match(RESUME_RULES, view).kind is Entry.REFUSE
    assert enter(primary(), PROMOTED, Target.PROMOTED, phase=Phase.PROMOTED) is Entry.REFUSE


def test_nothing_done_yet_begins_again() -> None:
    assert enter(unreached(), deaf_standby(), Target.STANDBY) is Entry.OBSERVE
    assert enter(stopped(), deaf_standby(), Target.STANDBY, phase=Phase.FENCING) is Entry.OBSERVE


def test_a_fence_of_days_ago_is_no_fence() -> None:
    # Recorded as switched off, switched on again since, then cut off: it was promoted with no fence at all.
    for phase in (Phase.FENCED, Phase.PROMOTING):
        assert enter(unreached(), deaf_standby(), Target.STANDBY, phase=phase, fence=FENCE) is Entry.OBSERVE


def test_after_the_repoint_it_finishes() -> None:
    stale = stopped(held=True)
    assert enter(stale, PROMOTED, Target.PROMOTED, phase=Phase.SETTLING) is Entry.FINISH
    assert enter(stale, PROMOTED, Target.PROMOTED, phase=Phase.OPENING) is Entry.OPEN_TRAFFIC


def test_a_primary_that_came_back_is_looked_at_from_the_start() -> None:
    assert enter(primary(), standby(), Target.STANDBY, phase=Phase.FENCED, fence=FENCE) is Entry.OBSERVE


def test_a_killed_switchover_goes_on_with_the_proof() -> None:
    kind = OperationKind.SWITCHOVER
    assert enter(stopped(), deaf_standby(), Target.STANDBY, kind=kind, phase=Phase.STOPPING) is Entry.PROVE
    assert enter(primary(), standby(), Target.STANDBY, kind=kind, phase=Phase.STOPPING) is Entry.OBSERVE


def test_a_switchover_whose_target_cannot_be_asked_takes_nothing_back() -> None:
    kind = OperationKind.SWITCHOVER
    assert enter(stopped(), deaf_standby(), Target.AWAY, kind=kind, phase=Phase.STOPPING) is Entry.REFUSE


def test_a_rejoin_is_classified_anew() -> None:
    kind = OperationKind.REJOIN
    assert enter(stopped(), PROMOTED, Target.AWAY, kind=kind, phase=Phase.REWINDING) is Entry.CLASSIFY_REJOIN


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.ABORTED])
def test_what_has_ended_is_not_resumed(phase: Phase) -> None:
    assert enter(unreached(), deaf_standby(), Target.AWAY, phase=phase) is Entry.CLOSE


def test_the_rung_of_the_record_is_read_and_an_unknown_one_is_worth_nothing() -> None:
    assert recorded_rung(replace(RECORD, fence=FENCE)) is Rung.COMMANDED
    assert recorded_rung(replace(RECORD, fence=replace(FENCE, rung="prayer"))) is Rung.REFUSE
    assert recorded_rung(RECORD) is Rung.REFUSE
