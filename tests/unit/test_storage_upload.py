"""Uploads of unknown length, in parts: whole, or without a trace."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastcrc
import pytest

from lab.oss.server import OssServer
from tasks.storage import buffers, errors, upload
from tasks.storage.store import ObjectStore
from tests.unit.changed_store import leftovers, outlasting, store_for
from tests.unit.local_oss import running_oss

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MIB = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.fixture
def store(server: OssServer) -> ObjectStore:
    return store_for(server)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 128 KiB, so that a multipart upload needs no hundred megabytes."""
    monkeypatch.setattr(upload, "_GROWTH", ((128 << 10, 50), (256 << 10, 50)))


@pytest.mark.usefixtures("small_parts")
def test_a_stream_arrives_whole_through_failing_parts(server: OssServer) -> None:
    store = store_for(server, patience=outlasting(4))
    content = os.urandom(2 * MIB + 17)
    server.fail("error", operation="UploadPart", code="ServiceUnavailable", skip=1, times=2)
    server.fail("reset", operation="UploadPart", bytes=50_000, skip=4)
    server.fail("wrong_crc", operation="UploadPart", skip=6)
    confirmed: list[tuple[int, int]] = []

    stored = store.put_stream(
        "dump", io.BytesIO(content), confirm=lambda: confirmed.append(leftovers(server)), workers=3
    )

    assert confirmed == [(0, 1)]
    assert (stored.size, stored.crc64) == (len(content), fastcrc.crc64.xz(content))
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert stored.parts == 17
    assert store.get_bytes("dump") == content
    assert leftovers(server) == (1, 0)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [0, 1, 128 << 10, (128 << 10) + 1])
def test_a_stream_of_any_length_arrives(store: ObjectStore, size: int) -> None:
    content = os.urandom(size)
    assert store.put_stream("key", io.BytesIO(content)).size == size
    assert store.get_bytes("key") == content


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [1000, MIB])
def test_a_producer_that_failed_leaves_neither_object_nor_upload(
    server: OssServer, store: ObjectStore, size: int
) -> None:
    def pg_dump_failed() -> None:
        raise RuntimeError("pg_dump ended with status 1")

    with pytest.raises(RuntimeError, match="pg_dump"):
        store.put_stream("dump", io.BytesIO(bytes(size)), confirm=pg_dump_failed)
    assert leftovers(server) == (0, 0)


@pytest.mark.usefixtures("small_parts")
def test_a_stream_that_breaks_in_the_middle_leaves_neither_object_nor_upload(
    server: OssServer, store: ObjectStore
) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: "WriteableBuffer", /) -> int:
            if self.tell() > 700_000:
                raise ConnectionError("the node went away")
            return super().readinto(memoryview(buffer)[:50_000])

    with pytest.raises(ConnectionError, match="node"):
        store.put_stream("dump", Broken(bytes(2 * MIB)))
    assert leftovers(server) == (0, 0)


@pytest.mark.usefixtures("small_parts")
def test_parts_that_keep_failing_end_the_upload_without_a_trace(
    server: OssServer, store: ObjectStore
) -> None:
    server.fail("error", operation="UploadPart", code="InsufficientStorage", skip=3, times=-1)
    with pytest.raises(errors.StorageFull):
        store.put_stream("dump", io.BytesIO(bytes(4 * MIB)), workers=3)
    assert leftovers(server) == (0, 0)
    assert list(server.store.catalog.files()) == []


@pytest.mark.usefixtures("small_parts")
def test_a_completion_whose_answer_was_lost_counts_as_done(server: OssServer, store: ObjectStore) -> None:
    server.fail("lost_answer", operation="CompleteMultipartUpload")
    content = os.urandom(MIB)
    assert store.put_stream("dump", io.BytesIO(content)).crc64 == fastcrc.crc64.xz(content)
    assert leftovers(server) == (1, 0)


