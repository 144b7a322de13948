"""The lock in the bucket: one writer, also when writers die or are slow."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.oss.answers import document, elements
from lab.oss.bucket import set_worm
from lab.oss.server import OssServer
from tasks.backup.night.lock import (
    BucketLock,
    Holder,
    LockedByAnother,
    LockLost,
    _encode,
    acquire,
    held,
    new_owner,
)
from tasks.operation.holder import process_of
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_store import local_store

NOW = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
TTL = timedelta(minutes=15)


def versioned(server: OssServer) -> None:
    """Where versions are kept, OSS ignores x-oss-forbid-overwrite."""
    xml = document("VersioningConfiguration", elements({"Status": "Enabled"})).decode()
    server.store.catalog.set_setting("versioning", xml)


@pytest.fixture(params=["plain", "versioned"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    with running_oss(tmp_path) as server:
        if request.param == "versioned":
            versioned(server)
        yield local_store(server)


def take(store: ObjectStore, minutes: float = 0) -> BucketLock:
    return acquire(store, "backup", "nightly backup", ttl=TTL, now=lambda: NOW + timedelta(minutes=minutes))


def test_the_second_run_is_told_who_is_in_its_way(store: ObjectStore) -> None:
    take(store)
    with pytest.raises(
        LockedByAnother, match=f"nightly backup, process {os.getpid()} on .*, until 2026-11-22T01:15"
    ):
        take(store, 5)


def test_a_released_lock_is_free_at_once(store: ObjectStore) -> None:
    take(store).release()
    take(store)


def test_a_dead_run_gives_way_after_its_time_and_not_before(store: ObjectStore) -> None:
    take(store)
    with pytest.raises(LockedByAnother):
        take(store, 16)
    take(store, 18)


def test_a_run_that_was_silent_for_too_long_learns_that_it_lost(store: ObjectStore) -> None:
    slow = take(store)
    second = take(store, 18)
    with pytest.raises(LockLost):
        slow.renew()
    slow.release()
    with pytest.raises(LockedByAnother):
        take(store, 19)
    second.renew()


def test_a_contender_that_was_slow_between_looking_and_claiming_withdraws(store: ObjectStore) -> None:
    """It saw a free lock, and another run took it before its own claim was written."""
    holder = Holder(new_owner(), "slow", NOW.isoformat(), NOW.isoformat())
    slow = BucketLock(store, "meta/locks/backup/", "0123456789ab", holder, TTL, lambda: NOW)
    first = take(store)
    assert not slow.take()
    first.renew()
    assert len(list(store.list("meta/locks/backup/"))) == 1


def test_a_claim_that_was_never_finished_takes_the_lock_from_nobody(store: ObjectStore) -> None:
    """A contender that dies in the middle must not end the run that it contended with."""
    first = take(store)
    holder = Holder(new_owner(), "dead", NOW.isoformat(), NOW.isoformat())
    BucketLock(store, "meta/locks/backup/", "0123456789ab", holder, TTL, lambda: NOW)._claim("taking", TTL)
    first.renew()
    first.release()
    with pytest.raises(LockedByAnother, match="dead"):
        acquire(store, "backup", "next", ttl=TTL, now=lambda: NOW, sleep=lambda _: None)
    take(store, 18)


def test_a_lock_of_the_version_before_counts_until_its_time(store: ObjectStore) -> None:
    holder = Holder("other:1:abc", "nightly backup", NOW.isoformat(), (NOW + TTL).isoformat())
    store.put_bytes("meta/locks/backup/00000007.json", _encode(holder))
    with pytest.raises(LockedByAnother, match="nightly backup"):
        take(store)
    take(store, 18)


def test_of_many_at_the_same_instant_one_wins(store: ObjectStore) -> None:
    won: list[BucketLock] = []
    start = threading.Barrier(8)

    def contend() -> None:
        start.wait()
        try:
            won.append(take(store))
        except LockedByAnother:
            return

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_long_run_keeps_its_lock_by_renewing_it(store: ObjectStore) -> None:
    with held(store, "backup", "long", ttl=timedelta(seconds=0.4)) as lock:
        before = lock.holder.expires
        waited = threading.Event()
        while lock.holder.expires == before:
            assert not waited.wait(0.05)
    with held(store, "backup", "next"):
        pass


def test_under_a_retention_policy_the_lock_is_taken_renewed_released_and_taken_again(
    tmp_path: Path,
) -> None:
    """Nothing can be overwritten or deleted there, a lock neither."""
    with running_oss(tmp_path / "worm") as server:
        set_worm(server.store, 30, "Locked")
        store = local_store(server)
        first = take(store)
        first.renew()
        first.renew()
        with pytest.raises(LockedByAnother):
            take(store, 5)
        first.release()
        second = take(store)
        with pytest.raises(LockLost):
            first.renew()
        slow = take(store, 18)
        with pytest.raises(LockLost):
            second.renew()
        second.release()
        slow.renew()


def test_a_run_that_was_silent_while_another_came_and_went_learns_that_it_lost(store: ObjectStore) -> None:
    """What the other one did meanwhile, a backup or a clean-up, is not what this run has seen."""
    slow = take(store)
    take(store, 18).release()
    with pytest.raises(LockLost):
        slow.renew()
    take(store, 19)


def test_a_damaged_lock_is_not_taken_for_a_free_one(store: ObjectStore) -> None:
    store.put_bytes("meta/locks/backup/00000001.json", b"{")
    with pytest.raises(LockedByAnother):
        take(store)


def test_a_run_that_was_killed_on_this_machine_gives_way_at_once(store: ObjectStore) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    lock = take(store)
    alive = str(process_of(child.pid))
    store.put_bytes(lock._keys[-1], _encode(replace(lock.holder, process=alive)))
    with pytest.raises(LockedByAnother):
        take(store)
    child.kill()
    child.wait()
    take(store)
