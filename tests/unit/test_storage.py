"""The object store against a real server on loopback: every failure that the server can play."""

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fastcrc
import pytest

from lab.oss.bucket import set_worm
from lab.oss.server import OssServer
from tasks.storage import errors
from tasks.storage.bandwidth import Bandwidth
from tasks.storage.facts import advice, bucket_facts, preflight
from tasks.storage.retry import Patience
from tasks.storage.store import ObjectStore
from tests.unit.changed_store import QUICK, leftovers, outlasting, store_for
from tests.unit.local_oss import ACCESS_KEY_SECRET, BUCKET, running_oss

MIB = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.fixture
def store(server: OssServer) -> ObjectStore:
    return store_for(server)


def test_what_is_written_is_read_again_under_the_site_s_prefix(server: OssServer, store: ObjectStore) -> None:
    written = store.put_bytes("a/b.json", b"content")
    assert (written.size, written.crc64) == (7, fastcrc.crc64.xz(b"content"))
    assert written.sha256 == hashlib.sha256(b"content").hexdigest()
    assert store.get_bytes("a/b.json") == b"content"
    assert server.store.catalog.get("backup/site/a/b.json") is not None
    assert store.head("a/b.json").crc64 == written.crc64
    assert store.exists("a/b.json")
    assert not store.exists("a/c.json")
    with pytest.raises(errors.ObjectMissing):
        store.get_bytes("a/c.json")


@pytest.mark.parametrize("code", ["InternalError", "ServiceUnavailable", "TooManyRequests", "RequestTimeout"])
def test_a_call_that_oss_fails_twice_succeeds_at_the_third_attempt(
    server: OssServer, store: ObjectStore, code: str
) -> None:
    fault = server.fail("error", code=code, times=2)
    store.put_bytes("key", b"x" * 100_000)
    assert fault.hits == 2
    assert store.get_bytes("key") == b"x" * 100_000


def test_a_call_that_oss_keeps_failing_ends_with_its_request_id(
    server: OssServer, store: ObjectStore
) -> None:
    fault = server.fail("error", code="InternalError", times=-1)
    with pytest.raises(errors.ServiceFailed) as failure:
        store.put_bytes("key", b"x")
    assert fault.hits == QUICK.attempts
    assert len(failure.value.request_id) == 24
    assert failure.value.request_id in str(failure.value)


def test_throttling_waits_as_long_as_oss_asks(server: OssServer) -> None:
    pauses: list[float] = []
    store = store_for(server, patience=Patience(attempts=3, first_s=0.001, sleep=pauses.append))
    server.fail("error", code="QpsLimitExceeded", delay_ms=1500)
    store.put_bytes("key", b"x")
    assert pauses == [1.5]
    server.fail("error", code="QpsLimitExceeded", times=-1)
    with pytest.raises(errors.Throttled):
        store.put_bytes("key", b"x")


def test_patience_ends_by_the_clock_too(server: OssServer) -> None:
    store = store_for(server, patience=Patience(attempts=1000, first_s=0.01, longest_s=0.01, total_s=0.1))
    fault = server.fail("error", code="InternalError", times=-1)
    with pytest.raises(errors.ServiceFailed):
        store.head("key")
    assert 1 <= fault.hits < 100


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("RequestTimeTooSkewed", errors.ClockSkew),
        ("NoSuchBucket", errors.BucketMissing),
        ("PublicEndpointForbidden", errors.EndpointForbidden),
        ("SecondLevelDomainForbidden", errors.EndpointForbidden),
        ("WrongEndpoint", errors.WrongRegion),
        ("AccessDenied", errors.AccessDenied),
        ("UserDisable", errors.AccessDenied),
        ("FileImmutable", errors.ObjectImmutable),
        ("QuotaExceeded", errors.StorageFull),
        ("InsufficientStorage", errors.StorageFull),
    ],
)
def test_what_cannot_be_cured_by_waiting_is_said_at_once_and_clearly(
    server: OssServer, store: ObjectStore, code: str, kind: type[errors.StorageError]
) -> None:
    fault = server.fail("error", code=code, times=-1)
    with pytest.raises(kind) as failure:
        store.put_bytes("key", b"x" * 200_000)
    assert fault.hits == 1
    assert failure.value.remedy
    assert failure.value.request_id
    assert failure.value.where == f"oss://{BUCKET}/backup/site/key"
    assert ACCESS_KEY_SECRET not in str(failure.value)
    with pytest.raises(kind):
        store.head("key")  # the error document of HEAD comes in a header
    assert str(pickle.loads(pickle.dumps(failure.value))) == str(failure.value)
    assert leftovers(server) == (0, 0)


