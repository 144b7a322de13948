"""An object as a stream that survives broken connections and is verified at its end."""

import contextlib
import hashlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import fastcrc

from tasks.storage.errors import StorageError, require_crc
from tasks.storage.objects import StoredObject
from tasks.storage.requests import BucketRequests
from tasks.storage.retry import CONNECTION_ERRORS, judge

_BLOCK = 1 << 20


class ObjectReader:
    """Reads one object from its beginning to its end.

    A broken connection is resumed by Range, and only of the very same object (If-Match). The CRC of the
    whole is compared when the end is reached: whoever uses the bytes before that must be able to throw
    the result away.

    Attributes:
        size: bytes of the object.
        crc64: what OSS says; None when it says nothing.
    """

    def __init__(self, store: BucketRequests, key: str) -> None:
        self._store = store
        self.key = key
        self._answer: Any = store.call(lambda bucket, _: bucket.get_object(store.full(key)), key)
        self.size = int(self._answer.content_length)
        self.crc64: int | None = self._answer.server_crc
        self.etag: str = self._answer.etag
        self._position, self._running = 0, 0
        self._sha256 = hashlib.sha256()
        self._verified = False

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, all that is left for a negative size, nothing at the end.

        Raises:
            CrcMismatch: the end is reached and the content is not what OSS has a checksum of.
            StorageError: the object cannot be read on.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        if self._position == self.size:
            self._verify()
            return b""
        block = self._next_block(min(size, _BLOCK, self.size - self._position))
        self._store.bandwidth.take(len(block))
        self._position += len(block)
        self._running = fastcrc.crc64.xz(block, self._running)
        self._sha256.update(block)
        if self._position == self.size:
            self._verify()
        return block

    def _next_block(self, size: int) -> bytes:
        """Read from the connection; reconnect while it breaks. Patience starts anew with every block."""
        attempt, started = 0, time.monotonic()
        patience = self._store.patience
        while True:
            attempt += 1
            try:
                if self._answer is None:
                    self._answer = self._reopen()
                block: bytes = self._answer.read(size)
                if not block:
                    raise ConnectionError("the answer ended too early (IncompleteRead)")
                return block
            except CONNECTION_ERRORS as error:
                self.close()
                verdict = judge(error, self._store.where(self.key))
                assert verdict is not None
                late = time.monotonic() - started > patience.total_s
                if late or attempt >= patience.attempts:
                    raise verdict.error from None
                patience.sleep(patience.pause(attempt, 0.0))

    def _reopen(self) -> Any:
        headers = {"If-Match": f'"{self.etag}"'}
        span = (self._position, None)
        name = self._store.full(self.key)
        answer = self._store.call(
            lambda bucket, _: bucket.get_object(name, byte_range=span, headers=headers), self.key
        )
        if self._position and answer.status != 206:
            answer.close()
            raise StorageError("OSS ignored the range that was asked for.", where=self._store.where(self.key))
        return answer

    def _verify(self) -> None:
        if not self._verified:
            require_crc(self._running, self.crc64, self._store.where(self.key), self._request_id())
            self._verified = True
            self.close()

    def _request_id(self) -> str:
        return str(self._answer.request_id) if self._answer is not None else ""

    def stored(self) -> StoredObject:
        """Return the facts of what was read; only after the end."""
        if not self._verified:
            self._verify()
        return StoredObject(self.key, self.size, self._running, self._sha256.hexdigest(), self.etag)

    def close(self) -> None:
        """Give the connection back; an unread rest is thrown away with it."""
        if self._answer is not None:
            with contextlib.suppress(*CONNECTION_ERRORS):
                self._answer.close()
            self._answer = None

    def __enter__(self) -> "ObjectReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def get_bytes(store: BucketRequests, key: str, limit: int) -> bytes:
    """Return a whole small object, verified; read again when its checksum is wrong."""

    def read(_bucket: Any, _attempt: int) -> bytes:
        with ObjectReader(store, key) as reader:
            if reader.size > limit:
                raise StorageError(
                    f"The object has {reader.size} bytes, more than {limit}.", where=store.where(key)
                )
            return reader.read()

    return store.call(read, key)


def download_to(store: BucketRequests, key: str, target: Path) -> StoredObject:
    """Copy an object into a file that appears only when it is complete and verified."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")

    def fetch(_bucket: Any, _attempt: int) -> StoredObject:
        with ObjectReader(store, key) as reader, partial.open("wb") as file:
            while block := reader.read(_BLOCK):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return reader.stored()

    try:
        stored = store.call(fetch, key)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return stored