@pytest.mark.usefixtures("small_parts")
def test_an_object_whose_final_checksum_is_wrong_is_not_left_behind(
    server: OssServer, store: ObjectStore
) -> None:
    server.fail("wrong_crc", operation="CompleteMultipartUpload")
    with pytest.raises(errors.CrcMismatch):
        store.put_stream("dump", io.BytesIO(bytes(MIB)))
    assert leftovers(server) == (0, 0)


def test_uploads_of_killed_runs_are_aborted_and_young_ones_are_not(
    server: OssServer, store: ObjectStore
) -> None:
    for number in range(3):
        store.bucket.init_multipart_upload(store.full(f"backups/{number}"))
    store.bucket.init_multipart_upload("of-somebody-else/upload")
    assert store.abort_stale_uploads("backups/", older_than_s=3600) == 0
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert store.abort_stale_uploads("backups/", older_than_s=3600, now=tomorrow) == 3
    assert leftovers(server) == (0, 1)


def test_ten_thousand_parts_of_growing_size_hold_any_dump() -> None:
    sizes = list(upload.part_sizes())
    assert len(sizes) == 10_000
    assert sum(sizes) > 800 << 30
    assert sizes == sorted(sizes)
    for total in (1, 80 << 30, 5 << 40):
        size = next(upload.part_sizes(total))
        assert -(-total // size) <= 10_000
        assert size >= 8 * MIB


@pytest.mark.parametrize(("total", "size"), [(None, 8), (1, 64)], ids=["in parts", "in one request"])
def test_a_second_stream_is_sent_from_the_memory_of_the_first(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, total: int | None, size: int
) -> None:
    made: list[int] = []

    class Counted(bytearray):
        def __init__(self, size: int) -> None:
            made.append(size)
            super().__init__(size)

    monkeypatch.setattr(buffers, "bytearray", Counted, raising=False)
    for key in ("first", "second", "third"):
        content = os.urandom(2 * MIB + 5)
        store.put_stream(key, io.BytesIO(content), total=total and len(content))
        assert store.get_bytes(key) == content
    assert made == [size * MIB]


@pytest.mark.usefixtures("small_parts")
def test_memory_that_is_still_hashed_is_nobody_elses(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part is sent before it is hashed, and another stream begins in between."""
    slow, fast = os.urandom(MIB), os.urandom(MIB)
    real, send = upload._Running.add, upload._send_part
    sent, begun = threading.Event(), threading.Event()

    def hash_late(self: upload._Running, data: memoryview) -> None:
        if not begun.is_set():
            begun.set()
            assert sent.wait(30)
            store.put_stream("fast", io.BytesIO(fast), expected_sha256=hashlib.sha256(fast).hexdigest())
        real(self, data)

    def sending(*given: Any) -> str:
        try:
            return send(*given)
        finally:
            sent.set()

    monkeypatch.setattr(upload._Running, "add", hash_late)
    monkeypatch.setattr(upload, "_send_part", sending)
    store.put_stream("slow", io.BytesIO(slow), expected_sha256=hashlib.sha256(slow).hexdigest())
    assert (store.get_bytes("slow"), store.get_bytes("fast")) == (slow, fast)


def test_spare_memory_is_bounded_and_one_piece_of_any_size_is_kept() -> None:
    spare = buffers.Buffers()
    large = bytearray(200 * MIB)
    spare.give_back(large)
    assert spare.take(200 * MIB) is large
    spare.give_back(large)
    for _ in range(20):
        spare.give_back(bytearray(8 * MIB))
    assert sum(map(len, spare._spare)) == 128 * MIB
    spare.clear()
    assert spare._spare == []


def test_memory_of_another_size_stays_for_who_needs_it() -> None:
    spare = buffers.Buffers()
    blob = bytearray(64 * MIB)
    spare.give_back(blob)
    spare.give_back(spare.take(8 * MIB))
    assert spare.take(64 * MIB) is blob