def test_wrong_settings_are_told_apart(server: OssServer) -> None:
    for changes, kind in (
        ({"access_key_secret": "wrong"}, errors.WrongCredentials),
        ({"access_key_id": "nobody"}, errors.WrongCredentials),
        ({"region": "cn-hangzhou"}, errors.WrongRegion),
        ({"bucket": "another"}, errors.BucketMissing),
        ({"endpoint": "http://127.0.0.1:9"}, errors.EndpointUnreachable),
        ({"endpoint": "http://no-such-host.invalid"}, errors.EndpointUnreachable),
    ):
        with pytest.raises(kind) as failure:
            store_for(server, **changes).put_bytes("key", b"x")
        assert "wrong" not in str(failure.value)
        if kind is errors.EndpointUnreachable:
            # Nothing that somebody configured wrong for certain: it may answer in five minutes.
            with pytest.raises(kind):
                preflight(store_for(server, **changes))
        else:
            assert preflight(store_for(server, **changes)) != []


def test_a_connection_reset_in_the_middle_of_a_body_is_tried_again(
    server: OssServer, store: ObjectStore
) -> None:
    fault = server.fail("reset", operation="PutObject", bytes=100_000, times=2)
    store.put_bytes("key", b"x" * 500_000)
    assert fault.hits == 2
    assert store.get_bytes("key") == b"x" * 500_000


def test_a_wrong_checksum_in_the_answer_is_noticed_and_the_object_sent_again(
    server: OssServer, store: ObjectStore
) -> None:
    server.fail("wrong_crc", operation="PutObject", times=2)
    store.put_bytes("key", b"content")
    assert server.faults.counts()["PutObject"] == {"200": 3}
    server.fail("wrong_crc", operation="PutObject", times=-1)
    with pytest.raises(errors.CrcMismatch):
        store.put_bytes("key", b"content")


def test_one_wrong_checksum_after_other_failures_is_not_the_end(
    server: OssServer, store: ObjectStore
) -> None:
    server.fail("error", operation="PutObject", times=2)
    server.fail("wrong_crc", operation="PutObject")
    store.put_bytes("key", b"content")
    assert server.faults.counts()["PutObject"] == {"200": 2, "500": 2}


def test_a_download_that_breaks_is_resumed_where_it_broke(
    server: OssServer, store: ObjectStore, tmp_path: Path
) -> None:
    content = os.urandom(3 * MIB)
    store.put_bytes("key", content)
    server.fail("truncate", operation="GetObject", bytes=1_000_000)
    server.fail("reset_answer", operation="GetObject", bytes=700_000)
    server.fail("error", operation="GetObject", code="InternalError")

    stored = store.download_to("key", tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == content
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert server.faults.counts()["GetObject"]["206"] == 2
    assert list(tmp_path.glob(".copy*")) == []


def test_an_object_that_changes_during_a_download_is_not_mixed(server: OssServer, store: ObjectStore) -> None:
    store.put_bytes("key", b"a" * MIB)
    server.fail("truncate", operation="GetObject", bytes=1000)
    with store.get_stream("key") as reader:
        store.put_bytes("key", b"b" * MIB)
        with pytest.raises(errors.StorageError, match="PreconditionFailed"):
            reader.read()


def test_content_that_went_wrong_on_the_way_is_read_again(server: OssServer, store: ObjectStore) -> None:
    store.put_bytes("key", b"content")
    server.fail("wrong_content", operation="GetObject")
    assert store.get_bytes("key") == b"content"


def test_content_that_is_damaged_at_rest_is_found_and_no_file_appears(
    server: OssServer, store: ObjectStore, tmp_path: Path
) -> None:
    store.put_bytes("key", os.urandom(100_000))
    server.store.disk.flip(server.store.find("backup/site/key").segments, 50_000)
    with pytest.raises(errors.CrcMismatch, match="backup/site/key"):
        store.download_to("key", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == [tmp_path / "oss"]
    with pytest.raises(errors.CrcMismatch), store.get_stream("key") as reader:
        reader.read()


def test_a_marker_is_created_once_even_when_the_answer_was_lost(
    server: OssServer, store: ObjectStore
) -> None:
    server.fail("lost_answer", operation="PutObject")
    store.create_marker("COMPLETE", b"manifest 1")
    with pytest.raises(errors.ObjectExists):
        store.create_marker("COMPLETE", b"manifest 2")
    assert store.get_bytes("COMPLETE") == b"manifest 1"
    server.fail("lost_answer", operation="PutObject")
    with pytest.raises(errors.ObjectExists):
        store.create_marker("COMPLETE", b"manifest 3")


def test_of_twenty_orchestrators_one_gets_the_lock(server: OssServer) -> None:
    store = store_for(server, threads=20)
    barrier = threading.Barrier(20)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            store.create_marker("meta/locks/backup.json", f"owner {number}".encode())
        except errors.ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(attempt, range(20))) == 1


def test_twenty_threads_share_one_store(server: OssServer) -> None:
    store = store_for(server, threads=20, patience=outlasting(20))
    server.fail("error", code="ServiceUnavailable", skip=30, times=20)
    contents = {f"key-{number}": os.urandom(10_000 + number) for number in range(60)}
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda item: store.put_bytes(*item), contents.items()))
        assert dict(zip(contents, pool.map(store.get_bytes, contents), strict=True)) == contents


