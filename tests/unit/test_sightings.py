"""A witness votes only if it saw the node when that was last in service; who does not see is told by `check`."""

import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flows.check as flow
import flows.machinery.operation as machinery
from blocks import HarborSite
from flows.machinery.operation import Operation
from flows.machinery.vision import blind, in_service, sightings
from flows.rules.fence import Rung, choose_fence
from flows.rules.policy import Policy
from flows.rules.primary import Contact, Primary, classify_primary, contact_of
from flows.rules.verdict import Verdict, verdict
from tasks.balancer.states import NodeState, Served
from tasks.clock import Moment
from tasks.observation import witnesses as observation
from tasks.observation.look import SiteLook
from tasks.observation.redis import parse_clients
from tasks.observation.witnesses import Answers, resolve, witnesses_of
from tasks.operation.files import LAST_PRIMARY, VERDICT, WITNESSED
from tasks.operation.sightings import RECENT_S, NodeSeen, Sightings, newest, sightings_from
from tasks.operation.witnesses import Witnesses
from tasks.outcome import Outcome
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import (
    NOW,
    SEEN,
    deaf_standby,
    guard,
    harbor,
    node,
    primary,
    standby,
    unreached,
)
from tests.unit.harbor_site import make_site

A, B, C = "10.0.0.11", "10.0.0.12", "10.0.0.13"
UP, DOWN = NodeState(Served.UP, 3, "L7OK", True), NodeState(Served.DOWN, 0, "L4TOUT", False)
MAINTENANCE = NodeState(Served.DRAINED, 0, "")
ALL = ("node-b", "node-c", "balancer", "redis")


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    """Two databases with a Harbor each, and a third machine that runs Harbor alone."""
    loaded = make_site(tmp_path)
    a, b = loaded.nodes[:2]
    nodes = [
        a.model_copy(update={"address": A}),
        b.model_copy(update={"address": B}),
        b.model_copy(update={"name": "node-c", "address": C, "runs_postgres": False}),
    ]
    return loaded.model_copy(update={"nodes": nodes})


def client(*places: str) -> str:
    return "".join(f"id={n} addr={place} name= age=9 idle=1 flags=N db=0\n" for n, place in enumerate(places))


def note(saw: Mapping[str, tuple[str, ...]], at: float = NOW.wall, **addresses: list[str]) -> dict[str, Any]:
    """What the nodes hold: who saw whom for long, until a moment ago."""
    nodes = {
        name: NodeSeen(
            at - 9999, at, dict.fromkeys(who, at), frozenset(addresses.get(name.replace("-", "_"), []))
        )
        for name, who in saw.items()
    }
    value: dict[str, Any] = json.loads(Sightings(at, nodes).to_json())
    return value


def lost(kept: dict[str, Any] | None, *, third: str = "silent") -> list[NodeFacts]:
    """What is seen of the site after the primary is gone: by nobody, unless the third machine sees it."""
    state = {} if kept is None else {WITNESSED: kept}
    b = replace(deaf_standby(), tcp={"node-a": "silent"}, state=state)
    c = node("node-c", harbor=harbor(), tcp={"node-a": third, "node-b": "open"}, state=state)
    return [unreached(), b, c]


def answers(text: str = "", balancer: NodeState | None = DOWN, **changes: Any) -> Answers:
    """What the load balancer and Redis say."""
    base = Answers(
        SEEN,
        ports={"node-a": "silent"},
        balancer=None if balancer is None else {"node-a": balancer},
        clients=parse_clients(text),
        resolved={"node-a": frozenset({A}), "node-b": frozenset({B}), "node-c": frozenset({C})},
    )
    return replace(base, **changes)


def asked(
    site: HarborSite,
    kept: dict[str, Any] | None,
    text: str = "",
    balancer: NodeState | None = DOWN,
    **more: Any,
) -> Witnesses:
    return witnesses_of(site, "node-a", answers(text, balancer), lost(kept, **more))


def judged(said: Witnesses) -> Primary:
    return classify_primary(unreached(), [deaf_standby()], said, NOW).kind


def test_who_saw_the_primary_when_all_was_well_may_lose_it(site: HarborSite) -> None:
    assert judged(asked(site, note({"node-a": ALL}), client(f"{B}:1", f"{C}:2"))) is Primary.GONE


