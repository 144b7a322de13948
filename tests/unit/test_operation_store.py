"""Two orchestrators and one site: the lock and the record on the nodes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks import HarborSite
from tasks.errors import HostUnreachable
from tasks.hosts.connection import Host
from tasks.on_node import operation_file
from tasks.operation import holder, store
from tasks.operation.record import OperationKind, OperationRecord, Phase, RecordDamaged, record_from

SITE = cast(
    HarborSite, SimpleNamespace(nodes=[SimpleNamespace(name="node-a"), SimpleNamespace(name="node-b")])
)


class Node:
    """A node of which only the state directory exists."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory, self.away = name, directory, False

    def python(self, source: str, payload: dict[str, Any], *, timeout: float) -> Any:
        if self.away:
            raise HostUnreachable("No SSH answer.", where=self.name)
        return operation_file.act({**payload, "state_dir": str(self.directory)})

    def state(self, name: str) -> Any:
        path = self.directory / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def nodes(tmp_path: Path) -> list[Node]:
    return [Node("node-a", tmp_path / "a"), Node("node-b", tmp_path / "b")]


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Speak as another, living process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = str(holder.process_of(process.pid))
        yield lambda: monkeypatch.setattr(store, "holder", lambda: name)
        process.kill()


def hosts(nodes: list[Node]) -> list[Host]:
    return cast(list[Host], nodes)


def record(phase: Phase) -> OperationRecord:
    return OperationRecord(
        "op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 1, 1.0, store.holder(), phase
    )


def test_a_second_orchestrator_is_refused_and_leaves_no_lock_behind(
    nodes: list[Node], other_process: Any
) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-1")
    other_process()
    with pytest.raises(store.LockHeld, match="op-1"):
        store.acquire(SITE, *hosts(nodes), op_id="op-2")
    assert [node.state("lock")["op_id"] for node in nodes] == ["op-1", "op-1"]


def test_the_one_that_loses_on_the_second_node_gives_the_first_one_back(
    nodes: list[Node], other_process: Any
) -> None:
    store.acquire(SITE, *hosts(nodes[1:]), op_id="op-1")
    other_process()
    with pytest.raises(store.LockHeld):
        store.acquire(SITE, *hosts(nodes), op_id="op-2")
    assert nodes[0].state("lock") is None


def test_locks_are_taken_in_the_order_of_the_site_whatever_the_call_says(
    nodes: list[Node], other_process: Any
) -> None:
    store.acquire(SITE, *hosts(nodes[:1]), op_id="op-1")
    other_process()
    with pytest.raises(store.LockHeld) as caught:
        store.acquire(SITE, *hosts(nodes[::-1]), op_id="op-2")
    assert caught.value.where == "node-a"
    assert nodes[1].state("lock") is None


def test_the_lock_of_a_killed_process_is_taken_over_at_once(nodes: list[Node], other_process: Any) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        dead = str(holder.process_of(process.pid))
        assert not holder.known_dead(dead)
        process.kill()
    for node in nodes:
        lock = {"op_id": "op-1", "holder": dead, "taken_at": 1.0, "expires_at": 9e9}
        node.directory.mkdir()
        (node.directory / "lock.json").write_text(json.dumps(lock))
    assert store.acquire(SITE, *hosts(nodes), op_id="op-1").data["taken_over"] == [dead]


def test_a_lock_of_another_machine_holds_until_it_runs_out(nodes: list[Node]) -> None:
    lock = {"op_id": "op-1", "holder": "elsewhere:1:2:3:4:5", "taken_at": 1.0, "expires_at": 9e9}
    nodes[0].directory.mkdir()
    (nodes[0].directory / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(store.LockHeld):
        store.acquire(SITE, *hosts(nodes), op_id="op-2")
    (nodes[0].directory / "lock.json").write_text(json.dumps({**lock, "expires_at": 2.0}))
    assert store.acquire(SITE, *hosts(nodes), op_id="op-2").data["taken_over"] == ["elsewhere:1:2:3:4:5"]


def test_taking_the_own_lock_again_changes_nothing(nodes: list[Node]) -> None:
    assert store.acquire(SITE, *hosts(nodes), op_id="op-1").changed
    assert not store.acquire(SITE, *hosts(nodes), op_id="op-1").changed


def test_the_dead_primary_is_left_out_but_the_node_to_promote_must_be_locked(nodes: list[Node]) -> None:
    nodes[0].away = True
    taken = store.acquire(SITE, *hosts(nodes), op_id="op-1", required=["node-b"])
    assert taken.data["locked"] == ["node-b"]
    with pytest.raises(store.NotMirrored, match="node-a"):
        store.acquire(SITE, *hosts(nodes), op_id="op-1", required=["node-a"])
    assert nodes[1].state("lock") is None


def test_a_process_that_slept_through_its_lock_cannot_record_the_promotion(
    nodes: list[Node], other_process: Any
) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-1")
    slept = record(Phase.PROMOTING)
    for node in nodes:
        (node.directory / "lock.json").unlink()
    with pytest.raises(store.LockLost, match="nobody"):
        store.advance(SITE, *hosts(nodes), record=slept, required=["node-b"])
    assert nodes[1].state("operation") is None


def test_the_record_is_on_both_nodes_and_the_lock_goes_with_its_end(nodes: list[Node]) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-1")
    store.advance(SITE, *hosts(nodes), record=record(Phase.PROMOTING), required=["node-b"])
    for node in nodes:
        assert record_from(node.state("operation")) == record(Phase.PROMOTING)
    store.close(SITE, *hosts(nodes), record=record(Phase.DONE))
    assert [node.state("lock") for node in nodes] == [None, None]
    assert record_from(nodes[0].state("operation")) == record(Phase.DONE)


def test_without_the_node_to_promote_the_record_counts_as_not_written(nodes: list[Node]) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-1")
    nodes[1].away = True
    with pytest.raises(store.NotMirrored, match="node-b"):
        store.advance(SITE, *hosts(nodes), record=record(Phase.PROMOTING), required=["node-b"])


def test_a_lock_is_renewed_while_a_long_step_runs(nodes: list[Node]) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-1")
    before = nodes[1].state("lock")["expires_at"]
    with store.renewed(*hosts(nodes), op_id="op-1", every_s=0.05):
        deadline = time.monotonic() + 5
        while nodes[1].state("lock")["expires_at"] == before and time.monotonic() < deadline:
            time.sleep(0.02)
    assert nodes[1].state("lock")["expires_at"] > before


def test_a_damaged_lock_is_not_taken_for_a_free_one(nodes: list[Node]) -> None:
    nodes[0].directory.mkdir()
    (nodes[0].directory / "lock.json").write_text('{"op_id": ')
    with pytest.raises(RecordDamaged):
        store.acquire(SITE, *hosts(nodes), op_id="op-1")


def test_a_pause_is_over_only_when_no_node_says_it_any_more(nodes: list[Node]) -> None:
    store.pause(SITE, *hosts(nodes), reason="disk swap", by="ann")
    assert nodes[1].state("paused")["reason"] == "disk swap"
    nodes[1].away = True
    with pytest.raises(store.NotMirrored):
        store.unpause(SITE, *hosts(nodes))
    nodes[1].away = False
    store.unpause(SITE, *hosts(nodes))
    assert [node.state("paused") for node in nodes] == [None, None]
