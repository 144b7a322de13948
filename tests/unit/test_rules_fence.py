"""The fencing ladder and the last look."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from flows.rules.fence import (
    FENCE_RULES,
    SUFFICIENT,
    Command,
    FenceView,
    Rung,
    SelfFence,
    choose_fence,
    held,
)
from flows.rules.last_look import LAST_LOOK_RULES, LastLook, LastLookView, last_look
from flows.rules.policy import Policy
from flows.rules.primary import Contact, Other, Server
from flows.rules.table import Decision, FactsTooOld, first_match
from tasks.clock import Moment
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import (
    NOW,
    deaf_standby,
    node,
    primary,
    standby,
    stopped,
    unreached,
    witnesses,
)

BOTH = (False, True)
FENCE_VIEWS = [
    FenceView(*row)
    for row in itertools.product(Server, BOTH, Other, Contact, Command, SelfFence, BOTH, BOTH, BOTH)
]
# What becomes of it when SSH has failed, or the command has just confirmed; few of the other things play a part.
FENCE_VIEWS += [
    replace(view, ssh_failed=failed, just_off=off)
    for view in FENCE_VIEWS
    if view.self_fence is SelfFence.NONE and not view.witnesses_suffice
    for failed, off in ((True, False), (False, True), (True, True))
]
FENCE_VIEWS += [
    replace(view, unresponsive=True)
    for view in FENCE_VIEWS
    if view.server is Server.UNSEEN and view.self_fence is SelfFence.NONE and not view.witnesses_suffice
]
LOOK_VIEWS = [LastLookView(*row) for row in itertools.product(Rung, Server, BOTH, Other, Contact, BOTH)]
CONFIRMED, WITNESSES = Policy(), Policy(fencing="witnesses")


def choose(policy: Policy, node_a: NodeFacts | None = None, **options: Any) -> Decision[Rung]:
    seen = options.pop("seen", witnesses())
    other = options.pop("other", deaf_standby())
    return choose_fence(node_a or unreached(), (other,), seen, policy, NOW, **options)


def test_every_combination_has_exactly_one_rung() -> None:
    for view in FENCE_VIEWS:
        assert first_match(FENCE_RULES, view).kind in Rung


def test_every_rule_of_the_ladder_can_be_reached() -> None:
    assert {first_match(FENCE_RULES, view).rule for view in FENCE_VIEWS} == {r.name for r in FENCE_RULES}


def test_no_sufficient_rung_while_the_standby_hears_it_or_somebody_sees_it() -> None:
    for view in FENCE_VIEWS:
        if view.server is Server.UNSEEN and (view.other is Other.HEARS or view.contact is Contact.SEEN):
            assert first_match(FENCE_RULES, view).kind not in SUFFICIENT


def test_a_machine_that_is_only_out_of_sight_is_never_switched_off_while_somebody_sees_it() -> None:
    for view in FENCE_VIEWS:
        seen = view.other is Other.HEARS or view.contact is Contact.SEEN
        if view.server is Server.UNSEEN and seen and not view.ssh_failed and not view.hangs:
            assert first_match(FENCE_RULES, view).kind is not Rung.COMMAND


def test_a_reached_primary_is_never_fenced_on_anybodys_word() -> None:
    for view in FENCE_VIEWS:
        if view.reached:
            kind = first_match(FENCE_RULES, view).kind
            assert kind in (Rung.SSH, Rung.STOPPED, Rung.REFUSE, Rung.COMMAND)
            assert kind is not Rung.COMMAND or view.ssh_failed


def test_with_another_primary_every_rung_is_refused_even_attested() -> None:
    for view in FENCE_VIEWS:
        if view.other is Other.PRIMARY:
            assert first_match(FENCE_RULES, view).kind is Rung.REFUSE


def test_the_policy_confirmed_never_rests_on_witnesses_alone() -> None:
    for view in FENCE_VIEWS:
        if not view.witnesses_suffice:
            assert first_match(FENCE_RULES, view).kind is not Rung.WITNESSES


def test_nothing_but_a_proof_or_a_word_of_the_operator_replaces_the_drain() -> None:
    for view in FENCE_VIEWS:
        if not view.drained:
            assert first_match(FENCE_RULES, view).kind not in (Rung.WITNESSES, Rung.SELF_FENCE)


def test_a_primary_on_a_living_host_is_stopped_over_ssh() -> None:
    assert choose(CONFIRMED, primary(), other=standby()).kind is Rung.SSH


def test_stopped_is_not_fenced_before_it_is_held() -> None:
    assert choose(CONFIRMED, stopped()).kind is Rung.SSH
    assert choose(CONFIRMED, stopped(held=True)).kind is Rung.STOPPED


def test_a_mask_without_standby_signal_does_not_hold() -> None:
    assert not held(replace(stopped(held=True), cluster=stopped().cluster))


def test_standby_signal_without_a_mask_or_start_conf_does_not_hold() -> None:
    assert not held(replace(stopped(held=True), masked=False, start_conf="auto"))


def test_a_missing_data_disk_holds_only_with_the_unit_masked() -> None:
    assert not held(node("node-a", cluster=None, start_conf="disabled"))
    assert held(node("node-a", cluster=None, masked=True))


def test_the_clouds_stop_call_comes_before_witnesses() -> None:
    policy = replace(WITNESSES, has_fence_command=True)
    assert choose(policy).kind is Rung.COMMAND
    assert choose(policy, command=Command.CONFIRMED).kind is Rung.COMMANDED
    assert choose(policy, command=Command.FAILED).kind is Rung.WITNESSES


def test_a_living_primary_is_not_switched_off_for_a_cut_cable() -> None:
    policy = replace(CONFIRMED, has_fence_command=True)
    assert choose(policy, other=standby()).kind is Rung.REFUSE


def test_confirmed_refuses_a_silent_machine_and_says_exactly_what_to_attest() -> None:
    decision = choose(CONFIRMED)
    assert decision.kind is Rung.REFUSE
    assert "attest_fenced=true" in decision.remedies[0]
    assert "the machine node-a is off" in decision.remedies[0]


def test_attested_is_enough_where_nothing_contradicts() -> None:
    assert choose(CONFIRMED, attest_fenced=True).kind is Rung.ATTESTED
    assert choose(CONFIRMED, attest_fenced=True, seen=witnesses(redis_connected=None)).kind is Rung.ATTESTED


def test_attested_is_not_believed_against_a_standby_that_hears_it() -> None:
    assert choose(CONFIRMED, attest_fenced=True, other=standby()).kind is Rung.REFUSE


def test_attested_is_not_believed_against_an_open_port() -> None:
    seen = witnesses(tcp={"node-b": "open"})
    assert choose(CONFIRMED, attest_fenced=True, seen=seen).kind is Rung.REFUSE


def test_witnesses_suffice_only_after_the_drain() -> None:
    assert choose(WITNESSES, seen=witnesses(balancer_drained=False)).kind is Rung.DRAIN
    assert choose(WITNESSES).kind is Rung.WITNESSES


@pytest.mark.parametrize("gap", [{"balancer_up": None}, {"redis_connected": None}, {"mute": ("node-c",)}])
def test_one_missing_witness_is_enough_to_refuse(gap: dict[str, object]) -> None:
    assert choose(WITNESSES, seen=witnesses(**gap)).kind is Rung.REFUSE


def test_the_self_fence_is_waited_for_with_its_margin() -> None:
    pending = choose(CONFIRMED, silent_for_s=12.0, self_fence_seen_s=20.0)
    assert pending.kind is Rung.WAIT
    assert pending.evidence["wait_s"] == 18.0
    assert choose(CONFIRMED, silent_for_s=None, self_fence_seen_s=20.0).evidence["wait_s"] == 30.0
    assert choose(CONFIRMED, silent_for_s=30.0, self_fence_seen_s=20.0).kind is Rung.SELF_FENCE


def test_the_self_fence_counts_with_what_was_seen_on_the_node_and_not_with_the_site_file() -> None:
    policy = replace(CONFIRMED, self_fence_s=20)
    assert choose(policy, silent_for_s=1e6).kind is Rung.REFUSE, "no guard with a limit was ever seen there"
    assert choose(policy, silent_for_s=30.0, self_fence_seen_s=60.0).kind is Rung.WAIT


def test_every_last_look_has_exactly_one_result() -> None:
    for view in LOOK_VIEWS:
        assert first_match(LAST_LOOK_RULES, view).kind in LastLook


def test_every_rule_of_the_last_look_can_be_reached() -> None:
    assert {first_match(LAST_LOOK_RULES, v).rule for v in LOOK_VIEWS} == {r.name for r in LAST_LOOK_RULES}


def test_nothing_is_promoted_without_a_sufficient_rung() -> None:
    for view in LOOK_VIEWS:
        if view.rung not in SUFFICIENT:
            assert first_match(LAST_LOOK_RULES, view).kind is not LastLook.PROMOTE


def test_nothing_is_promoted_beside_a_running_primary() -> None:
    for view in LOOK_VIEWS:
        if view.server in (Server.WRITABLE, Server.READ_ONLY, Server.HUNG):
            assert first_match(LAST_LOOK_RULES, view).kind is not LastLook.PROMOTE


def test_nothing_is_promoted_while_the_standby_hears_a_primary_that_is_not_seen_stopped() -> None:
    for view in LOOK_VIEWS:
        if view.other is Other.HEARS and view.server is Server.UNSEEN:
            assert first_match(LAST_LOOK_RULES, view).kind is LastLook.ABORT


def test_a_primary_that_woke_up_after_the_fence_is_fenced_again() -> None:
    decision = last_look(Rung.WITNESSES, primary(), deaf_standby(), witnesses(), NOW, fence_age_s=1.0)
    assert decision.kind is LastLook.FENCE_AGAIN


def test_a_witness_that_sees_it_again_stops_the_promotion() -> None:
    seen = witnesses(tcp={"node-b": "open"})
    assert (
        last_look(Rung.COMMANDED, unreached(), deaf_standby(), seen, NOW, fence_age_s=1.0).kind
        is LastLook.ABORT
    )


def test_a_fence_of_before_a_stall_is_not_believed_though_the_machine_is_still_lost_to_all() -> None:
    ask = (Rung.COMMANDED, unreached(), deaf_standby(), witnesses(), NOW)
    assert last_look(*ask, fence_age_s=119.0).kind is LastLook.PROMOTE
    assert last_look(*ask, fence_age_s=121.0).rule == "worn"


def test_the_last_look_takes_no_facts_from_before_a_stall() -> None:
    stale = replace(deaf_standby(), observed_at=Moment(NOW.monotonic - 9, NOW.wall - 9))
    with pytest.raises(FactsTooOld, match="node-b"):
        last_look(Rung.STOPPED, stopped(held=True), stale, witnesses(), NOW, fence_age_s=1.0)
