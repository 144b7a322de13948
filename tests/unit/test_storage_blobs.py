"""Images into the bucket: what is missing is found, hashed, copied, and nothing wrong gets in."""

import hashlib
import os
import random
import time
import tracemalloc
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.machinery import closure_check
from lab.oss.server import OssServer
from tasks.backup.format.blobs import BlobFile, KnownBlob, NeededBlob, StoredBlob, needed_line
from tasks.backup.format.layout import BLOBS, blob_key, new_backup_id
from tasks.backup.night.images import NEEDED
from tasks.errors import RemoteCommandFailed
from tasks.storage import blobs as blobs_module
from tasks.storage import errors
from tasks.storage.bandwidth import Bandwidth
from tasks.storage.blob_plan import BlobPlan, plan_blobs
from tasks.storage.blobs import Lanes, copy_blobs
from tasks.storage.digests import Digests, digests_of, name_of
from tasks.storage.inventory import blob_root, bucket_digests, bucket_inventory, node_inventory
from tasks.storage.objects import ListedObject
from tasks.storage.store import ObjectStore
from tests.unit.changed_store import leftovers, outlasting, store_for
from tests.unit.harbor_site import make_site
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss

pytestmark = pytest.mark.servers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.fixture
def store(server: OssServer) -> ObjectStore:
    return store_for(server)


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    path = tmp_path / "nas"
    (path / "registry").mkdir(parents=True)
    return path


def put_blob(nas: Path, content: bytes, name: str | None = None) -> str:
    digits = name or hashlib.sha256(content).hexdigest()
    directory = Path(blob_root(str(nas))) / digits[:2] / digits
    directory.mkdir(parents=True)
    (directory / "data").write_bytes(content)
    return f"sha256:{digits}"


def plan_for(nas: Path, store: ObjectStore) -> BlobPlan:
    local = node_inventory(local_host(), str(nas)).digests
    remote = digests_of(blob.digest for blob in bucket_inventory(store))
    return plan_blobs(local, remote)


def copy(
    nas: Path, store: ObjectStore, plan: BlobPlan | None = None, **options: object
) -> blobs_module.CopyResult:
    chosen = plan if plan is not None else plan_for(nas, store)
    return copy_blobs(local_host(), blob_root(str(nas)), store, chosen, **options)  # type: ignore[arg-type]


def test_all_blobs_arrive_and_the_next_night_has_nothing_to_do(
    nas: Path, server: OssServer, store: ObjectStore
) -> None:
    contents = {
        put_blob(nas, content): content for content in [b"", *(os.urandom(n * 37 + 1) for n in range(120))]
    }
    large = os.urandom(9 << 20)
    contents[put_blob(nas, large)] = large
    known: list[KnownBlob] = []

    result = copy(nas, store, on_stored=known.append)

    assert (result.copied, result.left) == (122, 0)
    assert result.copied_bytes == sum(map(len, contents.values()))
    listed = list(bucket_inventory(store))
    assert [blob.digest for blob in listed] == sorted(contents)
    assert {blob.digest: blob.size for blob in listed} == {
        name: len(content) for name, content in contents.items()
    }
    assert {blob.digest: (blob.size, blob.etag) for blob in known} == {
        b.digest: (b.size, b.etag) for b in listed
    }
    for name in random.sample(sorted(contents), 5):
        assert store.get_bytes(blob_key(name)) == contents[name]
    assert server.store.catalog.get("backup/site/" + blob_key(name)) is not None
    server.faults.reset_counts()
    assert len(plan_for(nas, store)) == 0
    assert copy(nas, store).copied == 0
    assert set(server.faults.counts()) == {"ListObjectsV2"}


@pytest.mark.parametrize("size", [100, 5 << 20, 9 << 20])
def test_a_blob_whose_content_is_not_its_name_is_refused_and_named(
    nas: Path, server: OssServer, store: ObjectStore, size: int
) -> None:
    good = put_blob(nas, b"good")
    bad = put_blob(nas, bytes(size), name="ab" * 32)
    result = copy(nas, store)
    assert (result.copied, result.corrupt) == (1, (bad,))
    assert [blob.digest for blob in bucket_inventory(store)] == [good]
    assert leftovers(server) == (1, 0)


def test_a_blob_that_garbage_collection_took_meanwhile_is_named_and_the_rest_is_copied(
    nas: Path, store: ObjectStore
) -> None:
    gone = put_blob(nas, b"gone")
    kept = put_blob(nas, b"kept")
    plan = plan_for(nas, store)
    (Path(blob_root(str(nas))) / gone[7:9] / gone[7:] / "data").unlink()
    result = copy(nas, store, plan)
    assert result.vanished == (gone,)
    assert [blob.digest for blob in bucket_inventory(store)] == [kept]