@pytest.mark.parametrize("missing", ALL)
def test_a_witness_that_never_saw_it_cannot_lose_it(site: HarborSite, missing: str) -> None:
    """A Redis behind a proxy lists no node at all: its silence passed for a vote, and a living primary was replaced."""
    saw = tuple(who for who in ALL if who != missing)
    said = asked(site, note({"node-a": saw}), client("10.9.9.9:1"))
    assert judged(said) is Primary.AMBIGUOUS
    assert len(said.blind) == 1
    for policy in (Policy(fencing="witnesses"), Policy(self_fence_s=20)):
        rung = choose_fence(
            unreached(), (deaf_standby(),), said, policy, NOW, silent_for_s=99.0, self_fence_seen_s=20.0
        )
        assert rung.kind is Rung.REFUSE
        assert said.blind[0] in rung.reasons[0]


def test_without_any_note_nobody_votes(site: HarborSite) -> None:
    said = asked(site, None)
    assert judged(said) is Primary.AMBIGUOUS
    assert said.blind == ("no note of `check` says who could see node-a when all was well",)


@pytest.mark.parametrize(
    "damaged", [{"damaged": True}, [], {"at": "x", "nodes": {}}, {"at": 1, "nodes": {"a": 1}}]
)
def test_a_damaged_note_is_none(site: HarborSite, damaged: Any) -> None:
    assert judged(asked(site, damaged)) is Primary.AMBIGUOUS


def test_a_blind_witness_that_sees_it_after_all_is_believed(site: HarborSite) -> None:
    said = asked(site, note({"node-a": ()}), client(f"{A}:7"))
    assert contact_of(said) is Contact.SEEN


@pytest.mark.parametrize(
    ("address", "place"),
    [("10.0.0.99", "10.0.0.99:7"), ("fd00::11", "[fd00::11]:7"), (A, f"[::ffff:{A}]:7")],
    ids=["second interface", "IPv6", "mapped"],
)
def test_redis_knows_a_node_by_any_of_its_addresses(site: HarborSite, address: str, place: str) -> None:
    """Redis saw a primary by its second interface, and the address of the site file was not in the list."""
    kept = note({"node-a": ALL}, node_a=[A, address])
    assert judged(asked(site, kept, client(place))) is Primary.WRITERS_ATTACHED


def test_an_address_that_two_nodes_have_tells_nothing_of_either(site: HarborSite) -> None:
    kept = note({"node-a": ALL, "node-b": ()}, node_a=[A, "10.99.0.1"], node_b=[B, "10.99.0.1"])
    assert judged(asked(site, kept, client("10.99.0.1:7"))) is Primary.GONE


