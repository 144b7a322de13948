"""A pause is not lost with the node that was told of it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from flows.pause import _told
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
    alone = _told("main", changed("", written=["node-a"], missed={"node-b": "away"}), False)
    assert "paused on node-a, not on node-b, the NAS; when node-a is lost, so is the pause" in alone
    shared = _told("main", changed("", written=["node-a"], missed={}), True)
    assert "paused on node-a, the NAS:" in shared


def test_the_nas_is_written_only_where_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".harbor-ha" / "main" / "paused.json"
    p = {"mount": str(tmp_path), "path": str(path), "text": "{}", "limit_s": 5}
    assert "is not mounted" in shared_file.in_time(p)["problem"]
    assert not path.exists()
    monkeypatch.setattr(os.path, "ismount", lambda mount: True)
    assert shared_file.in_time(p) == {"state": "written", "changed": True}
    assert shared_file.in_time(p) == {"state": "written", "changed": False}
    assert shared_file.in_time({**p, "text": None}) == {"state": "removed", "changed": True}


def test_a_nas_that_cannot_be_written_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda mount: True)
    (tmp_path / "file").touch()
    p = {"mount": str(tmp_path), "path": str(tmp_path / "file" / "x.json"), "text": "{}", "limit_s": 5}
    assert (
        "directory" in shared_file.in_time(p)["problem"].lower()
        or "exists" in shared_file.in_time(p)["problem"]
    )
