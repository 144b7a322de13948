"""When a standby last heard its primary is kept for whoever decides hours later; on real PostgreSQL."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import heard
from tests.unit.local_pair import Clusters, clusters

pytestmark = pytest.mark.servers

__all__ = ["clusters"]


@pytest.fixture
def ear(clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> heard.Ear:
    monkeypatch.setattr(heard, "SILENT_S", 1.5)
    monkeypatch.setattr(heard, "reaches", lambda address, port: "silent")
    Path(clusters.given("b")["state_dir"]).mkdir(exist_ok=True)
    return heard.Ear()


def config(pair: Clusters) -> dict[str, Any]:
    return pair.given("b", peers=[["a", "127.0.0.1", 1]])


def note(pair: Clusters) -> dict[str, Any] | None:
    file = Path(pair.given("b")["state_dir"]) / "heard.json"
    found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
    return found


def listen_until_silent(ear: heard.Ear, pair: Clusters, limit_s: float = 20.0) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    while True:
        ear.listen(config(pair))
        found = note(pair)
        if found is not None:
            return found
        assert time.monotonic() < deadline, "no note"
        time.sleep(0.2)


def test_the_last_word_is_kept_when_the_primary_falls_silent_and_does_not_move(
    clusters: Clusters, ear: heard.Ear
) -> None:
    ear.listen(config(clusters))
    assert note(clusters) is None
    clusters.stop("a", "immediate")
    died = time.time()
    found = listen_until_silent(ear, clusters)
    assert found["silent"] is True
    assert died - 12 < found["at"] < died + 1
    time.sleep(1.5)
    ear.listen(config(clusters))
    assert note(clusters) == found


def test_the_note_is_gone_when_the_primary_is_heard_again(clusters: Clusters, ear: heard.Ear) -> None:
    ear.listen(config(clusters))
    clusters.stop("a", "immediate")
    listen_until_silent(ear, clusters)
    clusters.start("a")
    deadline = time.monotonic() + 20
    while note(clusters) is not None:
        assert time.monotonic() < deadline
        ear.listen(config(clusters))
        time.sleep(0.2)


def test_an_open_port_of_a_primary_that_does_not_stream_is_a_sign_of_life(
    clusters: Clusters, ear: heard.Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear.listen(config(clusters))
    clusters.stop("a", "immediate")
    monkeypatch.setattr(heard, "reaches", lambda address, port: "open")
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        ear.listen(config(clusters))
        assert note(clusters) is None
        time.sleep(0.3)


def test_a_restart_of_the_service_goes_on_with_its_note(clusters: Clusters, ear: heard.Ear) -> None:
    ear.listen(config(clusters))
    clusters.stop("a", "immediate")
    found = listen_until_silent(ear, clusters)
    heard.Ear().listen(config(clusters))
    assert note(clusters) == found


def test_a_server_that_was_down_has_not_listened_and_knows_no_last_word(
    clusters: Clusters, ear: heard.Ear
) -> None:
    ear.listen(config(clusters))
    clusters.stop("a", "immediate")
    listen_until_silent(ear, clusters)
    clusters.stop("b")
    ear.listen(config(clusters))
    assert note(clusters) is None
    clusters.start("b")
    ear.listen(config(clusters))
    assert note(clusters) is None


def test_a_service_that_starts_beside_another_server_does_not_believe_the_note(
    clusters: Clusters, ear: heard.Ear
) -> None:
    ear.listen(config(clusters))
    clusters.stop("a", "immediate")
    listen_until_silent(ear, clusters)
    clusters.stop("b")
    clusters.start("b")
    heard.Ear().listen(config(clusters))
    assert note(clusters) is None


def test_a_primary_keeps_no_note(clusters: Clusters, ear: heard.Ear) -> None:
    ear.listen(config(clusters))
    clusters.stop("a", "immediate")
    listen_until_silent(ear, clusters)
    clusters.promote("b")
    ear.listen(config(clusters))
    assert note(clusters) is None
