"""The watcher with a real primary and its standby: what it calls for, what not, and what it keeps."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks import HarborSite
from blocks.store import write_copy
from deployments.watch.site_watch import SiteWatch
from deployments.watch.watcher import Watched, Watcher
from flows.rules.watch import Order, Watch
from tasks.hosts.connection import connect
from tasks.observation.beacon import BEACON, Listener
from tasks.operation.record import last_primary_from
from tests.unit.harbor_site import make_site
from tests.unit.local_host import local_host
from tests.unit.local_pair import Clusters, real_clusters
from tests.unit.local_sshd import running_sshd
from tests.unit.test_beacon import listening, request
from tests.unit.waiting import until

pytestmark = pytest.mark.servers
# The machines of the tests have other work: what waits for a processor for a second is no trouble there.
PATIENCE_S = 4.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    made = make_site(tmp_path)
    made.failover.call_after_s = PATIENCE_S
    return made


@pytest.fixture
def pair() -> Iterator[Clusters]:
    with real_clusters() as made:
        made.copy()
        yield made


def watched_pair(site: HarborSite, pair: Clusters, calls: list[tuple[float, Order]]) -> Watched:
    """The pair as the site's nodes node-a and node-b; each call is noted with its time."""

    def start(_: str, order: Order) -> str:
        calls.append((time.monotonic(), order))
        return f"run-{len(calls)}"

    def listener(node: str, cluster: str) -> Listener:
        def open_stream(limit: float):  # type: ignore[no-untyped-def]
            return local_host().stream(["python3", "-u", "-c", BEACON], timeout=limit)

        return Listener(node, request(pair, cluster), open_stream, lambda: None)

    listeners = {"node-a": listener("node-a", "a"), "node-b": listener("node-b", "b")}
    return Watched(SiteWatch(site, listeners, start=start))


@contextmanager
def watching(item: Watched) -> Iterator[SiteWatch]:
    """Watch until the end of the context, once all is calm."""
    watcher = Watcher([item], rounds=False)
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    watch = item.watch
    try:
        until(
            lambda: watch.decision is not None and watch.decision.kind is Watch.CALM,
            lambda: (watch.decision, [heard.error for heard in watch.listeners.values()]),
        )
        until(lambda: all(heard.beat is not None for heard in watch.listeners.values()), watch.beats)
        yield watch
    finally:
        watcher.stop()
        thread.join(10)


def test_a_server_that_is_killed_is_called_for_within_the_patience_and_a_second(
    site: HarborSite, pair: Clusters
) -> None:
    calls: list[tuple[float, Order]] = []
    with watching(watched_pair(site, pair, calls)) as watch:
        killed = time.monotonic()
        pair.stop("a", "immediate")
        until(lambda: bool(calls), lambda: watch.decision)
        at, order = calls[0]
        assert order.expected_primary == "node-a"
        assert PATIENCE_S - 1 < at - killed < PATIENCE_S + 1.5
        pair.promote("b")
        until(lambda: watch.memory.primary == "node-b", lambda: watch.decision)
        until(
            lambda: watch.decision is not None and watch.decision.kind is Watch.CALM, lambda: watch.decision
        )
        assert len(calls) == 1


