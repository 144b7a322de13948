"""Which call for a failover begins, and which one is late, second, paused or too soon."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from flows.rules.admission import (
    ADMISSION_RULES,
    Admission,
    AdmissionView,
    Expected,
    Open,
    accepted_primary,
    admit_failover,
    latest_record,
)
from flows.rules.policy import Policy
from flows.rules.table import Decision, first_match
from tasks.operation.record import Lock, OperationKind, OperationRecord, Phase, to_json
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import NOW, deaf_standby, primary, standby, stopped, unreached

BOTH = (False, True)
VIEWS = [AdmissionView(*row) for row in itertools.product(Expected, BOTH, BOTH, BOTH, Open, BOTH, BOTH)]
ME = "host:1"
RECORD = OperationRecord(
    "op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, NOW.wall - 30, "dead:9", phase=Phase.FENCED
)
LIVE = Lock("op-1", "other:7", NOW.wall - 5, NOW.wall + 10)
DEAD = replace(LIVE, expires_at=NOW.wall - 1)


def ask(nodes: list[NodeFacts], expected: str = "node-a", **options: Any) -> Decision[Admission]:
    return admit_failover(nodes, expected, Policy(), ME, NOW, **options)


def noted(facts: NodeFacts, **files: Any) -> NodeFacts:
    """Put files of ours on a node, as the probe would read them."""
    return replace(facts, state={name: json.loads(to_json(value)) for name, value in files.items()})


def test_every_call_has_exactly_one_answer() -> None:
    assert {first_match(ADMISSION_RULES, view).rule for view in VIEWS} == {r.name for r in ADMISSION_RULES}


def test_nothing_begins_beside_a_living_operation_of_somebody_else() -> None:
    begin = (Admission.ADMIT, Admission.RESUME, Admission.TAKE_OVER)
    for view in VIEWS:
        if view.lock_alive and not view.lock_ours:
            assert first_match(ADMISSION_RULES, view).kind not in begin


def test_nothing_new_begins_in_a_pause_even_for_an_operator() -> None:
    for view in VIEWS:
        if view.paused:
            assert first_match(ADMISSION_RULES, view).kind not in (Admission.ADMIT, Admission.TAKE_OVER)


def test_nothing_begins_for_a_node_that_is_not_the_primary() -> None:
    for view in VIEWS:
        if view.expected in (Expected.OTHER, Expected.NO_SUCH_NODE):
            assert first_match(ADMISSION_RULES, view).kind not in (Admission.ADMIT, Admission.TAKE_OVER)


def test_the_first_alert_is_admitted() -> None:
    assert ask([stopped(), deaf_standby()]).kind is Admission.ADMIT
    assert ask([unreached(), deaf_standby()]).kind is Admission.ADMIT


def test_the_late_alert_is_told_who_is_primary_now() -> None:
    decision = ask([stopped(), primary("node-b", server_changes={"timeline": 3})])
    assert decision.kind is Admission.NOOP
    assert "node-b (timeline 3)" in decision.reasons[0]


def test_an_old_primary_that_came_back_does_not_make_the_late_alert_right() -> None:
    back = primary("node-a", server_changes={"timeline": 2})
    assert ask([back, primary("node-b", server_changes={"timeline": 3})]).kind is Admission.NOOP


def test_what_the_last_promotion_wrote_counts_when_nobody_answers() -> None:
    knows = replace(stopped("node-b"), state={"accepted": {"primary": "node-b", "timeline": 3}})
    assert accepted_primary([stopped(), knows]) == ("node-b", 3)
    assert ask([stopped(), knows]).kind is Admission.NOOP
    assert ask([stopped(), knows], "node-b").kind is Admission.ADMIT


def test_a_note_from_before_the_last_promotion_turns_no_call_away() -> None:
    """node-a was away when node-b was promoted, came back as its standby, and now node-b is gone."""
    returned = replace(
        deaf_standby("node-a", timeline=3), state={"accepted": {"primary": "node-a", "timeline": 2}}
    )
    assert accepted_primary([returned, unreached("node-b")]) is None
    assert ask([returned, unreached("node-b")], "node-b").kind is Admission.ADMIT


def test_a_second_alert_while_the_first_works_is_in_progress() -> None:
    nodes = [stopped(), noted(deaf_standby(), operation=RECORD, lock=LIVE)]
    decision = ask(nodes)
    assert decision.kind is Admission.IN_PROGRESS
    assert "op-1" in decision.reasons[0]


@pytest.mark.parametrize(
    ("renewed_in", "up_s", "alive"),
    [
        ("this boot", 1030.0, True),
        ("this boot", 1061.0, False),
        ("another", 30.0, True),
        ("another", 61.0, False),
    ],
)
def test_a_lock_is_over_by_the_clock_of_its_node_that_nobody_sets(
    renewed_in: str, up_s: float, alive: bool
) -> None:
    # A node's clock was two hours ahead, the failover was killed and the clock was put right: nothing could begin for
    # two hours, by the look; on the node the lock had been over after a minute.
    ahead = NOW.wall + 7200
    renewed = {"boot": renewed_in, "uptime": 1000.0}
    lock = replace(LIVE, taken_at=ahead, expires_at=ahead + 60, ttl_s=60.0, renewed=renewed)
    held = noted(deaf_standby(), operation=RECORD, lock=lock)
    found = ask([stopped(), replace(held, boot_id="this boot:10", uptime_s=up_s - 10.0)])
    assert found.kind is (Admission.IN_PROGRESS if alive else Admission.RESUME)


def test_a_lock_of_the_version_before_is_judged_by_the_wall_clock_of_its_node() -> None:
    behind = replace(noted(deaf_standby(), operation=RECORD, lock=LIVE), clock_skew_s=-300.0)
    assert ask([stopped(), behind]).kind is Admission.IN_PROGRESS
    ahead = replace(behind, clock_skew_s=300.0)
    assert ask([stopped(), ahead]).kind is Admission.RESUME


def test_a_killed_failover_goes_on_when_its_lock_has_died() -> None:
    nodes = [stopped(), noted(deaf_standby(), operation=RECORD, lock=DEAD)]
    assert ask(nodes).kind is Admission.RESUME


def test_a_killed_failover_goes_on_although_its_target_is_primary_already() -> None:
    promoted = primary("node-b", server_changes={"timeline": 3})
    promoting = RECORD.at(Phase.PROMOTING)
    assert ask([stopped(), noted(promoted, operation=promoting, lock=DEAD)]).kind is Admission.RESUME


@pytest.mark.parametrize("expected", ["node-a", "node-b"])
@pytest.mark.parametrize("kind", [OperationKind.FAILOVER, OperationKind.SWITCHOVER])
def test_what_has_come_to_promoting_is_finished_by_whoever_comes_next(
    kind: OperationKind, expected: str
) -> None:
    # A call for the new primary took over instead, got no lock on the old one, and nobody could end it any more.
    for phase in (Phase.PROMOTING, Phase.PROMOTED, Phase.OPENING, Phase.SETTLING):
        begun = replace(RECORD, kind=kind, phase=phase)
        nodes = [stopped(), noted(deaf_standby(), operation=begun, lock=DEAD)]
        assert ask(nodes, expected).kind is Admission.RESUME


def test_a_killed_switchover_is_taken_over() -> None:
    left = replace(RECORD, kind=OperationKind.SWITCHOVER, phase=Phase.STOPPING)
    assert ask([stopped(), noted(deaf_standby(), operation=left)]).kind is Admission.TAKE_OVER


def test_a_pause_is_honoured_and_says_why() -> None:
    paused = replace(standby(), state={"paused": {"reason": "new switch"}})
    decision = ask([stopped(), paused])
    assert decision.kind is Admission.PAUSED
    assert "new switch" in decision.reasons[0]


@pytest.mark.parametrize("flag", [{"damaged": True}, {}, [], "", False])
def test_a_pause_that_cannot_be_read_is_a_pause(flag: object) -> None:
    assert ask([stopped(), replace(standby(), state={"paused": flag})]).kind is Admission.PAUSED


def test_the_second_failover_within_the_cooldown_needs_an_operator() -> None:
    done = replace(RECORD, phase=Phase.DONE, expected_primary="node-b", target="node-a")
    nodes = [stopped(), noted(deaf_standby(), operation=done)]
    assert ask(nodes).kind is Admission.COOLDOWN
    assert ask(nodes, by_operator=True).kind is Admission.ADMIT
    long_ago = replace(done, started_at=NOW.wall - 601)
    assert ask([stopped(), noted(deaf_standby(), operation=long_ago)]).kind is Admission.ADMIT


@pytest.mark.parametrize("kind", [OperationKind.SWITCHOVER, OperationKind.REJOIN])
def test_planned_work_starts_no_cooldown(kind: OperationKind) -> None:
    done = replace(RECORD, phase=Phase.DONE, kind=kind)
    assert ask([stopped(), noted(deaf_standby(), operation=done)]).kind is Admission.ADMIT


def test_a_rejoin_in_between_does_not_end_the_cooldown() -> None:
    back = replace(RECORD, phase=Phase.DONE, kind=OperationKind.REJOIN, last_failover=NOW.wall - 300)
    assert ask([stopped(), noted(deaf_standby(), operation=back)]).kind is Admission.COOLDOWN
    long_ago = replace(back, last_failover=NOW.wall - 601)
    assert ask([stopped(), noted(deaf_standby(), operation=long_ago)]).kind is Admission.ADMIT


def test_a_damaged_record_refuses_and_is_not_taken_for_none() -> None:
    damaged = replace(deaf_standby(), state={"operation": {"damaged": True}})
    assert ask([stopped(), damaged]).kind is Admission.REFUSE


def test_a_name_that_the_site_does_not_know_is_refused() -> None:
    assert ask([stopped(), deaf_standby()], "db-1").kind is Admission.REFUSE


def test_of_two_copies_of_a_record_the_one_that_was_written_last_counts() -> None:
    """The older copy is of the same phase, on a node that was away since; whoever went on by it drained for good."""
    drained = RECORD.at(RECORD.phase, drained=("node-a",))
    for copies in ((RECORD, drained), (drained, RECORD)):
        nodes = [
            noted(node, operation=copy)
            for node, copy in zip((stopped(), deaf_standby()), copies, strict=True)
        ]
        found = latest_record(nodes)
        assert found is not None
        assert found.drained == ("node-a",)
