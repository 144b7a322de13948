"""Synchronous replication: relaxed only after it is recorded, restored only after it has caught up."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from flows.rules.durability import (
    SYNC_RULES,
    Promise,
    Recorded,
    Standby,
    Sync,
    SyncView,
    sync_transition,
)
from flows.rules.policy import Policy
from flows.rules.table import first_match
from tests.unit.facts_builder import NOW, primary, sender, standby

VIEWS = [SyncView(*row) for row in itertools.product(Promise, (False, True), Standby, Recorded)]


def decide(view: SyncView) -> Sync:
    return first_match(SYNC_RULES, view).kind


def ask(durability: Any, recorded: str | None = None, lost: float | None = None, **server: Any) -> Sync:
    state = {"durability": {"state": recorded}} if recorded else {}
    facts = primary(server_changes=server, state=state)
    return sync_transition(facts, Policy(durability=durability), lost, NOW).kind


def test_every_rule_can_be_reached() -> None:
    assert {first_match(SYNC_RULES, view).rule for view in VIEWS} == {rule.name for rule in SYNC_RULES}


def test_writes_never_go_on_alone_while_the_record_says_sync() -> None:
    for view in VIEWS:
        if view.recorded is Recorded.SYNC:
            assert decide(view) is not Sync.RELAX


def test_required_is_never_relaxed() -> None:
    for view in VIEWS:
        if view.promise is Promise.REQUIRED:
            assert decide(view) is not Sync.RELAX


def test_sync_is_recorded_only_while_commits_wait_for_a_synchronous_standby() -> None:
    for view in VIEWS:
        if decide(view) is Sync.RECORD_SYNC:
            assert view.waits
            assert view.standby is Standby.SYNC


def test_commits_are_made_to_wait_only_for_a_standby_that_has_caught_up() -> None:
    for view in VIEWS:
        if decide(view) is Sync.RESTORE:
            assert view.standby in (Standby.CAUGHT_UP, Standby.SYNC)


@pytest.mark.parametrize("promise", Promise)
@pytest.mark.parametrize("standby_state", Standby)
def test_the_steps_come_to_an_end(promise: Promise, standby_state: Standby) -> None:
    for waits, recorded in itertools.product((False, True), Recorded):
        view = SyncView(promise, waits, standby_state, recorded)
        for _ in range(6):
            step = decide(view)
            if step in (Sync.NONE, Sync.HOLD):
                break
            view = apply(view, step)
        else:
            raise AssertionError(f"the steps go round in circles: {view}")


def apply(view: SyncView, step: Sync) -> SyncView:
    recorded = {
        Sync.RECORD_DEGRADED: Recorded.ASYNC_DEGRADED,
        Sync.RECORD_SYNC: Recorded.SYNC,
        Sync.RECORD_ASYNC: Recorded.ASYNC,
    }
    if step in recorded:
        return replace(view, recorded=recorded[step])
    if step is Sync.RELAX:
        return replace(view, waits=False)
    state = Standby.SYNC if view.standby is Standby.CAUGHT_UP else view.standby
    return replace(view, waits=True, standby=state)


def test_a_lost_standby_is_recorded_and_then_relaxed() -> None:
    waiting = {"sync_names": "FIRST 1 (ha_node_b)", "senders": ()}
    assert ask("preferred", "SYNC", 11.0, **waiting) is Sync.RECORD_DEGRADED
    assert ask("preferred", "ASYNC_DEGRADED", 11.0, **waiting) is Sync.RELAX


def test_a_hiccup_of_the_network_relaxes_nothing() -> None:
    waiting = {"sync_names": "FIRST 1 (ha_node_b)", "senders": ()}
    assert ask("preferred", "SYNC", 3.0, **waiting) is Sync.NONE
    assert ask("preferred", "SYNC", None, **waiting) is Sync.NONE


def test_required_holds_the_writes() -> None:
    assert ask("required", "SYNC", 60.0, sync_names="FIRST 1 (x)", senders=()) is Sync.HOLD


def test_after_a_failover_the_promise_is_restored_step_by_step() -> None:
    assert ask("preferred", "ASYNC_DEGRADED", senders=(sender(lag_bytes=50 << 20),)) is Sync.NONE
    assert ask("preferred", "ASYNC_DEGRADED", senders=(sender(),)) is Sync.RESTORE
    confirmed = {"sync_names": "FIRST 1 (x)", "senders": (sender(sync_state="sync"),)}
    assert ask("preferred", "ASYNC_DEGRADED", **confirmed) is Sync.RECORD_SYNC
    assert ask("preferred", "SYNC", **confirmed) is Sync.NONE


def test_names_that_were_emptied_by_hand_withdraw_the_claim() -> None:
    assert ask("preferred", "SYNC", senders=(sender(),)) is Sync.RECORD_DEGRADED


def test_a_standby_has_no_synchronous_replication_to_decide_on() -> None:
    with pytest.raises(ValueError, match="node-b"):
        sync_transition(standby(), Policy(), None, NOW)
