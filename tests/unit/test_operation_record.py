"""The record that a second orchestrator finds."""

import json

import pytest

from tasks.operation.record import (
    Fence,
    LastPrimary,
    Lock,
    OperationKind,
    OperationRecord,
    Phase,
    RecordDamaged,
    last_primary_from,
    lock_from,
    record_from,
    to_json,
)
from tasks.postgres.lsn import Lsn, WalPosition

LAST = LastPrimary("node-a", WalPosition(2, Lsn(0x6000000)), 1_700_000_000.0)
RECORD = OperationRecord(
    op_id="op-1",
    kind=OperationKind.FAILOVER,
    site="demo",
    expected_primary="node-a",
    target="node-b",
    from_timeline=2,
    started_at=1_700_000_000.0,
    orchestrator="host:1",
    phase=Phase.FENCED,
    fence=Fence("STOPPED", "seen", 1_700_000_001.0),
    last_primary=LAST,
    notes={"reason": "alert"},
)


def test_a_record_survives_the_way_over_a_node() -> None:
    assert record_from(json.loads(to_json(RECORD))) == RECORD


def test_a_record_without_a_fence_survives_too() -> None:
    begun = OperationRecord("op-2", OperationKind.REJOIN, "demo", "node-b", "node-a", None, 1.0, "host:1")
    assert record_from(json.loads(to_json(begun))) == begun


def test_a_lock_and_a_last_position_survive() -> None:
    lock = Lock("op-1", "host:1", 10.0, 25.0)
    assert lock_from(json.loads(to_json(lock))) == lock
    assert last_primary_from(json.loads(to_json(LAST))) == LAST
    fencing = LastPrimary(LAST.node, LAST.position, LAST.at, 20.0)
    assert last_primary_from(json.loads(to_json(fencing))) == fencing


def test_no_record_is_none() -> None:
    assert record_from(None) is None
    assert lock_from(None) is None
    assert last_primary_from(None) is None


@pytest.mark.parametrize("value", [{"damaged": True}, {}, [], "text", 7])
def test_a_damaged_record_is_never_taken_for_no_record(value: object) -> None:
    for read in (record_from, lock_from, last_primary_from):
        with pytest.raises(RecordDamaged, match="cannot be read"):
            read(value, "node-a")


def test_an_ended_operation_is_closed_and_all_others_are_open() -> None:
    closed = {phase for phase in Phase if not RECORD.at(phase).open}
    assert closed == {Phase.DONE, Phase.ABORTED}


def test_a_lock_dies_when_it_is_not_renewed() -> None:
    lock = Lock("op-1", "host:1", 10.0, 25.0)
    assert lock.alive(24.9)
    assert not lock.alive(25.0)