def test_a_host_name_stands_for_its_addresses_but_not_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str, *_: Any, **__: Any) -> list[Any]:
        places = ["127.0.1.1", A, "fd00::11%eth0"] if name == "node-a.example.com" else []
        if not places:
            raise socket.gaierror("unknown")
        return [(None, None, None, "", (place, 0)) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert resolve("node-a.example.com") == {A, "fd00::11%eth0"}
    assert resolve("elsewhere") == frozenset()


def test_a_node_whose_addresses_nobody_knows_is_not_lost_to_redis(site: HarborSite) -> None:
    said = witnesses_of(site, "node-a", answers(resolved={}), lost(note({"node-a": ALL})))
    assert said.redis_connected is None
    assert judged(said) is Primary.AMBIGUOUS


def test_a_node_that_somebody_has_put_into_maintenance_is_not_thereby_lost(site: HarborSite) -> None:
    said = asked(site, note({"node-a": ALL}), balancer=MAINTENANCE)
    assert judged(said) is Primary.AMBIGUOUS
    assert said.unanswered == ("the load balancer has it in maintenance and does not look",)
    assert judged(replace(said, drained_by_us=True)) is Primary.GONE


def test_a_harbor_without_a_database_is_a_witness_too(site: HarborSite) -> None:
    """The third machine's Harbor wrote to the primary, and nobody had asked it."""
    said = asked(site, note({"node-a": ALL}), third="open")
    assert judged(said) is Primary.WRITERS_ATTACHED
    assert "node-c can open its PostgreSQL port" in said.sightings
    away = [*lost(note({"node-a": ALL}))[:2], unreached("node-c")]
    assert judged(witnesses_of(site, "node-a", answers(), away)) is Primary.AMBIGUOUS


def test_the_newest_note_of_all_nodes_counts() -> None:
    old, new = note({"node-a": ()}, at=1.0), note({"node-a": ("redis",)}, at=2.0)
    found = newest([new, old, {"damaged": True}])
    assert found is not None
    assert found.nodes["node-a"].saw == {"redis"}


def test_one_look_in_which_a_client_was_silent_does_not_blind_redis() -> None:
    first = Sightings(1000.0, {}).with_node("node-a", ["redis", "balancer"], [A])
    later = replace(first, at=1060.0).with_node("node-a", ["balancer"], [A])
    assert later.nodes["node-a"].saw == {"redis", "balancer"}
    late = replace(later, at=1000.0 + RECENT_S + 1).with_node("node-a", ["balancer"], [A])
    assert late.nodes["node-a"].saw == {"balancer"}


def test_what_was_seen_of_a_node_does_not_age_while_it_is_away() -> None:
    """The answer to a page after three days is the answer after a minute."""
    kept = Sightings(1000.0, {}).with_node("node-a", ["redis"], [A])
    after = replace(kept, at=1e6).with_node("node-b", ["redis"], [B])
    assert after.nodes["node-a"].saw == {"redis"}


def test_a_clock_that_was_set_back_begins_the_note_anew() -> None:
    kept = Sightings(9000.0, {}).with_node("node-a", ["redis"], [A])
    after = replace(kept, at=1000.0).with_node("node-a", ["balancer"], [A])
    assert after.nodes["node-a"].saw == {"balancer"}


def test_a_note_is_read_as_it_was_written() -> None:
    kept = Sightings(1000.0, {}).with_node("node-a", ["redis"], [A, "fd00::1"])
    assert sightings_from(json.loads(kept.to_json())) == kept


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["at", "nodes", "since", "witnesses", "addresses", "x"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_a_file_holds_is_a_note_or_none(value: Any) -> None:
    found = sightings_from(value)
    assert found is None or isinstance(found, Sightings)


def well(kept: dict[str, Any] | None = None, **a: Any) -> SiteLook:
    """The site in service, seen by everybody."""
    state = {} if kept is None else {WITNESSED: kept}
    nodes = (
        primary(
            harbor=harbor(),
            guard=guard(),
            addresses=(A, "10.1.0.1"),
            tcp={"node-b": "open"},
            state=state,
            **a,
        ),
        standby(harbor=harbor(), guard=guard(), addresses=(B,), tcp={"node-a": "open"}, state=state),
        node("node-c", harbor=harbor(), addresses=(C,), tcp={"node-a": "open", "node-b": "open"}),
    )
    return SiteLook(nodes, frozenset({"node-a", "node-b"}), 0.2)


def all_well(text: str = client(f"{A}:1", f"{B}:2", f"{C}:3"), **changes: Any) -> Answers:
    up = dict.fromkeys(("node-a", "node-b", "node-c"), UP)
    return replace(answers(text), **{"balancer": up, **changes})


def test_a_look_while_all_is_well_says_who_sees_whom(site: HarborSite) -> None:
    found = sightings(site, well(), all_well())
    assert found.nodes["node-a"].saw == set(ALL)
    assert found.nodes["node-b"].saw == {"node-a", "node-c", "balancer", "redis"}
    assert found.nodes["node-a"].addresses == {A, "10.1.0.1"}


@pytest.mark.parametrize(
    "ill", [{"harbor": harbor(health="unhealthy")}, {"server": None}, {"harbor": None}], ids=str
)
def test_a_node_that_is_not_in_service_is_not_looked_at_for_who_sees_it(
    site: HarborSite, ill: dict[str, Any]
) -> None:
    """Its Harbor is down, so that Redis cannot see it: that must not take Redis's vote for the next time."""
    before = note({"node-a": ALL})
    seen = well(before)
    seen = replace(seen, every=(replace(seen.every[0], **ill), *seen.every[1:]))
    assert not in_service(site, seen.every[0])
    found = sightings(site, seen, all_well(client(f"{B}:2")))
    assert found.nodes["node-a"] == sightings_from(before).nodes["node-a"]  # type: ignore[union-attr]


def test_who_does_not_see_a_node_for_five_minutes_is_told(site: HarborSite) -> None:
    seen, proxy = (
        well(note({"node-a": ("node-c",), "node-b": ()}, at=NOW.wall)),
        all_well(client("10.9.9.9:1")),
    )
    told = blind(site, seen, proxy, sightings(site, seen, proxy))
    assert told == [
        f"Redis has no client at node-a's addresses ({A}, 10.1.0.1)",
        f"Redis has no client at node-b's addresses ({B})",
    ]


def test_nothing_is_told_of_the_first_minutes_nor_of_a_node_in_maintenance(site: HarborSite) -> None:
    nobody = all_well("", balancer={"node-a": MAINTENANCE, "node-b": UP})
    assert blind(site, well(), nobody, sightings(site, well(), nobody)) == []
    later = well(note({"node-a": (), "node-b": ()}))
    maintained = all_well(balancer={"node-a": MAINTENANCE, "node-b": UP})
    assert blind(site, later, maintained, sightings(site, later, maintained)) == []


def test_who_cannot_be_asked_at_all_is_told_with_the_reason(site: HarborSite) -> None:
    mute = all_well(clients=None, balancer=None, problems={"redis": "timed out", "balancer": "refused"})
    told = blind(site, well(), mute, sightings(site, well(), mute))
    assert told == [
        "the load balancer cannot be asked (refused)",
        "Redis does not tell its clients (timed out)",
    ]


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (Policy(fencing="witnesses"), Verdict.DEGRADED),
        (Policy(fencing="witnesses", has_fence_command=True), Verdict.HEALTHY),
        (Policy(), Verdict.HEALTHY),
    ],
    ids=["rests on them", "has a command", "an operator attests"],
)
def test_a_blind_witness_degrades_a_site_whose_failover_rests_on_it(policy: Policy, kind: Verdict) -> None:
    found = verdict(
        well().every, {"node-a": A}, policy, NOW, write_error=None, blind_witnesses=["Redis has no client"]
    )
    assert found.kind is kind, found.lines()