def test_a_server_that_stands_still_for_two_seconds_is_not(site: HarborSite, pair: Clusters) -> None:
    calls: list[tuple[float, Order]] = []
    with watching(watched_pair(site, pair, calls)) as watch:
        for who in (pair.postmaster("a"), -os.getpgid(pair.postmaster("a"))):
            kill = os.kill if who > 0 else lambda group, number: os.killpg(-group, number)
            kill(who, signal.SIGSTOP)
            time.sleep(2)
            kill(who, signal.SIGCONT)
            until(lambda: kind(watch) is Watch.CALM, lambda: watch.decision)
        pair.sql("a", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid();")
        until(lambda: kind(watch) is Watch.CALM, lambda: watch.decision)
        time.sleep(2)
        until(lambda: kind(watch) is Watch.CALM, lambda: watch.decision)
        assert calls == []


def kind(watch: SiteWatch) -> Watch | None:
    """What is made of it now."""
    return watch.decision.kind if watch.decision else None


def test_the_position_is_on_both_nodes_seconds_after_a_write(site: HarborSite, pair: Clusters) -> None:
    with watching(watched_pair(site, pair, [])):
        pair.sql("a", "CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 1000);")
        wanted = pair.sql("a", "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn;")

        def kept() -> list[int]:
            paths = [pair.root / f"{name}.state" / "last_primary.json" for name in ("a", "b")]
            read = [last_primary_from(json.loads(path.read_text())) for path in paths if path.exists()]
            return [int(last.position.lsn) for last in read if last is not None and last.node == "node-a"]

        until(lambda: len(kept()) == 2 and min(kept()) >= int(wanted), kept, 20)


# Watches the pair whose directory is given, in a process that can be stopped; says what it makes of it.
WATCH_ALONE = """
import logging, sys, time
from pathlib import Path
from deployments.watch.watcher import Watcher
from tests.unit.harbor_site import make_site
from tests.unit.local_pair import Clusters
from tests.unit.test_watcher_on_servers import PATIENCE_S, watched_pair
logger = logging.getLogger("harbor_ha.watch")
logger.setLevel(logging.INFO)
logger.addHandler(logging.StreamHandler(sys.stdout))
class Calls(list):
    def append(self, call):
        print("CALLED", flush=True)
site = make_site(Path(sys.argv[3]))
site.failover.call_after_s = PATIENCE_S
pair = Clusters(Path(sys.argv[1]), sys.argv[2])
Watcher([watched_pair(site, pair, Calls())], rounds=False).run()
"""


def test_what_a_watcher_saw_before_it_was_stopped_is_void(tmp_path: Path, pair: Clusters) -> None:
    argv = [sys.executable, "-c", WATCH_ALONE, str(pair.root), pair.bin, str(tmp_path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    said: list[str] = []
    assert process.stdout is not None
    output = process.stdout
    reader = threading.Thread(target=lambda: said.extend(iter(output.readline, "")), daemon=True)
    reader.start()
    try:
        until(lambda: any("CALM" in line for line in said), lambda: said, 60)
        primary = pair.postmaster("a")
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(primary, signal.SIGSTOP)
        time.sleep(PATIENCE_S + 3)
        # Its lines of all this time are in the pipe: nobody got in for seven seconds.
        before = len(said)
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: any("void" in line for line in said[before:]), lambda: said)
        time.sleep(1.5)
        os.kill(primary, signal.SIGCONT)
        until(lambda: any("CALM" in line for line in said[before:]), lambda: said)
        assert not any("CALLED" in line for line in said), said
    finally:
        process.kill()
        process.wait(10)
        output.close()


def test_over_ssh_a_session_that_was_hung_up_is_opened_again(tmp_path: Path) -> None:
    wanted = {"bin_dir": "/nonexistent", "major": 15, "data_dir": str(tmp_path), "socket_dir": str(tmp_path)}
    wanted |= {"port": 1, "state_dir": str(tmp_path), "guard_file": "/nonexistent/guard.json"}
    wanted |= {"shared_paused": None, "silence_s": 20.0, "beat_s": 1.0}
    with running_sshd({}) as node:
        host = connect(node)
        listener = Listener(
            "node-a",
            wanted,
            lambda limit: host.stream(["python3", "-u", "-c", BEACON], timeout=limit),
            host.close,
        )
        listener.start()
        try:
            until(lambda: listener.lines >= 3, lambda: listener.error)
            host.close()
            until(lambda: bool(listener.error), lambda: listener.lines)
            lines = listener.lines
            until(lambda: listener.lines >= lines + 3, lambda: listener.error)
        finally:
            listener.stop()


def test_who_hears_nothing_hangs_up_by_itself(pair: Clusters) -> None:
    with listening("a", request(pair, "a")) as listener:
        until(lambda: listener.lines >= 2, lambda: listener.error)
        assert not listener.hang_up_when_deaf(time.monotonic())
        assert listener.hang_up_when_deaf(time.monotonic() + 12)
        assert not listener.hang_up_when_deaf(time.monotonic() + 12), "once for a session"


def test_the_process_tells_its_metrics_and_ends_with_its_input(
    site: HarborSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    write_copy(site)
    port = free_port()
    argv = [sys.executable, "-m", "deployments.cli", "watch", "--with-input", "--site", site.name]
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen([*argv, "--port", str(port)], stdin=subprocess.PIPE, stderr=said, cwd=ROOT)
    try:
        until(lambda: "harbor_ha_node_heard" in metrics(port), lambda: process.poll(), 60)
        assert f'harbor_ha_watch{{site="{site.name}",state="UNKNOWN"}} 1.0' in metrics(port)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
        assert "watching" in log.read_text()
        # After each line of its log: it runs no flow.
        assert "without a flow run id" not in log.read_text()
    finally:
        process.kill()
        process.wait(10)


def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def metrics(port: int) -> str:
    """What Prometheus would get; nothing as long as nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
