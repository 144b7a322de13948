"""A blob whose length is known is one request, when all of it is here and right; within a bound of memory."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.oss.server import OssServer
from tasks.storage import blobs as blobs_module
from tasks.storage import errors, upload
from tasks.storage.blobs import Lanes
from tasks.storage.store import ObjectStore
from tests.unit.changed_store import leftovers, store_for
from tests.unit.local_oss import running_oss
from tests.unit.test_storage_blobs import copy, put_blob

pytestmark = pytest.mark.servers

MIB = 1 << 20


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


def put(store: ObjectStore, content: bytes, sha256: str = "", **options: Any) -> str:
    return store.put_stream(
        "blob",
        io.BytesIO(content),
        total=len(content),
        expected_sha256=sha256 or hashlib.sha256(content).hexdigest(),
        **options,
    ).sha256


def test_a_stream_of_known_length_is_one_request(server: OssServer, store: ObjectStore) -> None:
    content = os.urandom(20 * MIB + 3)
    assert put(store, content) == hashlib.sha256(content).hexdigest()
    assert server.faults.counts() == {"PutObject": {"200": 1}}
    assert store.get_bytes("blob") == content


def test_content_that_is_not_what_it_should_be_is_not_even_sent(
    server: OssServer, store: ObjectStore
) -> None:
    with pytest.raises(errors.ContentMismatch):
        put(store, bytes(9 * MIB), sha256="ab" * 32)
    assert server.faults.counts() == {}


@pytest.mark.parametrize("came", [9 * MIB - 1, 9 * MIB + 1])
def test_a_stream_of_another_length_than_announced_is_not_stored(
    server: OssServer, store: ObjectStore, came: int
) -> None:
    with pytest.raises(errors.ContentMismatch, match="9437184 bytes"):
        store.put_stream("blob", io.BytesIO(bytes(came)), total=9 * MIB)
    assert server.faults.counts() == {}


def test_a_producer_that_failed_is_heard_before_anything_is_sent(
    server: OssServer, store: ObjectStore
) -> None:
    def failed() -> None:
        raise RuntimeError("it ended with status 1")

    with pytest.raises(RuntimeError, match="status 1"):
        put(store, bytes(9 * MIB), confirm=failed)
    assert server.faults.counts() == {}


def test_a_line_that_breaks_every_ten_megabytes_takes_the_blob_in_parts(
    server: OssServer, store: ObjectStore
) -> None:
    content = os.urandom(20 * MIB)
    fault = server.fail("reset", operation="PutObject", bytes=10 * MIB, times=-1)
    put(store, content)
    assert fault.hits == 1
    assert store.get_bytes("blob") == content
    assert leftovers(server) == (1, 0)


def test_an_answer_with_another_checksum_is_no_stored_blob(server: OssServer, store: ObjectStore) -> None:
    server.fail("wrong_crc", operation="PutObject|CompleteMultipartUpload", times=-1)
    with pytest.raises(errors.CrcMismatch):
        put(store, bytes(9 * MIB))
    assert leftovers(server) == (0, 0)


def test_one_that_may_exist_already_goes_the_way_that_knows_its_own_after_a_lost_answer(
    server: OssServer, store: ObjectStore
) -> None:
    content = os.urandom(9 * MIB)
    server.fail("lost_answer", operation="PutObject|CompleteMultipartUpload")
    put(store, content, forbid_overwrite=True)
    with pytest.raises(errors.ObjectExists):
        put(store, bytes(9 * MIB), forbid_overwrite=True)
    assert store.get_bytes("blob") == content


@pytest.mark.parametrize("room", [10, 20, 100])
def test_no_more_large_blobs_are_in_memory_than_there_is_room_for(
    nas: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(blobs_module, "_LARGE_MEMORY", room * MIB)
    held, most, lock = 0, 0, threading.Lock()
    real = store.put_stream

    def counting(key: str, source: Any, **options: Any) -> Any:
        nonlocal held, most
        with lock:
            held += options["total"]
            most = max(most, held)
        try:
            return real(key, source, **options)
        finally:
            with lock:
                held -= options["total"]

    monkeypatch.setattr(store, "put_stream", counting)
    names = [put_blob(nas, os.urandom(8 * MIB)) for _ in range(6)]
    assert copy(nas, store, lanes=Lanes(readers=3)).copied == len(names)
    assert 8 * MIB <= most <= room * MIB
    assert store.buffers._spare == []


@pytest.mark.parametrize("one_request", [0, 64], ids=["in parts", "in one request"])
def test_a_large_blob_that_is_not_its_name_is_named_and_leaves_nothing(
    nas: Path, server: OssServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, one_request: int
) -> None:
    monkeypatch.setattr(upload, "ONE_REQUEST", one_request * MIB)
    bad = put_blob(nas, bytes(20 * MIB), name="ab" * 32)
    result = copy(nas, store)
    assert (result.copied, result.corrupt) == (0, (bad,))
    assert leftovers(server) == (0, 0)
