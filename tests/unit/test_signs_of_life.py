"""A site that lives is not rebuilt beside itself: what Redis, the load balancer and the NAS show is asked first."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks import HarborSite
from flows import disaster_restore as flow
from flows.machinery.protocol import Protocol, StepRecord
from flows.rules.restore_admission import RestoreFacts, objections, signs_of_life
from tasks.backup.restore import life
from tasks.backup.restore.life import Life
from tasks.backup.restore.on_node import signs_of_life as program
from tasks.balancer.states import BalancerError, NodeState, Served
from tasks.errors import Refused
from tasks.guard.on_node import beat
from tasks.hosts.connection import Host
from tasks.outcome import Outcome

PASSWORD = "a-password"


def facts(**changes: Any) -> RestoreFacts:
    return RestoreFacts("node-c", "oss", "v2.12.4", "v2.12.4", 15, 15, True, **changes)


def test_a_site_that_nobody_has_seen_alive_is_rebuilt() -> None:
    assert objections(facts()) == []


def test_a_sign_of_life_refuses_and_no_attestation_outweighs_it() -> None:
    for attested in (False, True):
        (reason,) = objections(facts(life=["Redis is used from 10.0.0.11"], attested=attested))
        assert "Redis is used from 10.0.0.11: the site is alive" in reason


def test_who_cannot_be_asked_is_no_proof_of_a_loss_until_somebody_attests_it() -> None:
    unknown = ["node-a does not answer", "the load balancer does not say whom it serves"]
    (reason,) = objections(facts(unknown=unknown))
    assert "attest_site_lost=true" in reason
    assert all(text in reason for text in unknown)
    assert objections(facts(unknown=unknown, attested=True)) == []


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    """A real Redis with a password."""
    if subprocess.run(["which", "redis-server"], capture_output=True, check=False).returncode:
        pytest.skip("no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [
        "redis-server",
        "--port",
        str(port),
        "--requirepass",
        PASSWORD,
        "--save",
        "",
        "--bind",
        "127.0.0.1",
    ]
    server = subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield port
    server.terminate()
    server.wait(10)


def asked(port: int, password: str = PASSWORD) -> list[str] | None:
    redis = {"host": "127.0.0.1", "port": port, "password": password, "databases": [0, 1, 2]}
    return program.redis_clients({"redis": redis, "own": ["10.9.9.9"]})


class Client:
    """A client of Redis at an address of its own, as a Harbor on another machine is."""

    def __init__(self, port: int, address: str, database: int = 0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(address, 0))
        self.stream = self.socket.makefile("rwb")
        assert program.command(self.stream, "AUTH", PASSWORD) == "+OK"
        assert program.command(self.stream, "SELECT", str(database)) == "+OK"

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.mark.servers
def test_a_harbor_that_uses_redis_from_elsewhere_is_seen_and_our_own_question_is_not(redis: int) -> None:
    assert asked(redis) == []
    other = Client(redis, "127.0.0.7", 1)
    assert asked(redis) == ["127.0.0.7"]
    other.close()


@pytest.mark.servers
def test_who_uses_another_database_of_a_shared_redis_is_no_harbor(redis: int) -> None:
    other = Client(redis, "127.0.0.7", 9)
    assert asked(redis) == []
    other.close()


@pytest.mark.servers
def test_a_redis_that_does_not_let_us_in_is_not_known_to_be_unused(redis: int) -> None:
    assert asked(redis, "another") is None
    assert asked(1) is None


def test_what_is_not_redis_is_not_known_to_be_unused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:
        import threading

        def answer() -> None:
            connection, _ = odd.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert asked(int(odd.getsockname()[1])) is None


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A directory in the place of a mounted NAS."""
    monkeypatch.setattr(program, "shared_answers", lambda p: True)
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == str(tmp_path) or path == "/")
    return {"nas_path": str(tmp_path), "site": "demo", "target": "node-c", "beat_s": 1.5}


def cluster(
    tmp_path: Path, nas: dict[str, Any], monkeypatch: pytest.MonkeyPatch, node: str
) -> dict[str, Any]:
    monkeypatch.setattr(beat, "postmaster_of", lambda data: 1)
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    return {**nas, "data": str(data), "node": node}


def beats(p: dict[str, Any]) -> None:
    heart = beat.Beat()
    heart.pulse(p)
    assert heart.thread is not None
    heart.thread.join(5)


