"""One look at everything takes 3 s at the most: who is late is not known, and makes nobody else's facts old."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks import HarborSite
from flows.rules.primary import Contact, Primary, classify_primary, contact_of
from tasks import clock
from tasks.balancer.command import CommandBalancer
from tasks.balancer.states import NodeState, Served
from tasks.clock import Moment
from tasks.observation import budget, look, witnesses
from tasks.observation.redis import RedisUnreadable, list_clients
from tasks.operation.files import WITNESSED
from tasks.operation.sightings import NodeSeen, Sightings
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import deaf_standby, harbor, node, primary
from tests.unit.harbor_site import make_site

# What a look may take on a busy machine.
AT_MOST_S = budget.LOOK_BUDGET_S + 1.5


class Site:
    """Two databases and a Harbor besides; what each node, the load balancer and Redis answer, and when."""

    def __init__(self, site: HarborSite, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = site
        self.facts: dict[str, NodeFacts] = {
            "node-a": primary(tcp={}),
            "node-b": deaf_standby(),
            "node-c": node("node-c", harbor=harbor(), tcp={"node-a": "silent", "node-b": "open"}),
        }
        seen = NodeSeen(1.0, 1.0, dict.fromkeys(("node-b", "node-c", "balancer", "redis"), 1.0), frozenset())
        note = json.loads(Sightings(1.0, {"node-a": seen}).to_json())
        self.facts["node-b"] = replace(
            self.facts["node-b"], tcp={"node-a": "silent"}, state={WITNESSED: note}
        )
        self.hanging: set[str] = set()
        self.deaf: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.port_s: set[float] = set()
        self.over = threading.Event()
        self.balancer: dict[str, NodeState] = {"node-a": NodeState(Served.DOWN, None, "down", False)}
        monkeypatch.setattr(look, "probe", self.probe)
        monkeypatch.setattr(look, "connect", self.connect)
        monkeypatch.setattr(witnesses, "tcp_state", self.tcp_state)
        monkeypatch.setattr(witnesses, "list_clients", lambda *_: ())
        monkeypatch.setattr(witnesses, "balancer_of", lambda _: self)

    def connect(self, node: Any, via: Any = None) -> Any:
        if via is not None:
            self.asked.append((node.name, via.name))
        heard = node.name not in self.deaf
        return type("Host", (), {"name": node.name, "silent": False, "heard": heard})()

    def probe(self, site: HarborSite, host: Any, *, port_s: float, **_: Any) -> NodeFacts:
        self.port_s.add(port_s)
        if host.name in self.hanging:
            self.over.wait(20)
        return replace(self.facts[host.name], observed_at=clock.now())

    def tcp_state(self, address: str, port: int, limit_s: float) -> str:
        self.port_s.add(limit_s)
        return "silent"

    def status(self, nodes: Any, limit_s: Any) -> dict[str, NodeState]:
        if "balancer" in self.hanging:
            self.over.wait(20)
        return self.balancer


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    loaded = make_site(tmp_path)
    third = loaded.nodes[1].model_copy(
        update={"name": "node-c", "address": "10.0.0.13", "runs_postgres": False}
    )
    loaded = loaded.model_copy(update={"nodes": [*loaded.nodes[:2], third]})
    made = Site(loaded, monkeypatch)
    yield made
    made.over.set()


def timed(site: Site, **how: bool) -> tuple[look.SiteLook, Any, float]:
    begin = time.monotonic()
    seen, said = look.look_with_witnesses(site.site, "node-a", **how)
    return seen, said, time.monotonic() - begin


def test_a_third_machine_that_hangs_makes_nobody_elses_facts_old(site: Site) -> None:
    """One hung Harbor node, and a failover found facts that were too old after the fence, in every run."""
    site.hanging = {"node-c"}
    seen, said, seconds = timed(site)
    assert seconds < AT_MOST_S
    assert seen.reached == ["node-a", "node-b"]
    assert seen.node("node-b").observed_at.age(clock.now()) < AT_MOST_S
    assert "node-c does not answer" in said.unknown, "what is late is not known; it is no vote"
    classify_primary(seen.node("node-a"), seen.others("node-a"), said, clock.now())


def test_nobody_is_asked_through_a_machine_that_takes_no_connection(site: Site) -> None:
    """The standby waits 1.2 s for its primary's port, and was asked through that primary: one more time-out a look."""
    site.hanging, site.deaf = {"node-a", "node-b"}, {"node-a"}
    timed(site)
    assert ("node-b", "node-a") not in site.asked
    assert {("node-a", "node-b"), ("node-a", "node-c"), ("node-b", "node-c")} <= set(site.asked)


def test_who_is_not_reached_from_here_is_asked_through_a_primary_that_lives(site: Site) -> None:
    site.hanging = {"node-b"}
    timed(site)
    assert ("node-b", "node-a") in site.asked


def test_a_machine_that_was_switched_off_is_given_half_a_second_to_prove_the_contrary(site: Site) -> None:
    """Its silence was waited for once more, a whole second of each failover, after the fence command's word."""
    site.hanging = {"node-a"}
    seen, said, seconds = timed(site, said_off=True)
    assert look.OFF_PATIENCE_S <= seconds < 1.0
    assert site.port_s == {look.OFF_PATIENCE_S}, "nobody else waits longer for its port either"
    assert seen.reached == ["node-b", "node-c"]
    assert said.unknown == ()


def test_a_machine_that_was_switched_off_and_lives_is_seen(site: Site) -> None:
    seen, _, _ = timed(site, said_off=True)
    assert seen.node("node-a").is_primary


