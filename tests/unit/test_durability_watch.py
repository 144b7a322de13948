"""The node's own durability service: the same decisions as the rule, and absence told by silence."""

import itertools
from typing import Any

import pytest

from flows.rules.durability import SYNC_RULES, Promise, Recorded, Standby, SyncView
from flows.rules.table import first_match
from tasks.guard.on_node import durability_rules as node
from tasks.guard.on_node.durability_watch import Watch

STANDBYS = {
    Standby.SYNC: node.SYNC,
    Standby.CAUGHT_UP: node.CAUGHT_UP,
    Standby.BEHIND: node.BEHIND,
    Standby.JUST_LOST: node.JUST_LOST,
    Standby.LOST: node.LOST,
}


def sender(**changes: Any) -> dict[str, Any]:
    return {"state": "streaming", "sync_state": "async", "lag_bytes": 0, "reply": "1", **changes}


@pytest.mark.parametrize("promise", list(Promise))
def test_node_and_rule_take_the_same_step_in_every_situation(promise: Promise) -> None:
    for waits, standby, recorded in itertools.product((True, False), Standby, Recorded):
        rule = first_match(SYNC_RULES, SyncView(promise, waits, standby, recorded)).kind
        word = "" if recorded is Recorded.NONE else recorded.value
        step = node.next_step(promise.value, waits, STANDBYS[standby], word)
        assert step == rule.value, (promise, waits, standby, recorded)


@pytest.mark.parametrize(("promise", "relaxes"), [("preferred", True), ("required", False)])
def test_the_degrade_is_on_record_before_writes_go_on_without_the_standby(
    promise: str, relaxes: bool
) -> None:
    recorded, steps = "SYNC", []
    for _ in range(5):
        step = node.next_step(promise, "RELAX" not in steps, node.LOST, recorded)
        if step in ("NONE", "HOLD"):
            break
        steps.append(step)
        recorded = "ASYNC_DEGRADED" if step == "RECORD_DEGRADED" else recorded
    assert steps == (["RECORD_DEGRADED", "RELAX"] if relaxes else [])


def test_a_walsender_that_is_still_listed_but_silent_counts_as_lost() -> None:
    assert node.standby_state([sender(sync_state="sync")], 2.0) == node.SYNC
    assert node.standby_state([sender(sync_state="sync")], 10.0) == node.LOST
    assert node.standby_state([], 2.0) == node.JUST_LOST


def test_a_standby_far_behind_is_not_waited_for() -> None:
    assert node.standby_state([sender(lag_bytes=2 << 20)], 0.0) == node.BEHIND
    assert node.standby_state([sender(lag_bytes=1 << 20)], 0.0) == node.CAUGHT_UP


def test_silence_is_told_by_replies_that_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tasks.guard.on_node.durability_watch.time.monotonic", lambda: now)
    watch = Watch()
    now = 104.0
    assert watch.silent_s([sender(reply="2")]) == 0.0
    now = 109.0
    assert watch.silent_s([sender(reply="2")]) == 5.0
    now = 110.0
    assert watch.silent_s([]) == 6.0
    assert watch.silent_s([sender(reply="2")]) == 0.0
