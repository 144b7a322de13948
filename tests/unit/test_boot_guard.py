"""May a server that is about to start be a primary? Every answer of a peer, and what was accepted."""

import itertools
from typing import Any

import pytest

from tasks.guard.on_node.guard_promoted import came_true
from tasks.guard.on_node.guard_rules import (
    DOWN,
    FENCE,
    FORGET,
    HOLD,
    NONE,
    PRIMARY,
    PROMOTED,
    PROMOTION_HELD,
    SELF_FENCED,
    SILENT,
    STANDBY,
    START,
    START_HELD,
    STARTING,
    TOLD_TO_PROMOTE,
    YIELD,
    Local,
    Peer,
    Sight,
    judge_start,
    may_resume,
    may_start,
    must_fence,
    must_wait,
    must_yield,
    next_act,
    still_claims,
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


@pytest.mark.parametrize("state", [DOWN, SILENT])
def test_without_a_word_from_the_peer_the_accepted_primary_starts_and_nobody_else(state: str) -> None:
    assert may_start(ME, ACCEPTED, [peer(state)])[0]
    assert not may_start(ME, {"primary": "node-b", "timeline": 4}, [peer(state)])[0]
    assert not may_start(ME, {"primary": "node-b", "timeline": 3}, [peer(state)])[0]


def test_a_peer_that_is_there_and_cannot_be_asked_is_no_consent() -> None:
    """It may be the promoted one, in crash recovery, or with a password that this node does not know."""
    start = judge_start(ME, [ACCEPTED], [peer(STARTING, 0, None)])
    assert (start.allowed, start.transient) == (False, True)
    assert "node-b is there and cannot be asked" in start.why


@pytest.mark.parametrize("timeline", [2, 3])
def test_a_standby_that_was_told_to_promote_itself_is_no_consent(timeline: int) -> None:
    """It answers as a standby for as long as it replays; the old primary was switched on meanwhile, and wrote."""
    told = peer(TOLD_TO_PROMOTE, timeline)
    start = judge_start(ME, [ACCEPTED], [told])
    assert (start.allowed, start.transient) == (False, True)
    assert "node-b was told to promote itself" in start.why
    assert not may_resume(ME, ACCEPTED, [told])
    assert next_act(Sight(True, False, ME, [ACCEPTED], [told], 1e7), None) == (HOLD, start.why)
    for held in (SELF_FENCED, START_HELD):
        assert next_act(Sight(False, False, ME, [ACCEPTED], [told], held=held), 30.0)[0] == NONE
        assert next_act(Sight(False, False, ME, [ACCEPTED], [peer(STANDBY, 3)], held=held), 30.0)[0] == START


def test_what_speaks_of_the_database_before_keeps_no_new_one_from_starting() -> None:
    """Moved away and created or restored anew on the site's own machine: timeline 1, and refused for ever."""
    new = Local("node-a", "99", 1, False)
    theirs = {"primary": "node-b", "timeline": 2, "system_identifier": "77"}
    mine = {"primary": "node-a", "timeline": 2, "system_identifier": "77"}
    assert still_claims(new, [theirs, mine, None]) == ()
    assert still_claims(ME, [theirs, None]) == (theirs,)
    undated = {"primary": "node-b", "timeline": 3}
    assert still_claims(ME, [undated]) == (undated,), "a record that names no database is of this one"


def test_only_where_a_restore_went_back_the_acceptance_of_before_says_nothing() -> None:
    old = Local("node-a", "77", 3, False)
    before = {"primary": "node-b", "timeline": 5, "system_identifier": "77", "term": 4}
    assert still_claims(old, [None, before], {"over": before}) == ()
    assert still_claims(old, [None, {**before, "term": 9}], {"over": before}) != (), (
        "promoted after the restore"
    )
    assert still_claims(Local("node-c", "77", 3, False), [before]) == (before,)


def test_an_old_machine_stays_down_beside_a_site_that_was_restored() -> None:
    restored = {"system_identifier": "99", "node": "node-c"}
    start = judge_start(ME, [ACCEPTED], [peer(SILENT)], restored=restored)
    assert (start.allowed, start.transient) == (False, False)
    assert "restored on node-c as the database 99" in start.why
    assert "restored.json" in start.why
    assert next_act(Sight(True, False, ME, [ACCEPTED], [], 1e7, restored=restored), None)[0] == FENCE
    for held in (SELF_FENCED, START_HELD):
        stopped = Sight(False, False, ME, [ACCEPTED], [], held=held, restored=restored)
        assert next_act(stopped, 30.0)[0] == NONE
        assert next_act(stopped._replace(restored=None), 30.0)[0] == START, "a person has removed the record"
    assert judge_start(ME, [ACCEPTED], [], restored={**restored, "system_identifier": "77"}).allowed


def test_one_of_another_database_that_was_told_to_promote_itself_holds_nobody_back() -> None:
    assert must_wait(ME, [peer(TOLD_TO_PROMOTE, 3, "other")]) is None
    assert not judge_start(ME, [], [peer(TOLD_TO_PROMOTE, 4)]).transient, "it follows a newer timeline"


def test_with_a_self_fence_an_isolated_node_does_not_start_as_a_primary() -> None:
    start = judge_start(ME, [ACCEPTED], [peer(SILENT)], alone=True)
    assert (start.allowed, start.transient) == (False, True)
    assert may_start(ME, ACCEPTED, [peer(SILENT)], alone=False)[0]
    assert may_start(ME, ACCEPTED, [peer(SILENT)])[0], "a power cut of the whole site"


def test_what_only_a_rejoin_cures_is_not_called_transient() -> None:
    for peers, claims in (
        ([peer(PRIMARY, 4)], []),
        ([peer(STARTING)], [{"primary": "node-b", "timeline": 3}]),
    ):
        start = judge_start(ME, claims, peers, alone=True)
        assert (start.allowed, start.transient) == (False, False)


def test_the_record_on_the_nas_counts_as_the_own_one_does() -> None:
    newer = {"primary": "node-b", "timeline": 4, "system_identifier": "77"}
    assert not judge_start(ME, [ACCEPTED, newer], [peer(SILENT)]).allowed
    assert not may_resume(ME, ACCEPTED, [peer(STANDBY, 3)], [newer])


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
    assert must_yield(ME, 3600.0, [peer(PRIMARY, 4)], [ACCEPTED]) is None
    assert must_yield(ME, 5.0, [peer(PRIMARY, 3)]) is None


def test_a_primary_that_an_operation_has_promoted_is_yielded_to_at_any_age_whoever_accepted_it() -> None:
    # The NAS was away, and the run that had asked for the promotion was gone before it came true.
    assert must_yield(ME, 1e7, [peer(PROMOTED, 4)], [ACCEPTED])
    assert must_yield(ME, 1e7, [peer(PROMOTED, 3)], [ACCEPTED]) is None
    assert must_yield(ME, 1e7, [peer(PROMOTED, 4, "other")], [ACCEPTED]) is None
    assert not may_start(ME, ACCEPTED, [peer(PROMOTED, 4)])[0]
    assert not may_resume(ME, ACCEPTED, [peer(PROMOTED, 4)])


def test_of_two_acceptances_on_one_timeline_the_one_with_the_later_term_counts() -> None:
    # A third node was told to promote itself before, could not be reached, and came true after this one.
    mine = {"primary": "node-a", "timeline": 3, "term": 6, "system_identifier": "77"}
    theirs = {"primary": "node-b", "timeline": 3, "term": 5, "system_identifier": "77"}
    assert must_yield(ME, 1e7, [], [mine, theirs]) is None
    assert judge_start(ME, [mine, theirs], []).allowed
    assert must_yield(ME, 1e7, [], [mine, {**theirs, "term": 7}])
    assert not judge_start(ME, [mine, {**theirs, "term": 7}], []).allowed


def test_a_start_that_waits_for_a_promotion_goes_on_waiting_while_nothing_is_heard_of_it() -> None:
    # The standby was cut off, and the old primary started and took clients' writes beside it.
    for state, act in ((SILENT, NONE), (STARTING, NONE), (DOWN, START), (STANDBY, START), (PROMOTED, NONE)):
        seen = Sight(False, False, ME, [ACCEPTED], [peer(state, 4 if state == PROMOTED else 3)])
        assert next_act(seen._replace(held=PROMOTION_HELD), None)[0] == act, state
    alone = Sight(False, False, ME, [ACCEPTED], [peer(SILENT)], held=START_HELD)
    assert next_act(alone, None)[0] == START


ASKED = {"node": "node-b", "term": 5, "from_timeline": 3, "system_identifier": "77"}


@pytest.mark.parametrize("state", [SILENT, DOWN, STARTING])
def test_what_the_nas_says_of_a_promotion_holds_whoever_cannot_ask_for_itself(state: str) -> None:
    """It was switched on while the other one replayed, cut off from it, and nothing else spoke against its start."""
    start = judge_start(ME, [ACCEPTED], [peer(state)], asked=ASKED)
    assert (start.allowed, start.transient, start.told) == (False, True, True)
    assert "the NAS says that node-b was told to promote itself" in start.why
    running = Sight(True, False, ME, [ACCEPTED], [peer(state)], 1e7, asked=ASKED)
    assert next_act(running, None)[0] == HOLD
    for held in (SELF_FENCED, START_HELD, PROMOTION_HELD):
        assert next_act(running._replace(running=False, held=held), 30.0)[0] == NONE


@pytest.mark.parametrize(
    ("asked", "claims", "other"),
    [
        (ASKED, [ACCEPTED], peer(STANDBY, 3)),
        (ASKED, [{**ACCEPTED, "term": 5}], peer(SILENT)),
        (ASKED, [{**ACCEPTED, "term": 6}], peer(SILENT)),
        ({**ASKED, "from_timeline": 2}, [ACCEPTED], peer(SILENT)),
        ({**ASKED, "node": "node-a"}, [ACCEPTED], peer(SILENT)),
        ({**ASKED, "system_identifier": "55"}, [ACCEPTED], peer(SILENT)),
        (None, [ACCEPTED], peer(SILENT)),
    ],
    ids=[
        "forgotten",
        "accepted by it",
        "accepted later",
        "before this timeline",
        "its own",
        "another's",
        "none",
    ],
)
def test_a_promotion_of_which_it_is_known_what_became_holds_nobody(
    asked: dict[str, Any] | None, claims: list[dict[str, Any] | None], other: Peer
) -> None:
    assert judge_start(ME, claims, [other], asked=asked).allowed
    assert must_wait(ME, [other], asked, claims) is None


NOTE = {"term": 5, "from_timeline": 2, "system_identifier": "77"}


@pytest.mark.parametrize(
    ("note", "own", "serves", "accepted"),
    [
        (NOTE, None, (3, "77"), (3, 5, "77")),
        (NOTE, {"timeline": 2, "term": 4, "system_identifier": "77"}, (3, "77"), (3, 5, "77")),
        (NOTE, {"timeline": 9, "term": 9, "system_identifier": "55"}, (3, "77"), (3, 5, "77")),
        (NOTE, {"timeline": 3, "term": 5, "system_identifier": "77"}, (3, "77"), None),
        (NOTE, {"timeline": 2, "term": 6, "system_identifier": "77"}, (3, "77"), None),
        (NOTE, None, (2, "77"), None),
        (NOTE, None, (3, "55"), None),
        (NOTE, None, None, None),
        ({"operation": "op-1"}, None, (3, "77"), None),
        (None, None, (3, "77"), None),
    ],
)
def test_a_node_accepts_itself_only_for_what_it_was_told_and_nobody_has_decided_since(
    note: dict[str, Any] | None, own: dict[str, Any] | None, serves: Any, accepted: Any
) -> None:
    assert came_true(note, own, serves) == accepted


@pytest.mark.parametrize("running_s", [5.0, 121.0, 1e7])
def test_whoever_was_accepted_on_this_timeline_or_a_newer_one_is_yielded_to_at_any_age(
    running_s: float,
) -> None:
    for timeline, yields in ((2, False), (3, True), (4, True)):
        claim = {"primary": "node-b", "timeline": timeline, "system_identifier": "77"}
        assert bool(must_yield(ME, running_s, [], [ACCEPTED, claim])) is yields
        assert must_yield(ME, running_s, [], [{**claim, "system_identifier": "other"}]) is None
        assert must_yield(ME, running_s, [], [{**claim, "primary": "node-a"}]) is None
    # Accepted once, and promoted again since by a hand: the record is older than this node's timeline.
    older = {"primary": "node-b", "timeline": 2, "system_identifier": "77"}
    assert must_yield(ME, 1e7, [peer(PRIMARY, 4)], [older])


def test_a_just_promoted_standby_does_not_yield_to_the_record_of_its_predecessor() -> None:
    promoted = Local("node-b", "77", 4, False)
    assert must_yield(promoted, 1e7, [Peer("node-a", PRIMARY, "77", 3)], [ACCEPTED]) is None


def test_the_self_fence_counts_silence_and_nothing_else() -> None:
    assert must_fence(29.9, 30) is None
    assert must_fence(30.0, 30) == "no witness has answered for 30 s"
    assert must_fence(1e9, None) is None


def test_after_a_self_fence_it_starts_again_only_when_every_peer_answers_and_none_took_over() -> None:
    assert may_resume(ME, ACCEPTED, [peer(STANDBY, 3)])
    assert not may_resume(ME, ACCEPTED, [peer(SILENT)])
    assert not may_resume(ME, ACCEPTED, [peer(STARTING)])
    assert not may_resume(ME, ACCEPTED, [peer(PRIMARY, 4)])


def sights() -> list[Sight]:
    claims: list[list[dict[str, Any] | None]] = [[None], [ACCEPTED]]
    claims += [[ACCEPTED, {"primary": "node-b", "timeline": t, "system_identifier": "77"}] for t in (2, 3, 4)]
    peers = [[peer(s, t)] for s in (PRIMARY, STANDBY, TOLD_TO_PROMOTE) for t in (3, 4)]
    peers += [[peer(s)] for s in (DOWN, SILENT)]
    return [
        Sight(running, signal, here, claim, seen, age, silent_s, held)
        for running, signal, here, claim, seen, age, silent_s, held in itertools.product(
            (True, False),
            (True, False, None),
            (ME, None),
            claims,
            [*peers, [peer(STARTING, 0, None)]],
            (1.0, 1e7),
            (0.0, 1.0, 60.0),
            (None, SELF_FENCED, START_HELD),
        )
    ]


@pytest.mark.parametrize("self_fence_s", [None, 30.0])
def test_whatever_the_guard_sees_it_stops_no_standby_and_starts_nothing_that_may_not_start(
    self_fence_s: float | None,
) -> None:
    taken = set()
    for sight in sights():
        act, why = next_act(sight, self_fence_s)
        taken.add(act)
        assert (act == NONE) == (why == "")
        if sight.signal:
            assert act in (NONE, FORGET), sight
        if act in (YIELD, FENCE, HOLD):
            assert sight.running
        if act == START:
            assert not sight.running
            assert sight.held
            assert sight.local is not None
            assert judge_start(sight.local, sight.claims, sight.peers).allowed
            assert self_fence_s is None or sight.silent_s == 0.0
        if act == NONE and sight.running and not sight.signal and self_fence_s is not None:
            assert sight.silent_s < self_fence_s, "an isolated primary goes on"
    assert taken == {NONE, YIELD, HOLD, START, FORGET} | ({FENCE} if self_fence_s is not None else set())


def test_a_role_that_could_never_be_looked_at_does_not_keep_an_isolated_server_running() -> None:
    assert next_act(Sight(True, None, silent_s=31.0), 30)[0] == FENCE
    assert next_act(Sight(True, True, silent_s=31.0), 30)[0] == NONE


def test_nobody_is_started_who_was_not_stopped_by_the_guard() -> None:
    assert next_act(Sight(False, False, ME, [ACCEPTED], [peer(STANDBY, 3)]), None)[0] == NONE
