"""Follow, rewind or clone."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from flows.rules.rejoin import (
    REJOIN_RULES,
    Copy,
    End,
    Line,
    Rejoin,
    RejoinView,
    classify_rejoin,
)
from flows.rules.table import first_match
from tasks.postgres.facts import NodeFacts, Slot
from tasks.postgres.history import Fork, TimelineHistory
from tasks.postgres.lsn import Lsn
from tests.unit.facts_builder import NOW, cluster, control, node, primary, standby, stopped, unreached

SWITCH = Lsn(0x50000A0)  # where timeline 2 ended for the new primary; the end of its shutdown checkpoint
HISTORY_3 = TimelineHistory(3, (Fork(1, Lsn(0x4000000), "x"), Fork(2, SWITCH, "x")))
BOTH = (False, True)


def new_primary(**server_changes: Any) -> NodeFacts:
    return primary(
        "node-b", server_changes={"timeline": 3, **server_changes}, cluster=cluster(history=HISTORY_3)
    )


def classify(node_a: NodeFacts, other: NodeFacts | None = None) -> Rejoin:
    return classify_rejoin(node_a, other or new_primary(), NOW, slot="ha_node_a").kind


def noted(facts: NodeFacts, state: object) -> NodeFacts:
    """A node on which a rewind left its note."""
    return replace(facts, state={"rewind": {"operation": "op", "state": state}})


def old_standby(**changes: Any) -> NodeFacts:
    fields = {
        "state": "shut down in recovery",
        "min_recovery_end": SWITCH,
        "min_recovery_timeline": 2,
        **changes,
    }
    return stopped(control=control(**fields), checkpoint_end=None, standby_signal=True)


def test_every_combination_has_exactly_one_way() -> None:
    reached = set()
    flags = itertools.product(BOTH, repeat=8)
    for row, copy, line, end, beyond in itertools.product(flags, Copy, Line, End, (False, True, None)):
        view = RejoinView(*row, copy, line, end, beyond, wal_gone=False, can_rewind=True)
        reached.add(next(rule.name for rule in REJOIN_RULES if rule.when(view)))
    for gone, rewind in itertools.product(BOTH, BOTH):
        for line, end, beyond in itertools.product(Line, End, (False, True, None)):
            row = (True, True, False, False, True, True, True, True)
            view = RejoinView(*row, Copy.NONE, line, end, beyond, wal_gone=gone, can_rewind=rewind)
            reached.add(next(rule.name for rule in REJOIN_RULES if rule.when(view)))
    begun = RejoinView(*row, Copy.NONE, Line.SAME, End.AS_STANDBY, False, False, True, cloning=True)
    reached.add(first_match(REJOIN_RULES, begun).rule)
    assert reached == {rule.name for rule in REJOIN_RULES}


def test_another_sites_database_is_never_touched() -> None:
    for copy, line, end, running in itertools.product(Copy, Line, End, BOTH):
        row = (True, True, False, running, True, True, False, True)
        view = RejoinView(*row, copy, line, end, False, wal_gone=True, can_rewind=True)
        assert first_match(REJOIN_RULES, view).kind is Rejoin.REFUSE


def test_a_running_server_is_stopped_before_anything_is_decided() -> None:
    for copy, line, end in itertools.product(Copy, Line, End):
        row = (True, True, False, True, True, True, True, True)
        view = RejoinView(*row, copy, line, end, False, wal_gone=False, can_rewind=True)
        assert first_match(REJOIN_RULES, view).kind is Rejoin.STOP_FIRST


def test_after_a_clean_switchover_the_old_primary_simply_follows() -> None:
    assert classify(stopped()) is Rejoin.FOLLOW


def test_a_shutdown_checkpoint_that_was_not_received_means_rewind() -> None:
    assert classify(stopped(checkpoint_end=Lsn(SWITCH + 8))) is Rejoin.REWIND


def test_where_the_checkpoints_end_is_not_known_its_beginning_decides() -> None:
    assert classify(stopped(checkpoint_end=None)) is Rejoin.FOLLOW
    late = control(state="shut down", checkpoint=SWITCH)
    assert classify(stopped(checkpoint_end=None, control=late)) is Rejoin.REWIND


def test_a_crashed_primary_is_rewound() -> None:
    assert classify(stopped(control=control(), checkpoint_end=None)) is Rejoin.REWIND


def test_without_checksums_and_hints_it_is_cloned() -> None:
    crashed = stopped(control=control(can_rewind=False), checkpoint_end=None)
    assert classify(crashed) is Rejoin.CLONE


def test_a_standby_that_was_down_during_the_promotion_follows() -> None:
    assert classify(old_standby()) is Rejoin.FOLLOW
    assert classify(old_standby(min_recovery_end=Lsn(SWITCH + 8))) is Rejoin.REWIND


def test_a_timeline_that_is_no_ancestor_has_diverged() -> None:
    stranger = TimelineHistory(3, (Fork(1, Lsn(0x4000000), "x"),))
    other = primary("node-b", server_changes={"timeline": 3}, cluster=cluster(history=stranger))
    assert classify(stopped(), other=other) is Rejoin.REWIND


def test_a_newer_timeline_is_for_the_operator() -> None:
    newer = stopped(control=control(state="shut down", timeline=4))
    assert classify(newer) is Rejoin.REFUSE


def test_a_standby_on_the_primarys_timeline_follows() -> None:
    same = old_standby(timeline=3, min_recovery_timeline=3)
    assert classify(same) is Rejoin.FOLLOW


def test_a_standby_ahead_of_its_primary_cannot_be_seen_by_rewind() -> None:
    ahead = old_standby(timeline=3, min_recovery_timeline=3, min_recovery_end=Lsn(0x7000000))
    assert classify(ahead) is Rejoin.CLONE


def test_two_primaries_on_one_timeline_cannot_be_seen_by_rewind() -> None:
    assert classify(stopped(control=control(state="shut down", timeline=3))) is Rejoin.CLONE


def test_two_lines_of_one_number_are_told_by_their_histories() -> None:
    fork = TimelineHistory(3, (Fork(1, Lsn(0x4000000), "x"), Fork(2, Lsn(0x5000000), "x")))
    state = control(state="shut down in recovery", timeline=3)
    other_line = stopped(control=state, checkpoint_end=None, history=fork)
    assert classify(other_line) is Rejoin.CLONE


def test_a_rewound_directory_is_started_and_not_rewound_again() -> None:
    rewound = stopped(
        backup_label_method="pg_rewind",
        control=control(state="in archive recovery", min_recovery_timeline=3, min_recovery_end=Lsn(1)),
    )
    assert classify(noted(rewound, "begun")) is Rejoin.START_ONLY
    assert classify(noted(rewound, "done")) is Rejoin.START_ONLY
    assert classify(rewound) is Rejoin.START_ONLY


def test_a_rewind_that_was_killed_halfway_is_cloned() -> None:
    half = stopped(backup_label_method="pg_rewind", control=control())
    assert classify(half) is Rejoin.CLONE
    assert classify(noted(stopped(), "begun")) is Rejoin.CLONE
    assert classify(noted(stopped(control=None), "begun")) is Rejoin.CLONE
    assert classify(replace(stopped(), state={"rewind": {"damaged": True}})) is Rejoin.CLONE


def test_a_copy_that_was_not_started_is_started() -> None:
    copied = stopped(backup_label_method="streamed", control=control(timeline=3))
    assert classify(copied) is Rejoin.START_ONLY


def test_a_copy_from_before_the_promotion_is_made_again() -> None:
    assert classify(stopped(backup_label_method="streamed", control=control())) is Rejoin.CLONE


def test_an_exclusive_backup_of_a_primary_is_no_copy() -> None:
    crashed = stopped(backup_label_method="pg_start_backup", control=control(), checkpoint_end=None)
    assert classify(crashed) is Rejoin.REWIND


def test_needed_wal_that_is_gone_means_clone() -> None:
    lost = Slot("ha_node_a", "physical", False, None, "lost", None, False)
    assert classify(old_standby(), other=new_primary(slots=(lost,))) is Rejoin.CLONE


def test_wal_that_is_gone_is_told_by_positions_also_when_the_slot_was_made_anew() -> None:
    """A failed clone had made the slot anew: each next rejoin followed, and waited 300 s for what was gone."""
    sound = Slot("ha_node_a", "physical", False, Lsn(0x7000000), "reserved", None, False)
    primary_b = new_primary(slots=(sound,), oldest_wal=Lsn(0x6000000))
    assert classify(old_standby(), other=primary_b) is Rejoin.CLONE
    assert classify(stopped(), other=primary_b) is Rejoin.CLONE
    assert classify(stopped(control=control(), checkpoint_end=None), other=primary_b) is Rejoin.CLONE


def test_a_lost_slot_alone_is_no_reason_to_clone_while_the_wal_is_there() -> None:
    lost = Slot("ha_node_a", "physical", False, None, "lost", None, False)
    assert (
        classify(old_standby(), other=new_primary(slots=(lost,), oldest_wal=Lsn(0x4000000))) is Rejoin.FOLLOW
    )


def cloning(facts: NodeFacts) -> Rejoin:
    return classify_rejoin(facts, new_primary(), NOW, slot="ha_node_a", cloning=True).kind


def test_a_clone_that_was_begun_goes_on_as_a_clone_until_its_copy_is_complete() -> None:
    assert cloning(old_standby()) is Rejoin.CLONE
    assert cloning(stopped(control=control(), checkpoint_end=None)) is Rejoin.CLONE
    assert cloning(stopped(backup_label_method="streamed", control=control(timeline=3))) is Rejoin.START_ONLY
    assert cloning(standby("node-a", server_changes={"timeline": 3})) is Rejoin.NOTHING


def test_an_ancestor_of_the_same_number_that_forked_elsewhere_is_none() -> None:
    """Both were promoted from timeline 1, apart: their timelines 2 are two."""
    elsewhere = TimelineHistory(2, (Fork(1, Lsn(0x3000000), "x"),))
    assert classify(stopped(history=elsewhere)) is Rejoin.REWIND
    heard_of_more = TimelineHistory(3, (Fork(1, Lsn(0x4000000), "x"), Fork(2, Lsn(0x9000000), "x")))
    assert classify(stopped(history=heard_of_more)) is Rejoin.FOLLOW


def test_an_empty_machine_is_cloned() -> None:
    assert classify(node("node-a")) is Rejoin.CLONE


def test_a_directory_that_could_not_be_looked_at_is_not_an_empty_one() -> None:
    assert classify(node("node-a", problems={"cluster": "did not answer within 4 s"})) is Rejoin.REFUSE


def test_an_unreadable_control_file_is_not_wiped() -> None:
    assert classify(stopped(control=None)) is Rejoin.REFUSE


def test_the_wrong_database_and_the_wrong_major_are_refused() -> None:
    assert classify(stopped(control=control(system_identifier="1"))) is Rejoin.REFUSE
    assert classify(stopped(major=14)) is Rejoin.REFUSE


def test_nothing_is_done_to_a_standby_that_follows() -> None:
    assert classify(standby("node-a", server_changes={"timeline": 3})) is Rejoin.NOTHING


def test_an_old_primary_that_runs_is_stopped_first() -> None:
    assert classify(primary("node-a")) is Rejoin.STOP_FIRST


@pytest.mark.parametrize("other", [standby("node-b"), unreached("node-b"), stopped("node-b")])
def test_without_a_primary_there_is_nothing_to_rejoin(other: NodeFacts) -> None:
    assert classify(stopped(), other=other) is Rejoin.REFUSE


def test_a_node_is_not_rejoined_to_itself() -> None:
    assert classify(primary("node-b")) is Rejoin.REFUSE


def test_a_node_that_is_not_reached_is_refused() -> None:
    assert classify(unreached()) is Rejoin.REFUSE
