"""What Prometheus gets to see: each metric that is promised, and nothing that is not known."""

import socket
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployments.watch.metrics import METRICS, SiteCollector, serve_metrics
from deployments.watch.rounds import Backups, Round
from deployments.watch.watcher import Watcher
from flows.rules.table import Decision
from flows.rules.verdict import Verdict
from tasks.balancer.states import NodeState, Served
from tasks.observation.beats import Beat, SenderBeat
from tasks.observation.look import SiteLook
from tasks.observation.witnesses import Answers
from tasks.operation.record import OperationKind, OperationRecord
from tests.unit.facts_builder import harbor, primary, standby
from tests.unit.harbor_site import make_site
from tests.unit.test_rules_watch import T, down, later, silent, up
from tests.unit.watched_site import Scene

SENDER = SenderBeat("ha_node_b", "streaming", "sync", 0, None)
Found = dict[tuple[str, ...], float]


def told(scene: Scene, seconds: float) -> dict[str, Found]:
    """What is told so many seconds after T: by name, and by the values of the labels beside `site`."""
    now = later(seconds)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiteCollector([scene.item], lambda: (now.monotonic, now.wall)))
    found: dict[str, Found] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            assert sample.labels["site"] == "example"
            name = sample.name.removeprefix("harbor_ha_")
            assert set(sample.labels) == {"site", *METRICS[name][1]}
            labels = tuple(sample.labels[label] for label in METRICS[name][1])
            found.setdefault(name, {})[labels] = sample.value
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(make_site(tmp_path))


def well(*, notes: dict[str, object] | None = None, sender: SenderBeat = SENDER) -> list[Beat]:
    """A sound pair at T."""
    guard = {"guard_age_s": 3.0, "notes": notes or {}}
    return [up(T, senders=(sender,), **guard), down(T, heard_at=T.monotonic - 0.3, **guard)]


def full(scene: Scene) -> None:
    """Have everything known that can be known."""
    record = OperationRecord("op", OperationKind.REJOIN, "example", "node-a", "node-b", 2, T.wall - 9, "h:1")
    notes: dict[str, object] = {
        "durability": {"state": "SYNC", "lsn": "0/5", "at": T.wall},
        "operation": {**asdict(record), "kind": "rejoin", "phase": "rewinding"},
    }
    scene.live(T, 0, lambda now: well(notes=notes))
    scene.listeners["node-b"].kept_at["last_primary"] = T.monotonic
    ends = datetime.fromtimestamp(T.wall, UTC) + timedelta(days=30)
    served = {"harbor": harbor(certificate_end=ends)}
    seen = SiteLook((primary(**served), standby(**served)), frozenset({"node-a", "node-b"}), 0.2)
    answers = Answers(T, balancer={"node-a": NodeState(Served.UP), "node-b": NodeState(Served.DOWN)})
    judged = Decision(Verdict.DEGRADED, "not balanced", ("node-b is not served",), ("",))
    scene.item.round = Round(T.wall, 0.7, seen, answers, judged, ("Redis does not see node-b",))
    begun = datetime.fromtimestamp(T.wall, UTC)
    scene.item.backups = Backups(begun - timedelta(hours=3), begun - timedelta(days=3), 9)


def test_everything_that_is_promised_is_told_when_it_is_known(scene: Scene) -> None:
    full(scene)
    found = told(scene, 1)
    assert set(METRICS) - set(found) == set()
    assert found["primary"] == {("node-a",): 1, ("node-b",): 0}
    assert found["verdict"][("DEGRADED",)] == 1
    assert sum(found["verdict"].values()) == 1
    assert found["watch"][("CALM",)] == 1
    assert (found["lag_bytes"], found["lag_seconds"]) == ({("node-b",): 0}, {("node-b",): 0})
    assert found["synchronous"] == {("node-b",): 1}
    assert found["durability"][("SYNC",)] == 1
    assert found["operation_seconds"] == {("rejoin", "rewinding"): pytest.approx(10)}
    assert found["balancer_serves"] == {("node-a",): 1, ("node-b",): 0}
    assert found["receiver_age_seconds"] == {("node-b",): pytest.approx(1.3)}
    assert found["certificate_days"][("node-b",)] == pytest.approx(30, abs=0.01)
    assert found["last_backup_timestamp_seconds"] == {(): T.wall - 3 * 3600}


def test_before_anything_was_heard_only_that_is_told(scene: Scene) -> None:
    found = told(scene, 0)
    assert set(found) == {
        "watch",
        "primary",
        "primary_lost",
        "primaries",
        "node_heard",
        "postgres_answers",
        "backups_wanted",
        "calls_total",
        "calls_failed_total",
        "stood_still_total",
        "prefect_takes_calls",
    }
    assert found["node_heard"] == {("node-a",): 0, ("node-b",): 0}


def test_what_a_node_said_that_is_silent_now_is_told_no_more(scene: Scene) -> None:
    full(scene)
    found = told(scene, 4000)
    assert found["node_heard"] == {("node-a",): 0, ("node-b",): 0}
    for name in ("in_recovery", "receiver_age_seconds", "lag_bytes", "guard_age_seconds", "verdict"):
        assert name not in found
    assert found["verdict_age_seconds"] == {(): 4000}


def test_a_primary_in_trouble_is_lost_when_the_patience_is_over(scene: Scene) -> None:
    scene.live(T, 30, lambda now: [up(now), down(now)])
    assert set(told(scene, 30)["primary_lost"].values()) == {0}
    assert told(scene, 30)["trouble_seconds"] == {(): 0}
    scene.live(later(30.5), 20, lambda now: [replace(silent(later(30))), down(now)])
    found = told(scene, 50.5)
    assert found["primary_lost"] == {("node-a",): 1, ("node-b",): 0}
    assert found["trouble_seconds"][()] == pytest.approx(20.5, abs=1)
    assert found["postgres_answers"] == {("node-a",): 0, ("node-b",): 1}
    assert found["calls_total"] == {(): 1}


def test_a_standby_that_lags_is_told_by_bytes_and_seconds(scene: Scene) -> None:
    behind = replace(SENDER, sync_state="async", lag_bytes=1 << 20, lag_s=2.5)
    scene.live(T, 0, lambda now: well(sender=behind))
    found = told(scene, 0.5)
    assert (found["lag_bytes"], found["lag_seconds"]) == ({("node-b",): 1 << 20}, {("node-b",): 2.5})
    assert found["synchronous"] == {("node-b",): 0}
    scene.live(T, 0, lambda now: well(sender=replace(behind, lag_s=None)))
    assert "lag_seconds" not in told(scene, 0.5), "behind, and for how long is not known"


@pytest.mark.servers
def test_a_port_that_the_watcher_of_before_still_holds_is_had_when_it_lets_go() -> None:
    """The watcher as a service was started before the runner's own had ended, and never had metrics."""
    watcher = Watcher([], rounds=False)
    with socket.create_server(("127.0.0.1", 0)) as before:
        port = before.getsockname()[1]
        serve_metrics(watcher, "127.0.0.1", port, again_s=0.05)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            held, _ = before.accept()
            held.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=2)
            break
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "it has not tried again"
    watcher.stop()
    assert answer.status_code == 200