def test_a_blob_that_cannot_be_read_is_named_with_the_reason(nas: Path, store: ObjectStore) -> None:
    name = put_blob(nas, b"x")
    data = Path(blob_root(str(nas))) / name[7:9] / name[7:] / "data"
    data.unlink()
    data.symlink_to(data)
    result = copy(nas, store)
    assert result.unreadable == ((name, "it is a link, or no regular file"),)
    assert result.copied == 0


def test_a_nas_that_is_not_mounted_is_an_error_and_never_an_empty_inventory(tmp_path: Path) -> None:
    with pytest.raises(RemoteCommandFailed, match="mounted"):
        node_inventory(local_host(), str(tmp_path / "nowhere"))


def test_strangers_in_the_blob_directories_are_counted_and_left_alone(nas: Path, store: ObjectStore) -> None:
    put_blob(nas, b"x")
    put_blob(nas, b"y", name="ab-not-a-digest")
    put_blob(nas, b"z", name="ab" + "AB" * 31)
    put_blob(nas, b"z", name="lost+found")
    found = node_inventory(local_host(), str(nas))
    assert (len(found.digests), found.strays) == (1, 3)
    assert "lo" in found.sample
    assert copy(nas, store).copied == 1


def test_oss_failing_now_and_then_does_not_stop_the_copy(nas: Path, server: OssServer) -> None:
    store = store_for(server, patience=outlasting(6))
    for number in range(60):
        put_blob(nas, os.urandom(1000 + number))
    put_blob(nas, os.urandom(9 << 20))
    server.fail("error", operation="PutObject", code="ServiceUnavailable", skip=5, times=3)
    server.fail("reset", operation="PutObject", bytes=500, skip=12, times=2)
    server.fail("wrong_crc", operation="PutObject", skip=20)
    server.fail("error", operation="UploadPart", code="InternalError", times=2)
    assert copy(nas, store).copied == 61
    assert leftovers(server) == (61, 0)


def test_an_oss_that_cannot_be_used_ends_the_copy_with_its_reason_and_the_next_run_goes_on(
    nas: Path, server: OssServer, store: ObjectStore
) -> None:
    for number in range(50):
        put_blob(nas, os.urandom(1000 + number))
    server.fail("error", operation="PutObject", code="AccessDenied", skip=10, times=-1)
    with pytest.raises(errors.AccessDenied):
        copy(nas, store)
    server.faults.set([])
    assert copy(nas, store).copied == 40


