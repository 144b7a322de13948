"""Content of a frame goes from the stream to where it is needed, whole, and without being copied on its way."""

import io
import os
import threading
import tracemalloc
from typing import cast

import paramiko
import pytest

from tasks.errors import RemoteConnectionLost
from tasks.hosts.streams import output_of
from tasks.storage.frames import FrameReader
from tasks.storage.on_node import blob_producer
from tasks.storage.upload import fill

MIB = 1 << 20


class OnlyRead:
    """A stream that cannot read into a buffer."""

    def __init__(self, content: bytes) -> None:
        self._source = io.BytesIO(content)

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(min(size, 70_000))


@pytest.mark.parametrize("kind", [io.BytesIO, OnlyRead])
def test_a_frame_is_read_to_where_it_is_needed_and_the_next_one_begins_behind_it(kind: type) -> None:
    content = os.urandom(3 * MIB + 7)
    frames = FrameReader(kind(content + b"the next frame"))
    assert frames.read(3) == content[:3]
    assert fill(frames.limited(len(content) - 3), bytearray(4 * MIB)) == content[3:]
    assert frames.read(14) == b"the next frame"


@pytest.mark.parametrize("kind", [io.BytesIO, OnlyRead])
def test_a_stream_that_ends_within_a_frame_is_no_shorter_blob(kind: type) -> None:
    with pytest.raises(RemoteConnectionLost):
        fill(FrameReader(kind(bytes(2 * MIB))).limited(3 * MIB), bytearray(8 * MIB))


def test_a_large_frame_needs_no_memory_but_the_part(tmp_path: object) -> None:
    frames = FrameReader(io.BufferedReader(io.BytesIO(bytes(32 * MIB))))  # type: ignore[arg-type]
    part = bytearray(8 * MIB)
    tracemalloc.start()
    try:
        for _ in range(4):
            fill(frames.limited(8 * MIB), part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB // 8


class Channel:
    """A channel that gives packets as they come."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.copied = 0

    def recv(self, size: int) -> bytes:
        piece, self._content = self._content[: min(size, 32_768)], self._content[min(size, 32_768) :]
        self.copied += len(piece)
        return piece


def test_what_a_remote_command_says_is_read_as_it_comes() -> None:
    content = os.urandom(200_000)
    stream = output_of(cast(paramiko.Channel, Channel(b"a line\n" + content + b"an end")))
    assert stream.readline() == b"a line\n"
    assert stream.read(100_000) == content[:100_000]
    rest = bytearray(100_000)
    assert stream.readinto(rest) == 100_000  # type: ignore[attr-defined]
    assert rest == content[100_000:]
    assert stream.read() == b"an end"
    assert stream.read(10) == b""


def sent(path: str, digest: bytes) -> bytes:
    """What the program on the node says of one blob."""
    reading, writing = os.pipe()
    said = bytearray()

    def read() -> None:
        with open(reading, "rb") as source:
            said.extend(source.read())

    reader = threading.Thread(target=read)
    reader.start()
    with open(writing, "wb") as out:
        blob_producer.send(path, digest, out)
    reader.join(30)
    return bytes(said)


@pytest.mark.parametrize("size", [0, 5, MIB - 1, MIB, 5 * MIB + 3])
@pytest.mark.parametrize("cannot", [False, True], ids=["sendfile", "none"])
def test_the_node_sends_content_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, size: int, cannot: bool
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(22, "Invalid argument")

    if cannot:
        monkeypatch.setattr(os, "sendfile", refuse)
    root = tmp_path_factory.mktemp("blobs")
    digest, content = os.urandom(32), os.urandom(size)
    place = root / digest.hex()[:2] / digest.hex()
    place.mkdir(parents=True)
    (place / "data").write_bytes(content)
    assert sent(str(root), digest) == digest + size.to_bytes(8, "big") + content


def test_a_file_that_becomes_shorter_while_it_is_sent_keeps_the_frame_in_step(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, digest = tmp_path_factory.mktemp("blobs"), os.urandom(32)
    place = root / digest.hex()[:2] / digest.hex()
    place.mkdir(parents=True)
    (place / "data").write_bytes(b"x" * 3 * MIB)
    real = os.sendfile

    def truncating(target: int, source: int, offset: int, count: int) -> int:
        os.truncate(place / "data", 2 * MIB)
        return real(target, source, offset, count)

    monkeypatch.setattr(os, "sendfile", truncating)
    said = sent(str(root), digest)
    assert said[40:] == b"x" * 2 * MIB + bytes(MIB)
