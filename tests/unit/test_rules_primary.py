"""Is the primary dead, ill, or only out of sight?"""

import itertools
from dataclasses import replace

import pytest

from flows.rules.primary import (
    PRIMARY_RULES,
    Contact,
    Other,
    Primary,
    PrimaryView,
    Server,
    agreed,
    classify_primary,
)
from flows.rules.restart import RESTART_RULES, Restart, RestartView, how_to_restart
from flows.rules.table import Decision, FactsTooOld, first_match
from tasks.clock import Moment
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import Disk, NodeFacts
from tasks.postgres.lsn import Lsn
from tests.unit.facts_builder import (
    NOW,
    cluster,
    control,
    deaf_standby,
    node,
    primary,
    receiver,
    standby,
    stopped,
    unreached,
    witnesses,
)

ALL_VIEWS = [PrimaryView(*row) for row in itertools.product(Server, Other, Contact, (False, True))]


def classify(node_a: NodeFacts, node_b: NodeFacts, seen: Witnesses | None = None) -> Decision[Primary]:
    return classify_primary(node_a, [node_b], seen or witnesses(), NOW)


@pytest.mark.parametrize("view", ALL_VIEWS, ids=str)
def test_every_combination_has_exactly_one_decision(view: PrimaryView) -> None:
    decision = first_match(PRIMARY_RULES, view)
    assert "{" not in decision.reasons[0]


def test_every_rule_can_be_reached() -> None:
    reached = {first_match(PRIMARY_RULES, view).rule for view in ALL_VIEWS}
    assert reached == {rule.name for rule in PRIMARY_RULES}


def test_it_is_never_called_gone_while_anybody_sees_it_or_could_not_be_asked() -> None:
    gone = [view for view in ALL_VIEWS if first_match(PRIMARY_RULES, view).kind is Primary.GONE]
    assert {(view.server, view.other, view.contact) for view in gone} == {
        (Server.UNSEEN, Other.SILENT, Contact.LOST)
    }


def test_two_primaries_are_always_a_split_brain() -> None:
    running = (Server.WRITABLE, Server.READ_ONLY, Server.HUNG)
    views = [view for view in ALL_VIEWS if view.other is Other.PRIMARY and view.server in running]
    assert {first_match(PRIMARY_RULES, view).kind for view in views} == {Primary.SPLIT_BRAIN}


def test_a_primary_that_answers_is_healthy_whatever_the_alert_said() -> None:
    assert classify(primary(), standby()).kind is Primary.HEALTHY


def test_the_path_through_the_other_node_is_as_good_as_the_direct_one() -> None:
    assert classify(primary(reachable_by=("via node-b",)), standby()).kind is Primary.HEALTHY


@pytest.mark.parametrize(
    ("timeout_s", "age_s", "hears"),
    [(5.0, 3.9, True), (5.0, 4.1, False), (10.0, 7.9, True), (None, 7.9, True), (None, 8.1, False)],
)
def test_a_standby_speaks_for_its_primary_no_longer_than_its_receiver_would_wait(
    timeout_s: float | None, age_s: float, hears: bool
) -> None:
    heard = receiver(message_age_s=age_s, timeout_s=timeout_s)
    assert heard.fresh is hears


def test_a_killed_postgresql_on_a_living_host() -> None:
    assert classify(stopped(), deaf_standby()).kind is Primary.DOWN_HOST_UP


def test_a_postmaster_that_hangs() -> None:
    hung = node("node-a", cluster=cluster(), problems={"server": "psql did not answer within 4 s"})
    decision = classify(hung, standby())
    assert decision.kind is Primary.HUNG
    assert "psql did not answer within 4 s" in decision.reasons[0]


def test_a_read_only_file_system_is_broken_even_while_queries_are_answered() -> None:
    assert classify(primary(cluster=cluster(writable=False)), standby()).kind is Primary.BROKEN


def test_a_full_disk_is_not_worth_a_restart() -> None:
    full = replace(stopped(), data_disk=Disk(100 << 30, 1 << 20))
    decision = classify(full, deaf_standby())
    assert decision.kind is Primary.BROKEN
    assert "full" in decision.reasons[0]


def test_a_look_at_the_data_directory_that_failed_is_no_empty_directory() -> None:
    blind = node("node-a", problems={"cluster": "did not answer within 4 s"})
    assert classify(blind, deaf_standby()).kind is Primary.HUNG


def test_a_cut_between_orchestrator_and_primary_is_a_false_alarm() -> None:
    decision = classify(unreached(), standby())
    assert decision.kind is Primary.CONTROL_PARTITION
    assert "alive" in decision.reasons[0]


def test_the_other_harbor_that_still_reaches_it_is_a_veto() -> None:
    seen = witnesses(tcp={"orchestrator": "silent", "node-b": "open"})
    decision = classify(unreached(), deaf_standby(), seen)
    assert decision.kind is Primary.WRITERS_ATTACHED
    assert "node-b can open its PostgreSQL port" in decision.reasons[0]


@pytest.mark.parametrize("sighting", [{"balancer_up": True}, {"redis_connected": True}])
def test_the_load_balancer_and_redis_are_vetoes_too(sighting: dict[str, bool]) -> None:
    assert classify(unreached(), deaf_standby(), witnesses(**sighting)).kind is Primary.WRITERS_ATTACHED


@pytest.mark.parametrize("gap", [{"balancer_up": None}, {"redis_connected": None}, {"mute": ("node-c",)}])
def test_a_witness_that_cannot_be_asked_leaves_it_ambiguous(gap: dict[str, object]) -> None:
    assert classify(unreached(), deaf_standby(), witnesses(**gap)).kind is Primary.AMBIGUOUS


HANDSHAKES: dict[str, object] = {"tcp": {"the orchestrator": "open", "node-b": "open"}}


