"""Two orchestrators and one site: the lock and the record on the nodes."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from blocks import HarborSite
from tasks.errors import HostUnreachable, Superseded
from tasks.hosts.connection import Host
from tasks.on_node import authority as authority_module
from tasks.on_node import operation_file, shared_copy
from tasks.on_node.authority import authorized, begun, still_mine, stopping
from tasks.operation import holder, store
from tasks.operation.record import (
    OperationKind,
    OperationRecord,
    Phase,
    RecordDamaged,
    acceptance,
    record_from,
)

NODES = [SimpleNamespace(name="node-a", runs_harbor=True), SimpleNamespace(name="node-b", runs_harbor=True)]
SITE = cast(
    HarborSite,
    SimpleNamespace(
        name="demo",
        nodes=NODES,
        node=lambda name: next(node for node in NODES if node.name == name),
        nas=SimpleNamespace(path="/nonexistent/nas"),
    ),
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
    with store.renewed(SITE, *hosts(nodes), op_id="op-1", every_s=0.05):
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


def test_an_operation_of_a_lower_term_than_a_node_knows_gets_no_lock(nodes: list[Node]) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-2", term=7)
    store.release(SITE, *hosts(nodes), op_id="op-2")
    with pytest.raises(Superseded, match="term 7"):
        store.acquire(SITE, *hosts(nodes), op_id="op-1", term=6)
    with pytest.raises(Superseded, match="op-2"):
        store.acquire(SITE, *hosts(nodes), op_id="op-3", term=7)
    assert store.acquire(SITE, *hosts(nodes), op_id="op-2", term=7).data["locked"] == ["node-a", "node-b"]
    assert nodes[0].state("term") == {"term": 7, "op_id": "op-2"}


def test_a_term_that_only_the_nas_still_knows_counts(nodes: list[Node]) -> None:
    # A file system that is mounted, as the NAS is.
    name = f"test-{uuid4().hex}"
    site = cast(
        HarborSite, SimpleNamespace(**{**vars(SITE), "name": name, "nas": SimpleNamespace(path="/dev/shm")})
    )
    try:
        store.acquire(site, *hosts(nodes[:1]), op_id="op-9", term=9)
        with pytest.raises(Superseded, match="op-9"):
            store.acquire(site, *hosts(nodes[1:]), op_id="op-8", term=8)
    finally:
        shutil.rmtree(f"/dev/shm/.harbor-ha/{name}", ignore_errors=True)


def test_a_copy_on_the_nas_that_says_nothing_ends_no_operation(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is a witness more: the look took it for unknown, and the node for a damaged record of its own.
    damaged = {"term": "nine", "timeline": "two", "primary": "node-a", "system_identifier": "7"}
    monkeypatch.setattr(shared_copy, "read_shared", lambda p, name: damaged)
    store.acquire(SITE, *hosts(nodes), op_id="op-1", term=1)
    accepted = acceptance("node-b", 2, "7", 1)
    promoted = replace(record(Phase.OPENING), term=1)
    store.advance(SITE, *hosts(nodes), record=promoted, required=["node-b"], accepted=accepted)
    assert nodes[1].state("accepted")["primary"] == "node-b"


def test_a_node_whose_disk_is_full_is_missed_and_does_not_end_the_operation(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The state directory of the first node cannot be made: its parent is a file.
    (nodes[0].directory.parent / "file").write_text("")
    nodes[0].directory = nodes[0].directory.parent / "file" / "a"
    taken = store.acquire(SITE, *hosts(nodes), op_id="op-1", term=1, required=["node-b"])
    assert taken.data["locked"] == ["node-b"]
    assert "Nothing can be recorded" in taken.data["missed"]["node-a"]


def test_a_later_acceptance_is_not_replaced_by_one_that_comes_late(nodes: list[Node]) -> None:
    later, earlier = acceptance("node-b", 3, "7", 5), acceptance("node-a", 2, "7", 4)
    assert store.accept(SITE, *hosts(nodes), accepted=later).changed
    with pytest.raises(Superseded):
        store.accept(SITE, *hosts(nodes), accepted=earlier)
    assert not store.accept(SITE, *hosts(nodes), accepted=later).changed
    assert nodes[0].state("accepted")["primary"] == "node-b"


def test_the_new_primary_is_accepted_with_the_record_that_opens_traffic(nodes: list[Node]) -> None:
    store.acquire(SITE, *hosts(nodes), op_id="op-1", term=1)
    opening = replace(record(Phase.OPENING), term=1)
    store.advance(SITE, *hosts(nodes), record=opening, accepted=acceptance("node-b", 2, "7", 1))
    assert [node.state("accepted")["timeline"] for node in nodes] == [2, 2]
    assert [node.state("operation")["phase"] for node in nodes] == ["opening", "opening"]


class TestAuthority:
    """What a program on a node is allowed to do, when it comes to do it."""

    @pytest.fixture
    def given(self, nodes: list[Node]) -> dict[str, Any]:
        store.acquire(SITE, *hosts(nodes), op_id="op-1", term=3)
        store.advance(SITE, *hosts(nodes), record=replace(record(Phase.PROMOTING), term=3))
        authority = {"term": 3, "operation": "op-1", "holder": store.holder(), "phases": ["promoting"]}
        return {"state_dir": str(nodes[0].directory), "authority": authority}

    def test_the_step_of_the_record_is_done(self, given: dict[str, Any]) -> None:
        assert authorized(given, lambda p: {"done": True}) == {"done": True}

    def test_a_program_that_was_delivered_minutes_late_does_nothing(
        self, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = authority_module.uptime()
        monkeypatch.setattr(authority_module, "uptime", lambda: now + 31)
        assert "more than 30 s ago" in authorized(given, lambda p: {"done": True})["outdated"]

    def test_a_clock_that_was_set_makes_no_old_intent_new(
        self, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "time", lambda: 1.0)
        assert authorized(given, lambda p: {"done": True}) == {"done": True}

    def test_the_operation_was_closed_meanwhile(self, given: dict[str, Any], nodes: list[Node]) -> None:
        store.close(SITE, *hosts(nodes), record=replace(record(Phase.ABORTED), term=3))
        assert "held by nobody" in authorized(given, lambda p: {"done": True})["outdated"]

    def test_another_orchestrator_has_taken_over(
        self, given: dict[str, Any], nodes: list[Node], other_process: Any
    ) -> None:
        store.release(SITE, *hosts(nodes), op_id="op-1")
        other_process()
        store.acquire(SITE, *hosts(nodes), op_id="op-1", term=3)
        assert "the lock is held by" in authorized(given, lambda p: {"done": True})["outdated"]

    def test_a_later_operation_is_known(
        self, given: dict[str, Any], nodes: list[Node], other_process: Any
    ) -> None:
        store.release(SITE, *hosts(nodes), op_id="op-1")
        other_process()
        store.acquire(SITE, *hosts(nodes), op_id="op-2", term=4)
        for guarded in (authorized, begun, stopping):
            assert "term 4 (op-2)" in guarded(given, lambda p: {"done": True})["outdated"]
        assert "term 4 (op-2)" in str(still_mine(given))

    def test_the_record_is_at_another_step(self, given: dict[str, Any], nodes: list[Node]) -> None:
        store.advance(SITE, *hosts(nodes), record=replace(record(Phase.OPENING), term=3))
        assert "is at `opening`" in authorized(given, lambda p: {"done": True})["outdated"]

    def test_a_node_that_can_keep_no_record_is_stopped_all_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        authority = {"term": 3, "operation": "op-1", "holder": "me", "phases": ["fencing"]}
        given = {"state_dir": str(tmp_path / "file" / "state"), "authority": authority}
        assert stopping(given, lambda p: {"stopped": True}) == {"stopped": True}

    def test_a_step_without_an_operation_does_not_run_into_one(self, given: dict[str, Any]) -> None:
        alone = {"state_dir": given["state_dir"]}
        assert "op-1 is under way" in authorized(alone, lambda p: {"done": True})["outdated"]


@pytest.mark.parametrize(("up_s", "alive"), [(59.0, True), (60.0, False)])
def test_a_lock_from_before_a_boot_is_over_a_minute_after_it_whatever_its_wall_clock_said(
    up_s: float, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine's clock was two hours ahead when it wrote the lock, and is right since its boot.
    monkeypatch.setattr(authority_module, "uptime", lambda: up_s)
    renewed = {"boot": "another", "uptime": 9000.0}
    lock = {"expires_at": time.time() + 7200, "ttl_s": 60.0, "renewed": renewed}
    assert authority_module.alive(lock) is alive


def test_a_record_that_was_sent_before_another_does_not_replace_it(nodes: list[Node]) -> None:
    # The program of `fencing` was delivered 45 s late, when the standby had been promoted: a node's copy went back to
    # a phase after which everything may be taken back.
    store.acquire(SITE, *hosts(nodes), op_id="op-1", term=1)
    sent: list[dict[str, Any]] = []
    late = nodes[1].python
    nodes[1].python = lambda source, payload, **_: sent.append(payload) or {"state": "written"}  # type: ignore
    store.advance(SITE, *hosts(nodes), record=replace(record(Phase.FENCING), term=1))
    nodes[1].python = late  # type: ignore[method-assign]
    store.advance(SITE, *hosts(nodes), record=replace(record(Phase.PROMOTING), term=1))
    answer = late("", sent[0], timeout=1.0)
    assert answer["state"] == "late"
    assert nodes[1].state("operation")["phase"] == "promoting"