class Check:
    """A check without Prefect: what it looks at, and what it keeps."""

    dry_run = False

    def __init__(self, site: HarborSite) -> None:
        self.site = site
        self.kept: dict[str, str] = {}

    def watch(self, title: str, look: Any, describe: Any, *nodes: str) -> Any:
        seen = look()
        assert isinstance(describe(seen), str)
        return seen

    def try_each(self, step: Any, nodes: Any, **plain: Any) -> tuple[dict[str, Outcome], dict[str, str]]:
        if "name" in plain:
            self.kept[plain["name"]] = plain["text"]
        elif "last" in plain:
            self.kept[LAST_PRIMARY] = "kept"
        return {}, {}


def test_check_keeps_who_sees_whom_beside_the_primarys_position_and_reports_who_does_not(
    site: HarborSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    failover = site.failover.model_copy(update={"fencing": "witnesses", "fence_command": None})
    run = Check(site.model_copy(update={"failover": failover}))
    seen = well(note({"node-a": ("node-c",), "node-b": ()}))
    spoiled = replace(seen.every[0], state={**seen.every[0].state, VERDICT: {"damaged": True}})
    seen = replace(seen, every=(spoiled, *seen.every[1:]))
    monkeypatch.setattr(flow.Protocol, "begin", classmethod(lambda *_: run))
    monkeypatch.setattr(flow.Operation, "begin", classmethod(lambda cls, run: cls(run, seen)))
    monkeypatch.setattr(flow, "try_write", lambda run: None)
    monkeypatch.setattr(flow, "ask_witnesses", lambda *_: all_well(client("10.9.9.9:1")))
    monkeypatch.setattr(flow, "emit_event", lambda *_, **__: None)
    monkeypatch.setattr(flow, "clock", SimpleNamespace(now=lambda: Moment(NOW.monotonic, NOW.wall)))
    monkeypatch.setattr(flow, "publish", lambda run, headline, sections, **_: {"sections": sections})
    result = cast(Any, flow.check).fn("site")
    assert LAST_PRIMARY in run.kept
    assert VERDICT in run.kept, "a note of the last verdict that cannot be read is written anew"
    kept = sightings_from(json.loads(run.kept[WITNESSED]))
    assert kept is not None
    assert kept.nodes["node-a"].saw == {"node-b", "node-c", "balancer"}
    assert any("Redis has no client at node-a's addresses" in finding for finding in result["findings"])
    assert result["verdict"] != "HEALTHY"


def test_the_orchestrators_own_eye_is_no_witness(site: HarborSite) -> None:
    said = replace(asked(site, note({"node-a": ALL})), tcp={observation.ORCHESTRATOR: "open"})
    assert said.seen_by == frozenset()


def test_a_node_that_this_operation_has_drained_is_no_gap_in_what_is_known(
    site: HarborSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the drain the load balancer does not look any more; the ladder must not stop at its own rung."""
    said = asked(site, note({"node-a": ALL}), balancer=MAINTENANCE)
    nodes = SiteLook(tuple(lost(None)), frozenset({"node-a", "node-b"}), 0.1)
    monkeypatch.setattr(machinery, "look_with_witnesses", lambda *_, **__: (nodes, said))
    work = Operation(cast(Any, Check(site)), nodes)
    for drained, contact in (((), Contact.UNKNOWN), (("node-a",), Contact.LOST)):
        work.record = cast(Any, SimpleNamespace(drained=drained))
        work.look_at("node-a")
        assert work.witnesses is not None
        assert contact_of(work.witnesses) is contact