def test_a_node_that_dies_in_the_middle_ends_the_copy(
    nas: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        put_blob(nas, os.urandom(1000 + number))
    broken = "import sys\nsys.stdin.buffer.read()\nsys.stdout.buffer.write(b'x' * 20)\nsys.exit('the disk is gone')\n"
    plan = plan_for(nas, store)
    monkeypatch.setattr(blobs_module, "_BLOB_PRODUCER", broken)
    with pytest.raises(RemoteCommandFailed, match="the disk is gone"):
        copy(nas, store, plan)


def test_when_the_time_is_up_no_further_blob_is_begun(nas: Path, store: ObjectStore) -> None:
    for number in range(40):
        put_blob(nas, os.urandom(1000 + number))
    plan = plan_for(nas, store)
    slow = store_for_bandwidth(store, Bandwidth(100_000))
    begun = time.monotonic()
    result = copy(nas, slow, plan, deadline=begun + 0.001, lanes=Lanes(1, 1))
    assert result.copied + result.left == 40
    assert result.left > 0
    assert copy(nas, store).copied == result.left


def store_for_bandwidth(store: ObjectStore, bandwidth: Bandwidth) -> ObjectStore:
    return ObjectStore(store.bucket, store.base, patience=store.patience, bandwidth=bandwidth)


def test_what_the_database_refers_to_comes_first_and_of_that_what_was_pulled_last() -> None:
    def digest(number: int) -> bytes:
        return bytes([number]) + bytes(31)

    local = digests_of(name_of(digest(number)) for number in range(1, 9))
    remote = digests_of([name_of(digest(2))])
    needed = [
        NeededBlob(name_of(digest(2)), 1),
        NeededBlob(name_of(digest(3)), 1, pulled=100),
        NeededBlob(name_of(digest(5)), 1, pulled=300),
        NeededBlob(name_of(digest(7)), 1, pulled=200),
        NeededBlob(name_of(digest(99)), 1),
        NeededBlob("sha512:abc", 1),
    ]
    plan = plan_blobs(local, remote, sorted(needed, key=lambda blob: blob.digest))
    order = [piece[0] for piece in plan.batches(1)]
    assert order == [5, 7, 3, 1, 4, 6, 8]
    assert (plan.referenced, plan.unreferenced, plan.missing) == (3, 4, (name_of(digest(99)),))
    only = plan_blobs(local, remote, sorted(needed, key=lambda blob: blob.digest), unreferenced_too=False)
    assert [piece[0] for piece in only.batches(1)] == [5, 7, 3]


def test_an_unsorted_list_of_needed_blobs_is_refused() -> None:
    needed = [NeededBlob(name_of(bytes([number]) * 32), 1) for number in (2, 1)]
    with pytest.raises(ValueError, match="not sorted"):
        plan_blobs(Digests(), Digests(), needed)


_raw = st.binary(min_size=1, max_size=2).map(lambda tail: tail.ljust(32, b"\0"))


@settings(max_examples=60, deadline=None)
@given(st.sets(_raw), st.sets(_raw), st.dictionaries(_raw, st.integers(0, 2**40)))
def test_a_plan_is_the_set_difference_whatever_the_sets(
    local: set[bytes], remote: set[bytes], needed: dict[bytes, int]
) -> None:
    plan = plan_blobs(
        digests_of(sorted(map(name_of, local))),
        digests_of(sorted(map(name_of, remote))),
        [NeededBlob(name_of(digest), None, pulled=needed[digest]) for digest in sorted(needed)],
    )
    planned = list(plan.batches(1))
    assert len(planned) == len(set(planned)) == len(plan)
    assert set(planned) == local - remote
    assert set(planned[: plan.referenced]) == (local - remote) & set(needed)
    assert plan.missing_count == len(set(needed) - local - remote)


@settings(max_examples=50, deadline=None)
@given(st.sets(_raw), _raw)
def test_digests_are_a_set(content: set[bytes], other: bytes) -> None:
    digests = digests_of(sorted(map(name_of, content)))
    assert list(digests) == sorted(content)
    assert all(digest in digests for digest in content)
    assert (other in digests) == (other in content)


class _Listings:
    """A bucket of so many blobs that counts how many of its lines are held at once."""

    def __init__(self, blobs: int) -> None:
        self.names = sorted(hashlib.sha256(b"%d" % number).hexdigest() for number in range(blobs))
        self.live = self.most = 0

    def list(self, prefix: str) -> Iterator[ListedObject]:
        wanted = prefix.removeprefix(BLOBS).rstrip("/")
        for name in self.names[bisect_left(self.names, wanted) :]:
            if not name.startswith(wanted):
                return
            line = ListedObject(blob_key(f"sha256:{name}"), 1, "ETAG")
            self.live += 1
            self.most = max(self.most, self.live)
            yield line


def test_of_a_large_bucket_a_sixteenth_is_held_at_a_time() -> None:
    listings = _Listings(60_000)
    for _ in bucket_inventory(cast(ObjectStore, listings), expected=60_000):
        listings.live -= 1
    assert listings.live == 0
    assert listings.most < 60_000 / 8


@pytest.mark.parametrize("expected", [0, 60_000], ids=["16 listings", "256 listings"])
def test_the_digests_in_the_bucket_are_those_of_its_inventory_in_order(expected: int) -> None:
    listings = _Listings(3000)
    store = cast(ObjectStore, listings)
    digests = bucket_digests(store, expected=expected)
    assert [digest.hex() for digest in digests] == listings.names
    assert list(map(name_of, digests)) == [blob.digest for blob in bucket_inventory(store, expected=expected)]


def test_closure_says_how_many_blobs_it_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told nothing, the inventory held a whole listing of a million blobs."""
    lines = (needed_line(NeededBlob(name_of(n.to_bytes(32, "big")), 1)) for n in range(3000))
    BlobFile(tmp_path / NEEDED).write(lines)
    told: list[int] = []

    def inventory(store: ObjectStore, *, expected: int = 0) -> Iterator[StoredBlob]:
        told.append(expected)
        raise InterruptedError

    monkeypatch.setattr(closure_check, "store_of", lambda _: None)
    monkeypatch.setattr(closure_check, "bucket_inventory", inventory)
    backup = str(new_backup_id(datetime.now(UTC)))
    with pytest.raises(InterruptedError):
        closure_check.check_closure(make_site(tmp_path), local_host(), backup=backup, work=str(tmp_path))
    assert told == [3000]


def test_fifty_thousand_blobs_are_planned_within_ten_megabytes() -> None:
    random.seed(1)
    names = sorted(os.urandom(32) for _ in range(50_000))
    tracemalloc.start()
    local = digests_of(map(name_of, names))
    remote = digests_of(map(name_of, names[::2]))
    plan = plan_blobs(local, remote, (NeededBlob(name_of(digest), 1) for digest in names))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan.referenced == 25_000
    assert peak < 10 << 20