def test_a_primary_that_goes_on_telling_that_it_lives_is_seen(
    nas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = cluster(tmp_path, nas, monkeypatch, "node-a")
    beats(p)
    moments = iter(range(100))
    monkeypatch.setattr(program.time, "sleep", lambda s: (next(moments), beats(p)))
    assert program.nas_life(nas)["beats"] == "node-a"


def test_a_primary_that_has_told_it_once_and_no_more_is_not_alive(
    nas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats(cluster(tmp_path, nas, monkeypatch, "node-a"))
    assert program.nas_life(nas) == {"asked": True, "beats": None, "kept": {"term": None, "accepted": None}}


def test_the_machine_that_is_rebuilt_is_no_sign_of_the_old_site(
    nas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = cluster(tmp_path, nas, monkeypatch, "node-c")
    beats(p)
    monkeypatch.setattr(program.time, "sleep", lambda s: beats(p))
    assert program.nas_life(nas)["beats"] is None


def test_a_standby_and_a_node_without_its_nas_tell_nothing(
    nas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = cluster(tmp_path, nas, monkeypatch, "node-a")
    Path(p["data"], "standby.signal").touch()
    heart = beat.Beat()
    heart.pulse(p)
    assert heart.thread is None
    Path(p["data"], "standby.signal").unlink()
    monkeypatch.setattr("os.path.ismount", lambda path: False)
    beats(p)
    assert not Path(tmp_path, ".harbor-ha").exists()


def test_a_nas_that_hangs_keeps_one_thread_and_not_one_more_each_time(
    nas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    release = threading.Event()
    begun: list[int] = []
    monkeypatch.setattr(beat, "tell", lambda p: (begun.append(1), release.wait(10)))
    monkeypatch.setattr(beat, "BEAT_S", 0.0)
    p, heart = cluster(tmp_path, nas, monkeypatch, "node-a"), beat.Beat()
    for _ in range(5):
        heart.pulse(p)
    assert len(begun) == 1
    release.set()


class Balancer:
    def __init__(self, states: dict[str, NodeState] | None) -> None:
        self.states = states

    def status(self) -> dict[str, NodeState]:
        if self.states is None:
            raise BalancerError("did not answer")
        return self.states


class Target:
    """The machine that becomes Harbor; what its program says."""

    name, address = "node-c", "10.0.0.13"

    def __init__(self, **answer: Any) -> None:
        quiet = {"asked": True, "beats": None, "kept": {"term": None, "accepted": None}}
        self.answer = {"redis": [], "nas": quiet} | answer

    def python(self, source: str, payload: object = None, **_: Any) -> Any:
        return self.answer


def seen_by(target: Target, states: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Life:
    monkeypatch.setattr(life, "balancer_of", lambda site: Balancer(states))
    monkeypatch.setattr(life, "_given", lambda site, host: {})
    nodes = [
        SimpleNamespace(name="node-a", address="10.0.0.11"),
        SimpleNamespace(name="node-b", address="localhost"),
    ]
    site = SimpleNamespace(nodes=nodes, redis=SimpleNamespace(host="r"), nas=SimpleNamespace(path="/nas"))
    return life.look_for_life(cast(HarborSite, site), cast(Host, target), need_nas=True, **options)


def test_a_node_that_the_balancer_serves_is_life_and_the_target_itself_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    up, down = NodeState(Served.UP), NodeState(Served.DOWN)
    # Taken out of the site file, the old nodes are still known to the load balancer.
    assert seen_by(Target(), {"node-a": up, "node-b": down}, monkeypatch).seen == (
        "the load balancer serves node-a",
    )
    assert seen_by(Target(), {"node-a": down, "node-c": up}, monkeypatch).seen == ()


def test_a_node_that_uses_redis_is_life_and_a_stranger_is_for_the_operator_to_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = seen_by(Target(redis=["10.0.0.11", "10.0.0.99", "127.0.0.1"]), {}, monkeypatch)
    assert found.seen == ("Redis is used from node-a (10.0.0.11)", "Redis is used from node-b (127.0.0.1)")
    assert found.unknown == ("Redis is used from 10.0.0.99, which is none of the site's nodes",)


def test_whoever_does_not_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen_by(Target(redis=None, nas={"asked": False}), None, monkeypatch)
    assert found.seen == ()
    assert len(found.unknown) == 3


def test_a_term_that_has_changed_since_the_first_look_is_life(monkeypatch: pytest.MonkeyPatch) -> None:
    first = seen_by(Target(), {}, monkeypatch)
    kept = {"term": {"term": 7}, "accepted": None}
    later = Target(nas={"asked": True, "beats": None, "kept": kept})
    assert "changed the site's term" in seen_by(later, {}, monkeypatch, before=first).seen[0]


class Run:
    """A flow's run that takes looks."""

    dry_run = False
    site = SimpleNamespace(node=lambda name: None)

    def watch(self, title: str, look: Any, describe: Any, *nodes: str) -> Any:
        return look()


def test_what_was_lost_at_the_beginning_and_lives_hours_later_is_not_opened_a_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow, "connect", lambda node: None)
    before = Life((), ())
    monkeypatch.setattr(flow, "life_of", lambda *given, **more: Life(("Redis is used from x",), ()))
    work = Protocol("disaster_restore", cast(HarborSite, SimpleNamespace(name="example")))
    work.records.append(StepRecord("Install Docker", ("node-c",), 0.0, 1.0, Outcome(True, "")))
    with pytest.raises(Refused, match="Redis is used from x") as refused, work.telling_changes():
        flow.still_lost(cast(Protocol, Run()), "node-c", before, attested=True)
    assert "What was changed: Install Docker on node-c" in str(refused.value)
    monkeypatch.setattr(flow, "life_of", lambda *given, **more: before)
    assert flow.still_lost(cast(Protocol, Run()), "node-c", before, attested=False) is before
    assert signs_of_life((), (), attested=False) == []


def test_the_sign_of_life_names_the_node_and_moves(
    nas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = cluster(tmp_path, nas, monkeypatch, "node-a")
    file = tmp_path / ".harbor-ha" / "demo" / "alive.json"
    told = []
    for _ in range(2):
        beats(p)
        told.append(json.loads(file.read_text()))
        time.sleep(0.05)
    assert told[0]["node"] == "node-a"
    assert told[0] != told[1]
    assert os.stat(file).st_mode & 0o777 == 0o600
