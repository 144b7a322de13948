"""May a server that is about to start be a primary? Every answer of a peer, and what was accepted."""

import itertools
from typing import Any

import pytest

from tasks.guard.on_node.guard_rules import (
    DOWN,
    PRIMARY,
    SILENT,
    STANDBY,
    STARTING,
    Local,
    Peer,
    may_resume,
    may_start,
    must_yield,
)

ME = Local("node-a", "77", 3, False)
ACCEPTED = {"primary": "node-a", "timeline": 3, "system_identifier": "77"}


def peer(state: str, timeline: int = 0, sysid: str | None = "77") -> Peer:
    return Peer("node-b", state, sysid, timeline)


def test_a_former_primary_does_not_start_beside_the_promoted_one() -> None:
    allowed, why = may_start(ME, ACCEPTED, [peer(PRIMARY, 4)])
    assert not allowed
    assert "node-b is the primary on timeline 4" in why


def test_two_primaries_on_the_same_timeline_are_no_better() -> None:
    assert not may_start(ME, ACCEPTED, [peer(PRIMARY, 3)])[0]


def test_the_promoted_one_starts_although_the_former_primary_runs() -> None:
    assert may_start(ME, ACCEPTED, [peer(PRIMARY, 2)])[0]


def test_a_peer_that_follows_a_newer_timeline_tells_of_a_promotion_that_was_missed() -> None:
    assert not may_start(ME, ACCEPTED, [peer(STANDBY, 4)])[0]
    assert may_start(ME, ACCEPTED, [peer(STANDBY, 3)])[0]


def test_a_standby_always_starts() -> None:
    assert may_start(ME._replace(standby_signal=True), None, [peer(PRIMARY, 9)])[0]


@pytest.mark.parametrize("state", [DOWN, SILENT, STARTING])
def test_without_a_word_from_the_peer_the_accepted_primary_starts_and_nobody_else(state: str) -> None:
    assert may_start(ME, ACCEPTED, [peer(state)])[0]
    assert not may_start(ME, {"primary": "node-b", "timeline": 4}, [peer(state)])[0]
    assert not may_start(ME, {"primary": "node-b", "timeline": 3}, [peer(state)])[0]


def test_an_acceptance_from_before_the_own_promotion_does_not_count() -> None:
    assert may_start(ME, {"primary": "node-b", "timeline": 2}, [peer(DOWN)])[0]


def test_an_old_copy_of_the_own_data_does_not_start() -> None:
    assert not may_start(ME, {**ACCEPTED, "timeline": 5}, [peer(DOWN)])[0]


def test_another_database_on_the_peer_says_nothing() -> None:
    assert may_start(ME, ACCEPTED, [peer(PRIMARY, 9, "other")])[0]


def test_a_site_that_never_accepted_a_primary_starts() -> None:
    assert may_start(ME, None, [peer(SILENT)])[0]


def test_of_two_nodes_of_one_cluster_never_both_start_once_they_see_each_other() -> None:
    """Whatever was accepted and whichever timelines they have: the one that looks second is refused."""
    acceptances: list[dict[str, Any] | None] = [None]
    acceptances += [{"primary": n, "timeline": t} for n in ("node-a", "node-b") for t in (2, 3, 4)]
    for mine, theirs, accepted in itertools.product((2, 3, 4), (2, 3, 4), acceptances):
        me, other = ME._replace(timeline=mine), Peer("node-b", PRIMARY, "77", theirs)
        if may_start(me, accepted, [other])[0]:
            # Only a newer timeline gets past a running primary; that one's guard watch then stops it.
            assert mine > theirs
            back = Local("node-b", "77", theirs, False)
            assert must_yield(back, 5.0, [Peer("node-a", PRIMARY, "77", mine)])


def test_a_primary_of_long_standing_does_not_yield_to_one_that_somebody_made() -> None:
    assert must_yield(ME, 5.0, [peer(PRIMARY, 4)])
    assert must_yield(ME, 3600.0, [peer(PRIMARY, 4)]) is None
    assert must_yield(ME, 5.0, [peer(PRIMARY, 3)]) is None


def test_after_a_self_fence_it_starts_again_only_when_every_peer_answers_and_none_took_over() -> None:
    assert may_resume(ME, ACCEPTED, [peer(STANDBY, 3)])
    assert not may_resume(ME, ACCEPTED, [peer(SILENT)])
    assert not may_resume(ME, ACCEPTED, [peer(STARTING)])
    assert not may_resume(ME, ACCEPTED, [peer(PRIMARY, 4)])
