"""What the bucket says of base backups, when one of its records is not what was written."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.pitr.catalogue import BASES, RecordDamaged, read_bases, record_bases
from tasks.pitr.repository import BaseBackup
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_store import local_store

AT = datetime(2026, 11, 22, 3, tzinfo=UTC)
BASE = BaseBackup("20261122-030000F", AT, AT, "7", 15, "15-1", "000000010000000000000002", 1000)
KEY = f"{BASES}main/{BASE.label}.json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_oss(tmp_path) as server:
        made = local_store(server)
        made.put_bytes(f"pgbackrest/backup/main/{BASE.label}/backup.manifest", b"whole")
        record_bases(made, "main", [BASE])
        yield made


def test_a_recorded_base_backup_comes_back(store: ObjectStore) -> None:
    assert read_bases(store, "main") == [BASE]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", json.dumps({"started": AT.isoformat(), "stopped": AT.isoformat()}).encode()],
    ids=["empty", "cut off", "a list", "nothing in it", "too little"],
)
def test_a_damaged_record_is_named_and_says_what_to_do(store: ObjectStore, content: bytes) -> None:
    store.put_bytes(KEY, content)
    with pytest.raises(RecordDamaged) as raised:
        read_bases(store, "main")
    assert KEY in str(raised.value)
    assert "run base-backup" in str(raised.value)


def test_the_next_base_backup_writes_the_record_that_was_deleted(store: ObjectStore) -> None:
    store.delete_many([KEY])
    newer = replace(BASE, label="20261129-030000F")
    store.put_bytes(f"pgbackrest/backup/main/{newer.label}/backup.manifest", b"whole")
    record_bases(store, "main", [BASE, newer])
    assert [base.label for base in read_bases(store, "main")] == [BASE.label, newer.label]
