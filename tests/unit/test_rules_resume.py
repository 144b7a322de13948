"""A flow that was killed goes on where the record and the facts say."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from flows.rules.fence import Rung
from flows.rules.primary import Server
from flows.rules.resume import RESUME_RULES, Entry, ResumeView, Target, re_entry, recorded_rung
from flows.rules.table import first_match
from tasks.operation.record import Fence, OperationKind, OperationRecord, Phase
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import NOW, deaf_standby, primary, standby, stopped, unreached

BOTH = (False, True)
VIEWS = [ResumeView(*row) for row in itertools.product(OperationKind, BOTH, BOTH, BOTH, BOTH, Server, Target)]
RECORD = OperationRecord("op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, 1.0, "dead:9")
FENCE = Fence("WITNESSES", "all have lost it", 2.0)
PROMOTED = primary("node-b", server_changes={"timeline": 3})


def enter(node_a: NodeFacts, node_b: NodeFacts, **changes: Any) -> Entry:
    return re_entry(replace(RECORD, **changes), node_a, node_b, NOW).kind


def test_every_rule_can_be_reached() -> None:
    assert {first_match(RESUME_RULES, view).rule for view in VIEWS} == {r.name for r in RESUME_RULES}


def test_a_promotion_that_happened_is_never_promoted_again() -> None:
    for view in VIEWS:
        if view.target_state is Target.PROMOTED:
            assert first_match(RESUME_RULES, view).kind not in (Entry.LAST_LOOK, Entry.PROVE)
    assert enter(stopped(held=True), PROMOTED, phase=Phase.PROMOTING) is Entry.OPEN_TRAFFIC


def test_two_primaries_are_never_resumed() -> None:
    for view in VIEWS:
        both = view.target_state is Target.PROMOTED and view.server is Server.WRITABLE
        if both and view.open and view.kind is not OperationKind.REJOIN:
            assert first_match(RESUME_RULES, view).kind is Entry.REFUSE
    assert enter(primary(), PROMOTED, phase=Phase.PROMOTED) is Entry.REFUSE


def test_nothing_done_yet_begins_again() -> None:
    assert enter(unreached(), deaf_standby()) is Entry.OBSERVE
    assert enter(stopped(), deaf_standby(), phase=Phase.FENCING) is Entry.OBSERVE


def test_after_the_fence_it_looks_again_before_it_promotes() -> None:
    assert enter(unreached(), deaf_standby(), phase=Phase.FENCED, fence=FENCE) is Entry.LAST_LOOK
    assert enter(stopped(held=True), deaf_standby(), phase=Phase.FENCING) is Entry.LAST_LOOK


def test_an_intent_without_a_promotion_looks_again() -> None:
    assert enter(unreached(), deaf_standby(), phase=Phase.PROMOTING, fence=FENCE) is Entry.LAST_LOOK


def test_after_the_repoint_it_settles() -> None:
    assert enter(stopped(held=True), PROMOTED, phase=Phase.SETTLING) is Entry.SETTLE
    assert enter(stopped(held=True), PROMOTED, phase=Phase.OPENING) is Entry.OPEN_TRAFFIC


def test_a_primary_that_came_back_is_looked_at_from_the_start() -> None:
    assert enter(primary(), standby(), phase=Phase.FENCED, fence=FENCE) is Entry.OBSERVE


def test_a_killed_switchover_goes_on_with_the_proof() -> None:
    kind = OperationKind.SWITCHOVER
    assert enter(stopped(), deaf_standby(), kind=kind, phase=Phase.STOPPING) is Entry.PROVE
    assert enter(primary(), standby(), kind=kind, phase=Phase.STOPPING) is Entry.OBSERVE


def test_a_rejoin_is_classified_anew() -> None:
    kind = OperationKind.REJOIN
    assert enter(stopped(), PROMOTED, kind=kind, phase=Phase.REWINDING) is Entry.CLASSIFY_REJOIN


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.ABORTED])
def test_what_has_ended_is_not_resumed(phase: Phase) -> None:
    assert enter(unreached(), deaf_standby(), phase=phase) is Entry.CLOSE


def test_the_rung_of_the_record_is_read_and_an_unknown_one_is_worth_nothing() -> None:
    assert recorded_rung(replace(RECORD, fence=FENCE)) is Rung.WITNESSES
    assert recorded_rung(replace(RECORD, fence=replace(FENCE, rung="prayer"))) is Rung.REFUSE
    assert recorded_rung(RECORD) is Rung.REFUSE