@pytest.mark.parametrize(
    "also",
    [{}, {"balancer_up": True, "balancer_only_connects": True}],
    ids=["ports", "a check that connects"],
)
def test_a_machine_of_which_only_the_kernel_answers_is_unresponsive_when_clients_cannot_write(
    also: dict[str, object],
) -> None:
    """A hung machine completes handshakes: it was taken for one with writers attached, for ever."""
    seen = witnesses(**{**HANDSHAKES, **also})
    found = classify_primary(unreached(), [deaf_standby()], seen, NOW, unresponsive=True)
    assert found.kind is Primary.UNRESPONSIVE
    assert "switch node-a off" in found.remedies[0]
    assert classify(unreached(), deaf_standby(), seen).kind is Primary.WRITERS_ATTACHED


@pytest.mark.parametrize(
    "more",
    [{"balancer_up": True}, {"redis_connected": True}, {"redis_connected": None}, {"mute": ("node-c",)}],
)
def test_whoever_sees_more_than_a_handshake_or_was_not_asked_keeps_it_from_being_called_unresponsive(
    more: dict[str, object],
) -> None:
    seen = witnesses(**{**HANDSHAKES, **more})
    found = classify_primary(unreached(), [deaf_standby()], seen, NOW, unresponsive=True)
    assert found.kind is Primary.WRITERS_ATTACHED


def test_a_machine_that_the_standby_hears_is_never_called_unresponsive() -> None:
    found = classify_primary(unreached(), [standby()], witnesses(**HANDSHAKES), NOW, unresponsive=True)
    assert found.kind is Primary.CONTROL_PARTITION


def test_a_site_without_a_load_balancer_does_not_wait_for_its_word() -> None:
    seen = witnesses(balancer_up=None, has_balancer=False)
    assert classify(unreached(), deaf_standby(), seen).kind is Primary.GONE


def test_an_orchestrator_that_reaches_nobody_suspects_itself() -> None:
    decision = classify(unreached(), unreached("node-b"))
    assert decision.kind is Primary.AMBIGUOUS
    assert "orchestrator" in decision.remedies[0]


def test_a_power_cut_is_gone() -> None:
    assert classify(unreached(), deaf_standby()).kind is Primary.GONE


def test_after_the_promotion_nothing_is_left_to_do() -> None:
    assert classify(unreached(), primary("node-b")).kind is Primary.ALREADY_PROMOTED
    assert classify(standby("node-a"), primary("node-b")).kind is Primary.ALREADY_PROMOTED


def test_a_hanging_standby_is_not_mistaken_for_a_hanging_primary() -> None:
    hung = node("node-a", cluster=cluster(standby_signal=True))
    assert classify(hung, primary("node-b")).kind is Primary.ALREADY_PROMOTED


def test_old_facts_and_old_witnesses_are_refused() -> None:
    old = Moment(NOW.monotonic - 60, NOW.wall - 60)
    with pytest.raises(FactsTooOld, match="node-a"):
        classify(replace(unreached(), observed_at=old), deaf_standby())
    with pytest.raises(FactsTooOld, match="witnesses"):
        classify(unreached(), deaf_standby(), witnesses(observed_at=old))


def test_one_healthy_round_of_three_is_healthy() -> None:
    gone, healthy = classify(unreached(), deaf_standby()), classify(primary(), standby())
    assert agreed([gone, healthy, gone]).kind is Primary.HEALTHY


def test_rounds_that_differ_are_ambiguous() -> None:
    gone, down = classify(unreached(), deaf_standby()), classify(stopped(), deaf_standby())
    assert agreed([gone, gone]).kind is Primary.GONE
    assert agreed([gone, down]).kind is Primary.AMBIGUOUS


def test_no_round_is_no_decision() -> None:
    with pytest.raises(ValueError, match="no round"):
        agreed([])


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"postmaster_status": "starting"}, {}),
        ({"control": control(state="in crash recovery")}, {}),
        ({}, {"server": "psql: error: FATAL:  the database system is starting up"}),
    ],
)
def test_a_server_in_crash_recovery_is_no_hung_one(
    changes: dict[str, object], problems: dict[str, str]
) -> None:
    """It was sent SIGQUIT in its recovery, which then began anew."""
    facts = node("node-a", cluster=cluster(**changes), problems=problems)
    assert classify(facts, deaf_standby()).kind is Primary.STARTING


def test_a_server_that_is_stopping_is_not_starting() -> None:
    facts = node("node-a", cluster=cluster(postmaster_status="stopping"))
    assert classify(facts, deaf_standby()).kind is Primary.HUNG


def restart(facts: NodeFacts, *looks: NodeFacts) -> Restart:
    """How a server is brought back, with the standby's looks, oldest first."""
    return how_to_restart(facts, looks[-1:], looks[:-1]).kind


def test_every_rule_of_a_restart_can_be_reached() -> None:
    views = [RestartView(*row) for row in itertools.product(Server, (False, True), (False, True))]
    assert {first_match(RESTART_RULES, v).rule for v in views} == {r.name for r in RESTART_RULES}


def test_a_primary_that_is_heard_or_whose_wal_advances_is_waited_for_before_it_is_stopped() -> None:
    hung = node("node-a", cluster=cluster())
    later = deaf_standby(receive_lsn=Lsn(0x6000100))
    assert restart(hung, standby(), standby()) is Restart.PATIENCE
    assert restart(hung, deaf_standby(), later) is Restart.PATIENCE
    assert restart(hung, deaf_standby(), deaf_standby()) is Restart.STOP
    assert restart(node("node-a", cluster=cluster(postmaster_status="starting")), standby()) is Restart.WAIT
    assert restart(stopped(), deaf_standby()) is Restart.START