def test_a_standby_that_is_slow_after_the_fence_is_waited_for(site: Site) -> None:
    site.hanging, slow = {"node-a", "node-b"}, threading.Timer(0.9, site.over.set)
    slow.start()
    seen, _, seconds = timed(site, said_off=True)
    assert seconds >= 0.9
    assert "node-b" in seen.reached


def test_a_hung_primary_is_not_reached_and_all_others_are_heard(site: Site) -> None:
    site.hanging = {"node-a"}
    seen, said, seconds = timed(site)
    assert seconds < AT_MOST_S
    assert not seen.node("node-a").reachable
    assert "no answer within the time of a look" in seen.node("node-a").error
    assert said.unknown == ()
    found = classify_primary(seen.node("node-a"), seen.others("node-a"), said, clock.now())
    assert found.kind is Primary.GONE


def test_a_suspect_is_asked_over_every_path_at_once_and_not_after_the_direct_one_was_silent(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[tuple[str, str], float] = {}

    def probe(loaded: HarborSite, host: Any, *, path: str, **how: Any) -> NodeFacts:
        asked[host.name, path] = time.monotonic()
        return site.probe(loaded, host, **how)

    monkeypatch.setattr(look, "probe", probe)
    site.hanging = {"node-a"}
    begun = time.monotonic()
    timed(site)
    paths = ["direct", "via node-b", "via node-c"]
    assert all(asked["node-a", path] - begun < look._HANDSHAKE_S / 2 for path in paths), asked
    assert ("node-b", "via node-c") not in asked, "who answers at once is asked once"


def test_a_load_balancer_that_hangs_is_not_known_and_the_rest_is(site: Site) -> None:
    site.hanging = {"balancer", "node-a"}
    _, said, seconds = timed(site)
    assert seconds < AT_MOST_S
    assert said.unknown == ("the load balancer's check is not known",)
    assert said.redis_connected is False
    assert contact_of(said) is Contact.UNKNOWN


def test_the_next_looks_do_not_pile_up_behind_what_hangs(site: Site) -> None:
    site.hanging = {"node-c"}
    for _ in range(budget.MAX_LEFT_BEHIND):
        timed(site)
    key = (site.site.name, "node-c", "direct")
    assert budget.left_behind(key) == budget.MAX_LEFT_BEHIND
    seen, _, _ = timed(site)
    assert "has not answered the questions before" in seen.every[2].error
    site.over.set()
    deadline = time.monotonic() + 10
    while budget.left_behind(key) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert timed(site)[0].reached == ["node-a", "node-b", "node-c"]


def test_a_defect_in_one_question_takes_no_other_with_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("idle=secret")

    monkeypatch.setattr(witnesses, "list_clients", broken)
    seen, said, _ = timed(site)
    assert seen.reached == ["node-a", "node-b", "node-c"]
    assert said.redis_connected is None


def test_a_status_command_is_asked_for_all_nodes_at_once(tmp_path: Path) -> None:
    """A command of 4.2 s for two nodes took 8.4 s, and every decision after it found facts that were too old."""
    loaded = make_site(tmp_path)
    slow = tmp_path / "status"
    slow.write_text("#!/bin/sh\nsleep 1.5\necho up\n")
    slow.chmod(0o755)
    balancer = loaded.balancer.model_copy(update={"kind": "command", "status_command": [str(slow), "{node}"]})
    begin = time.monotonic()
    states = CommandBalancer(loaded.model_copy(update={"balancer": balancer})).status()
    assert {name: state.served for name, state in states.items()} == {
        name.name: Served.UP for name in loaded.nodes if name.runs_harbor
    }
    assert time.monotonic() - begin < 2.9


def test_a_status_command_that_is_late_for_one_node_is_known_for_the_other(tmp_path: Path) -> None:
    loaded = make_site(tmp_path)
    slow = tmp_path / "status"
    slow.write_text('#!/bin/sh\n[ "$1" = node-a ] && sleep 20\necho up\n')
    slow.chmod(0o755)
    balancer = loaded.balancer.model_copy(update={"kind": "command", "status_command": [str(slow), "{node}"]})
    states = CommandBalancer(loaded.model_copy(update={"balancer": balancer})).status(limit_s=1.0)
    assert states["node-a"].served is Served.UNKNOWN
    assert states["node-a"].alive is None
    assert states["node-b"].served is Served.UP


@contextmanager
def listening(say: bytes) -> Iterator[int]:
    """A port that accepts, says something and then keeps the connection."""
    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            kept.append(connection)
            connection.sendall(say)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("say", [b"", b"+OK\r\n", b"+OK\r\n$100000\r\nid=1", b"-NOAUTH\r\n", b"\xff\xfe\r\n"])
def test_a_redis_that_trickles_or_falls_silent_has_the_time_of_a_look_for_all_of_its_answer(
    tmp_path: Path, say: bytes
) -> None:
    with listening(say) as port:
        redis = make_site(tmp_path).redis.model_copy(
            update={"host": "127.0.0.1", "port": port, "password": SecretStr("secret-word")}
        )
        begin = time.monotonic()
        with pytest.raises(RedisUnreadable) as caught:
            list_clients(redis, 0.5)
        assert time.monotonic() - begin < 2.0
        assert "secret-word" not in str(caught.value)


def test_moments_are_those_of_the_question(site: Site) -> None:
    before = clock.now()
    _, said, _ = timed(site)
    assert isinstance(said.observed_at, Moment)
    assert before.monotonic <= said.observed_at.monotonic <= clock.now().monotonic