def test_a_listing_goes_on_after_a_thousand_keys_and_through_failures(
    server: OssServer, store: ObjectStore
) -> None:
    fill(server, [f"backup/site/blobs/{number:05}/data" for number in range(2300)])
    server.fail("error", operation="ListObjectsV2", code="InternalError", skip=1)
    server.fail("truncate", operation="ListObjectsV2", bytes=5000, skip=2)
    keys = [found.key for found in store.list("blobs/")]
    assert keys == [f"blobs/{number:05}/data" for number in range(2300)]
    directories = list(store.list("blobs/", "/"))
    assert len(directories) == 2300
    assert directories[7].key == "blobs/00007/"
    assert directories[7].is_prefix


def test_deleting_is_verified(server: OssServer, store: ObjectStore) -> None:
    fill(server, [f"backup/site/old/{number}" for number in range(1500)])
    server.fail("error", operation="DeleteMultipleObjects", code="InternalError")
    assert store.delete_many(found.key for found in store.list("old/")) == 1500
    assert leftovers(server) == (0, 0)
    store.put_bytes("kept", b"x")
    server.store.catalog.set_setting("worm", "<WormConfiguration/>")
    with pytest.raises(errors.ObjectImmutable, match="kept"):
        store.delete_many(["kept"])
    assert store.exists("kept")


def test_the_preflight_leaves_nothing_and_the_facts_are_told(server: OssServer, store: ObjectStore) -> None:
    assert preflight(store) == []
    assert leftovers(server) == (0, 0)
    facts = bucket_facts(store)
    assert (facts.location, facts.versioning, facts.worm) == ("oss-cn-lab", "", "")
    assert any("AbortMultipartUpload" in note for note in advice(facts))

    server.store.catalog.set_setting(
        "versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    )
    assert any("versioned" in note for note in advice(bucket_facts(store)))


def test_a_bucket_that_forgets_what_is_removed_is_said_to_and_one_that_keeps_it_is_not(
    server: OssServer, store: ObjectStore
) -> None:
    def warned() -> bool:
        return any("for good" in note for note in advice(bucket_facts(store)))

    def versions(status: str) -> None:
        text = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        server.store.catalog.set_setting("versioning", text)

    assert warned()
    versions("Suspended")
    assert warned()
    versions("Enabled")
    assert not warned()
    server.store.catalog.set_setting("versioning", None)
    set_worm(server.store, 7, "Locked")
    assert not warned()
    server.store.catalog.set_setting("worm", None)
    # Who cannot ask does not know, and does not say.
    server.fail("error", operation="GetBucket.*", code="AccessDenied", times=-1)
    assert not warned()


def test_a_user_that_may_not_ask_about_the_bucket_can_still_make_backups(
    server: OssServer, store: ObjectStore
) -> None:
    server.fail("error", operation="GetBucket.*", code="AccessDenied", times=-1)
    facts = bucket_facts(store)
    assert (facts.versioning, facts.worm, facts.aborts_uploads) == (None, None, None)
    assert preflight(store) == []
    server.fail("error", operation="DeleteMultipleObjects", code="AccessDenied", times=-1)
    assert ["prune" in problem for problem in preflight(store)] == [True]


def test_the_bandwidth_limit_holds_for_all_threads_together() -> None:
    now = [0.0]
    waits: list[float] = []
    bandwidth = Bandwidth(1000, clock=lambda: now[0], sleep=waits.append)
    for _ in range(5):
        bandwidth.take(500)
    assert waits == [0.5, 1.0, 1.5, 2.0, 2.5]
    now[0] = 100.0
    waits.clear()
    bandwidth.take(500)
    bandwidth.take(5000)
    assert waits == [pytest.approx(4.5)]  # at most one second of the quiet time was kept


def fill(server: OssServer, keys: list[str]) -> None:
    """Put many empty objects into the bucket without a request each."""
    from lab.oss.catalog import StoredObject

    for key in keys:
        server.store.catalog.put(StoredObject(key, "0" * 32, 0, 0, "Normal", 0.0, ()))
