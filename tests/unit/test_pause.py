"""A pause is not lost with the node that was told of it."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.pause import headline
from flows.rules.admission import Admission, admit_failover, pause_reason
from flows.rules.policy import Policy
from tasks.observation.look import with_pause
from tasks.on_node import shared_file
from tasks.outcome import changed
from tests.unit.facts_builder import NOW, deaf_standby, node, unreached

PAUSED = {"paused": {"reason": "new switch"}}
DATABASES = frozenset({"node-a", "node-b"})


def test_a_pause_that_only_the_nas_holds_outlives_the_node_that_was_told() -> None:
    seen = with_pause([unreached(), replace(deaf_standby(), shared=PAUSED)], DATABASES)
    decision = admit_failover(seen, "node-a", Policy(), "me:1", NOW)
    assert decision.kind is Admission.PAUSED
    assert "new switch" in decision.reasons[0]


def test_a_pause_on_a_node_without_a_database_counts() -> None:
    seen = with_pause([unreached(), deaf_standby(), node("node-c", state=PAUSED)], DATABASES)
    assert pause_reason(seen[1]) == "new switch"


def test_without_a_pause_nothing_is_made_up() -> None:
    seen = [unreached(), deaf_standby(), node("node-c")]
    assert with_pause(seen, DATABASES) == tuple(seen)


def test_the_report_says_who_holds_the_pause_and_when_it_hangs_on_one() -> None:
    alone = headline("main", changed("", written=["node-a"], missed={"node-b": "away"}), False)
    assert "paused on node-a, not on node-b, the NAS; when node-a is lost, so is the pause" in alone
    shared = headline("main", changed("", written=["node-a"], missed={}), True)
    assert "paused on node-a, the NAS:" in shared


@pytest.fixture
def nas() -> Iterator[dict[str, Any]]:
    """A file system that is mounted, as the NAS is, with a directory of this test's own."""
    site = f"test-{uuid4().hex}"
    yield {"nas_path": "/dev/shm", "site": site, "name": "paused", "text": "{}"}
    shutil.rmtree(f"/dev/shm/.harbor-ha/{site}", ignore_errors=True)


def test_the_nas_is_written_only_where_it_is_mounted(tmp_path: Path, nas: dict[str, Any]) -> None:
    absent = {**nas, "nas_path": str(tmp_path)}
    assert "nothing is mounted on" in shared_file.act(absent)["problem"]
    assert list(tmp_path.iterdir()) == []
    assert shared_file.act(nas) == {"state": "written", "changed": True}
    assert shared_file.act(nas) == {"state": "written", "changed": False}
    assert shared_file.act({**nas, "text": None}) == {"state": "removed", "changed": True}
    assert shared_file.act({**nas, "text": None}) == {"state": "removed", "changed": False}


def test_a_nas_that_cannot_be_written_is_a_result(nas: dict[str, Any]) -> None:
    directory = Path("/dev/shm/.harbor-ha")
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / nas["site"]).touch()
    assert "cannot be written" in shared_file.act(nas)["problem"]
    (directory / nas["site"]).unlink()
