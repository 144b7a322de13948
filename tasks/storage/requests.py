"""Single requests to the bucket: what streams up and down are made of."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import fastcrc

from tasks.storage import wire
from tasks.storage.bandwidth import UNLIMITED, Bandwidth
from tasks.storage.buffers import Buffers
from tasks.storage.errors import (
    ObjectExists,
    ObjectImmutable,
    ObjectMissing,
    StorageError,
    require_crc,
)
from tasks.storage.objects import ObjectFacts, StoredObject
from tasks.storage.retry import Patience, persistently

T = TypeVar("T")


class BucketRequests:
    """One bucket under one base; keys are relative to the base.

    Args:
        bucket: an oss2 bucket as `wire.open_bucket` makes it.
        base: put before every key, empty or with a slash at its end.
        patience: how long a call is tried.
        bandwidth: the limit that all calls share.
    """

    def __init__(
        self,
        bucket: Any,
        base: str = "",
        *,
        patience: Patience | None = None,
        bandwidth: Bandwidth = UNLIMITED,
    ) -> None:
        self.bucket = bucket
        self.base = base
        self.patience = patience or Patience()
        self.bandwidth = bandwidth
        self.buffers = Buffers()

    def full(self, key: str) -> str:
        """Return the key as it is in the bucket."""
        return self.base + key

    def where(self, key: str = "") -> str:
        """Return bucket and key for an error."""
        return f"oss://{self.bucket.bucket_name}/{self.base}{key}"

    def call(self, function: Callable[[Any, int], T], key: str = "", attempts: int | None = None) -> T:
        """Return what `function(bucket, attempt)` returns, tried again while that can help, or so many times."""
        patience = self.patience if attempts is None else replace(self.patience, attempts=attempts)
        return persistently(lambda attempt: function(self.bucket, attempt), self.where(key), patience)

    def put_bytes(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        forbid_overwrite: bool = False,
        headers: Mapping[str, str] | None = None,
        sha256: str = "",
        crc64: int | None = None,
        attempts: int | None = None,
    ) -> StoredObject:
        """Store a small object in one request.

        Args:
            key: where.
            data: the content, at most 5 GB.
            forbid_overwrite: create or fail. When an answer was lost, an object with the same content counts
                as ours: put something unique into markers and locks.
            headers: further headers, e.g. `x-oss-storage-class`.
            sha256: of the data, hexadecimal, where it is known already.
            crc64: the same.
            attempts: fewer than the store's patience has.

        Raises:
            ObjectExists: with forbid_overwrite.
            StorageError: anything else that stayed wrong.
        """
        crc = fastcrc.crc64.xz(data) if crc64 is None else crc64
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        if forbid_overwrite:
            sent["x-oss-forbid-overwrite"] = "true"
        tried = 0

        def put(bucket: Any, attempt: int) -> str:
            nonlocal tried
            tried = attempt
            self.bandwidth.take(len(data))
            result = bucket.put_object(self.full(key), data, headers=sent)
            require_crc(crc, result.crc, self.where(key), result.request_id)
            return str(result.etag)

        try:
            etag = self.call(put, key, attempts)
        except ObjectExists:
            facts = self.head(key) if tried > 1 else None
            if facts is None or (facts.size, facts.crc64) != (len(data), crc):
                raise
            etag = facts.etag
        return StoredObject(key, len(data), crc, sha256 or hashlib.sha256(data).hexdigest(), etag)

    def head(self, key: str) -> ObjectFacts:
        """Return the facts of an object without its content; raises ObjectMissing."""
        result = self.call(lambda bucket, _: bucket.head_object(self.full(key)), key)
        return ObjectFacts(key, result.content_length, result.server_crc, result.etag, result.last_modified)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(key)
        except ObjectMissing:
            return False
        return True

    def thaw(self, key: str) -> bool:
        """Ask OSS to make an archived object readable; True when it is on its way.

        Asked for a day, which is what every class allows. It costs money, as the object's owner chose by its class.
        """
        try:
            self.call(lambda bucket, _: bucket.restore_object(self.full(key)), key)
        except StorageError as error:
            return error.code == "RestoreAlreadyInProgress"
        return True

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete objects and make sure of it; missing ones are no error.

        Returns:
            How many keys were asked for.

        Raises:
            ObjectImmutable: OSS did not name all of them as deleted, as under a retention policy.
        """
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), wire.PAGE):
            batch = [self.full(key) for key in wanted[start : start + wire.PAGE]]
            result = self.call(lambda bucket, _, batch=batch: bucket.batch_delete_objects(batch))  # type: ignore[misc]
            kept = set(batch) - set(result.deleted_keys)
            if kept:
                raise ObjectImmutable(
                    f"OSS did not delete {len(kept)} of {len(batch)} objects, {min(kept)} among them.",
                    where=self.where(),
                    remedy="Look for a retention policy (WORM) on the bucket.",
                    request_id=result.request_id,
                )
        return len(wanted)
