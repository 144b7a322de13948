"""How is the site?"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.rules.advice import COMES_FIRST
from flows.rules.policy import Policy
from flows.rules.table import Decision, FactsTooOld
from flows.rules.verdict import FINDINGS, Verdict, verdict
from tasks.clock import Moment
from tasks.guard.seen import seen_guard
from tasks.operation.record import Lock, OperationKind, OperationRecord, to_json
from tasks.postgres.facts import NOISE, Archiver, Disk, Guard, NodeFacts, Slot
from tests.unit.facts_builder import (
    NOW,
    cluster,
    deaf_standby,
    guard,
    harbor,
    node,
    primary,
    sender,
    standby,
    stopped,
    unreached,
)

ADDRESSES = {"node-a": "10.0.0.11", "node-b": "10.0.0.12"}
A, B = primary(harbor=harbor(), guard=guard()), standby(harbor=harbor(), guard=guard())
RECORD = OperationRecord("op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, 1.0, "x:1")
LOCK = Lock("op-1", "x:1", NOW.wall - 1, NOW.wall + 10)
WALL = datetime.fromtimestamp(NOW.wall, UTC)


def ask(*nodes: NodeFacts, policy: Policy | None = None, **options: Any) -> Decision[Verdict]:
    return verdict(nodes, ADDRESSES, policy or Policy(), NOW, **options)


def on(facts: NodeFacts, **files: Any) -> NodeFacts:
    return replace(facts, state={name: json.loads(to_json(value)) for name, value in files.items()})


def a(*, server_changes: dict[str, Any] | None = None, **changes: Any) -> NodeFacts:
    return primary(server_changes=server_changes, **{"harbor": harbor(), **changes})


def b(*, server_changes: dict[str, Any] | None = None, **changes: Any) -> NodeFacts:
    return standby(server_changes=server_changes, **{"harbor": harbor(), **changes})


def test_a_site_without_findings_is_healthy() -> None:
    decision = ask(A, B, balancer_up={"node-a": True, "node-b": True})
    assert decision.kind is Verdict.HEALTHY
    assert decision.reasons == ()


LOST_SLOT = Slot("ha_node_b", "physical", False, None, "lost", None, False)
PINNING_SLOT = Slot("ha_node_b", "physical", False, None, "extended", None, True, 12345, 2 << 30)
CASES: dict[str, tuple[Verdict, tuple[NodeFacts, ...], dict[str, Any]]] = {
    "two primaries": (Verdict.SPLIT_BRAIN, (A, a(server_changes={"timeline": 3})), {}),
    "superseded primary": (
        Verdict.SPLIT_BRAIN,
        (A, b(state={"accepted": {"primary": "node-b", "timeline": 3}})),
        {},
    ),
    "operation in progress": (Verdict.IN_OPERATION, (A, on(B, operation=RECORD, lock=LOCK)), {}),
    "nothing reached": (Verdict.UNKNOWN, (unreached(), unreached("node-b")), {}),
    "primary out of sight": (Verdict.UNKNOWN, (unreached(), B), {}),
    "no primary": (
        Verdict.DOWN,
        (replace(stopped(), harbor=harbor()), b(server_changes={"receiver": None})),
        {},
    ),
    "read-only primary": (Verdict.DOWN, (a(server_changes={"read_only": True}), B), {}),
    "no Harbor": (Verdict.DOWN, (a(harbor=harbor(health=None)), b(harbor=harbor(health="unhealthy"))), {}),
    "write failed": (Verdict.DOWN, (A, B), {"write_error": "503"}),
    "commits hang": (
        Verdict.DOWN,
        (a(server_changes={"sync_names": "FIRST 1 (x)", "senders": ()}), B),
        {},
    ),
    "paused": (Verdict.PAUSED, (A, b(state={"paused": {"reason": "work"}})), {}),
    "node not reached": (Verdict.DEGRADED, (A, unreached("node-b")), {}),
    "no working standby": (Verdict.DEGRADED, (A, b(server_changes={"receiver": None})), {}),
    "lag": (Verdict.DEGRADED, (a(server_changes={"senders": (sender(lag_bytes=2 << 20),)}), B), {}),
    "not synchronous": (Verdict.DEGRADED, (A, B), {"policy": Policy(durability="preferred")}),
    "Harbor unhealthy": (
        Verdict.DEGRADED,
        (A, b(harbor=harbor(health="unhealthy", components={"redis": "unhealthy", "core": "healthy"}))),
        {},
    ),
    "wrong database": (Verdict.DEGRADED, (A, b(harbor=harbor(running_database="10.0.0.12"))), {}),
    "not balanced": (Verdict.DEGRADED, (A, B), {"balancer_up": {"node-a": True, "node-b": False}}),
    "held back": (Verdict.DEGRADED, (a(server_changes={"slots": (PINNING_SLOT,)}), B), {}),
    "slots": (Verdict.DEGRADED, (a(server_changes={"slots": (LOST_SLOT,)}), B), {}),
    "archiver": (
        Verdict.DEGRADED,
        (a(server_changes={"archiver": Archiver(True, 1, "x", 5.0, 1.0)}), B),
        {},
    ),
    "disk space": (Verdict.DEGRADED, (A, b(data_disk=Disk(100, 9))), {}),
    "certificate": (
        Verdict.DEGRADED,
        (A, b(harbor=harbor(certificate_end=WALL + timedelta(days=20)))),
        {},
    ),
    "clocks": (Verdict.DEGRADED, (A, b(clock_skew_s=-3.0)), {}),
    "NAS": (Verdict.DEGRADED, (A, b(nas_mounted=False)), {}),
    "images not writable": (Verdict.DOWN, (A, b(images_denied=("/nas/registry",))), {}),
    "project not writable": (
        Verdict.DEGRADED,
        (A, b(images_denied=("/nas/registry/docker/registry/v2/repositories/library",))),
        {},
    ),
    "overrides": (Verdict.DEGRADED, (A, b(cluster=cluster(auto_conf=("primary_conninfo",)))), {}),
    "autostart": (Verdict.DEGRADED, (A, b(start_conf="manual")), {}),
    "guard not running": (Verdict.DEGRADED, (A, b(guard=guard(age_s=21.0))), {}),
    "other guard": (Verdict.DEGRADED, (A, b(guard=guard(version="v0"))), {"guard_version": "v1"}),
    "other self-fence": (Verdict.DEGRADED, (A, b(guard=guard(self_fence_s=10.0))), {}),
    "blind witness": (
        Verdict.DEGRADED,
        (A, B),
        {"policy": Policy(fencing="witnesses"), "blind_witnesses": ["Redis has no client of node-a"]},
    ),
    "login that prints": (Verdict.DEGRADED, (A, b(problems={NOISE: "its login prints 3 characters"})), {}),
    "unfinished operation": (Verdict.DEGRADED, (A, on(B, operation=RECORD)), {}),
    "damaged record": (Verdict.DEGRADED, (A, b(state={"lock": {"damaged": True}})), {}),
    "look incomplete": (Verdict.DEGRADED, (A, b(problems={"history": "out of order"})), {}),
}


def test_every_finding_is_shown_below() -> None:
    assert set(CASES) == {finding.name for finding in FINDINGS}


@pytest.mark.parametrize("name", CASES)
def test_each_finding_is_made_and_says_what_to_do(name: str) -> None:
    expected, nodes, options = CASES[name]
    decision = ask(*nodes, **options)
    assert decision.kind is expected, decision.reasons
    assert decision.rule == name
    assert decision.reasons[0]


def test_an_ill_component_is_named() -> None:
    decision = ask(*CASES["Harbor unhealthy"][1])
    assert "node-b (unhealthy: redis)" in decision.reasons[0]


def test_a_jobservice_that_asked_a_core_which_is_gone_for_the_database_is_told_with_what_restarts_it() -> (
    None
):
    """A bootstrap that was killed between the two had left a site that is HEALTHY, with its jobs on a standby."""
    decision = ask(A, b(harbor=harbor(jobs_behind=True)))
    assert decision.kind is Verdict.DEGRADED
    assert "node-b (its jobservice" in decision.reasons[0]
    assert "bootstrap" in decision.first


def test_what_a_lost_standby_holds_back_is_told_with_its_size() -> None:
    """Its hot_standby_feedback kept vacuum from working until the slot was lost, and nobody heard of it."""
    text = ask(*CASES["held back"][1]).reasons[0]
    assert "12,345 transactions" in text
    assert "2,147,483,648 bytes of WAL" in text


def test_the_slot_of_a_standby_that_streams_holds_back_nothing_worth_telling() -> None:
    streaming = replace(PINNING_SLOT, active=True)
    assert ask(a(server_changes={"slots": (streaming,)}), B).kind is Verdict.HEALTHY


def test_a_guard_that_never_told_and_one_that_went_silent_are_both_named() -> None:
    decision = ask(a(guard=Guard(False)), b(guard=guard(age_s=300.0)))
    assert "node-a (never heard); node-b (silent for 300 s)" in decision.reasons[0]
    assert seen_guard(a(guard=guard(age_s=300.0, self_fence_s=20.0))) == {
        "self_fence_s": None,
        "version": None,
    }
    assert seen_guard(a(guard=guard(self_fence_s=20.0))) == {"self_fence_s": 20.0, "version": "v1"}


def test_a_guard_with_the_site_files_limit_is_as_it_should_be() -> None:
    fenced = guard(self_fence_s=20.0)
    policy = Policy(self_fence_s=20)
    assert ask(a(guard=fenced), b(guard=fenced), policy=policy).kind is Verdict.HEALTHY
    decision = ask(a(guard=fenced), b(guard=guard()), policy=policy, guard_version="v1")
    assert "node-b (none)" in decision.reasons[0]


def test_a_pause_does_not_hide_that_the_site_is_down() -> None:
    decision = ask(stopped(), replace(deaf_standby(), state={"paused": {"reason": "work"}}))
    assert decision.kind is Verdict.DOWN


def test_a_split_brain_is_not_hidden_by_an_operation() -> None:
    assert ask(a(), on(primary("node-b"), operation=RECORD, lock=LOCK)).kind is Verdict.SPLIT_BRAIN


def test_the_worst_finding_comes_first_and_none_is_dropped() -> None:
    decision = ask(a(clock_skew_s=9.0), b(data_disk=Disk(100, 1)), write_error="503")
    assert decision.rule == "write failed"
    assert len(decision.reasons) == 3


def test_losses_that_no_report_has_told_are_an_unfinished_rejoin_also_of_a_node_that_is_the_primary() -> None:
    found = {"operations": {"rejoin-1": 12}}
    for nodes in ((A, b(state={"untold": found})), (a(state={"untold": found}), B)):
        judged = ask(*nodes)
        name = next(one.name for one in nodes if "untold" in one.state)
        assert f"the report of rejoin-1 on {name}" in judged.reasons[0]
        assert f"`harbor-ha run rejoin --site SITE --param node={name} --watch`" in judged.first
    for damaged in ({"damaged": True}, {"operations": 3}, [], None):
        assert ask(A, b(state={"untold": damaged})).kind is Verdict.HEALTHY


def test_a_single_node_is_degraded_for_want_of_a_standby() -> None:
    assert "there is no standby" in ask(A).reasons[0]


def test_a_node_without_a_database_is_no_missing_standby() -> None:
    assert ask(A, B, node("node-c", harbor=harbor())).kind is Verdict.HEALTHY


def test_old_facts_make_no_verdict() -> None:
    with pytest.raises(FactsTooOld):
        ask(replace(A, observed_at=Moment(NOW.monotonic - 99, 0.0)), B)


def advice(*nodes: NodeFacts, **options: Any) -> Decision[Verdict]:
    """The verdict on a site called main."""
    return ask(*nodes, site="main", **options)


DEAF = replace(deaf_standby(), harbor=harbor(health="unhealthy"))


@pytest.mark.parametrize("lost", [unreached(), replace(stopped(), harbor=harbor(health=None))])
@pytest.mark.parametrize("known", ["accepted", "last_primary", ""])
def test_with_the_primary_gone_the_advice_is_a_failover_from_it_and_nothing_else(
    lost: NodeFacts, known: str
) -> None:
    """The advice was rejoin for the standby that heard nothing, and bootstrap for the Harbors without a database."""
    notes = {
        "accepted": {"accepted": {"primary": "node-a", "timeline": 2}},
        "last_primary": {
            "last_primary": {"node": "node-a", "at": 1.0, "position": {"timeline": 2, "lsn": "0/6000000"}}
        },
        "": {},
    }
    decision = advice(lost, replace(DEAF, state=notes[known]), write_error="503")
    name = "node-a" if known or lost.reachable else "NODE"
    call = f"`harbor-ha run failover --site main --param expected_primary={name} --watch`"
    assert call in decision.first
    assert decision.kind is Verdict.DOWN
    told = " ".join(decision.remedies)
    assert told.count("harbor-ha run") == 1
    assert "First see to: no primary." in told


@pytest.mark.parametrize(
    ("nodes", "options", "call"),
    [
        ((A, b(server_changes={"receiver": None})), {}, "rejoin --site main --param node=node-b --watch"),
        (
            (a(server_changes={"slots": (LOST_SLOT,)}), B),
            {},
            "rejoin --site main --param node=node-b --watch",
        ),
        ((A, b(start_conf="manual")), {}, "rejoin --site main --param node=node-b --watch"),
        (CASES["superseded primary"][1], {}, "rejoin --site main --param node=node-a --watch"),
        (CASES["wrong database"][1], {}, "bootstrap --site main --watch"),
        (CASES["paused"][1], {}, "pause --site main --param end=true --watch"),
        ((A, on(B, operation=RECORD)), {}, "failover --site main --param expected_primary=node-a --watch"),
        (
            (A, on(B, operation=replace(RECORD, kind=OperationKind.SWITCHOVER))),
            {},
            "switchover --site main --param to=node-b --watch",
        ),
        (
            (A, on(B, operation=replace(RECORD, kind=OperationKind.REJOIN))),
            {},
            "rejoin --site main --param node=node-b --watch",
        ),
    ],
)
def test_the_advice_is_a_whole_command(
    nodes: tuple[NodeFacts, ...], options: dict[str, Any], call: str
) -> None:
    assert f"`harbor-ha run {call}`" in advice(*nodes, **options).first


def test_a_pause_is_ended_before_the_failover_that_it_would_hold_back() -> None:
    decision = advice(unreached(), replace(DEAF, state={"paused": {"reason": "work"}}))
    assert "pause --site main --param end=true" in decision.first
    assert "failover" not in " ".join(decision.remedies)


def test_nothing_is_to_be_done_on_a_healthy_site() -> None:
    assert ask(A, B).first == ""


@pytest.mark.parametrize("name", CASES)
def test_every_flow_that_a_remedy_names_is_given_as_a_command(name: str) -> None:
    """Of the whole list: a flow's name without its call was looked up at three in the morning."""
    (finding,) = [one for one in FINDINGS if one.name == name]
    for flow in ("failover", "rejoin", "bootstrap"):
        asked = f"un {flow}" in finding.remedy
        assert not asked or f"{{{flow}}}" in finding.remedy


def test_what_comes_first_are_findings() -> None:
    assert set(COMES_FIRST) <= {finding.name for finding in FINDINGS}
