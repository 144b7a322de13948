"""The object store: everything the backups need of OSS, and nothing else of the SDK."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.storage import download, upload, wire
from tasks.storage.bandwidth import UNLIMITED, Bandwidth
from tasks.storage.download import ObjectReader
from tasks.storage.errors import UploadLost
from tasks.storage.objects import ListedObject, StoredObject
from tasks.storage.requests import BucketRequests
from tasks.storage.retry import Patience
from tasks.storage.upload import Readable

if TYPE_CHECKING:
    from blocks import OssBucket


class ObjectStore(BucketRequests):
    """One bucket under one base; keys are relative to the base. Safe to use from many threads.

    Every write is confirmed by OSS's CRC-64 and tried again with back-off; every error is a StorageError.

    Args: see `BucketRequests`.
    """

    def put_stream(
        self,
        key: str,
        source: Readable,
        *,
        confirm: Callable[[], None] | None = None,
        headers: Mapping[str, str] | None = None,
        forbid_overwrite: bool = False,
        workers: int = 2,
        total: int | None = None,
        expected_sha256: str | None = None,
    ) -> StoredObject:
        """Store a stream as one object that is either complete or not there at all.

        Args:
            key: where.
            source: read to its end, in blocks of at most 1 MiB.
            confirm: called after the end and before the object becomes visible; what it raises aborts. The
                place to look at the exit status of whatever produced the stream.
            headers: further headers of the object.
            forbid_overwrite: create or fail.
            workers: parts that are sent at a time, at most 64 MiB together (and one part being read).
            total: the length where it is known, up to 48 TB; else at most 885 GiB can come. Up to 64 MiB are held in
                memory, and sent when all of it is there and right.
            expected_sha256: compared before the object becomes visible.

        Raises:
            ContentMismatch, StorageError, or whatever `source` or `confirm` raised; then neither object nor
                upload is left.
        """
        return upload.put_stream(
            self,
            key,
            source,
            confirm=confirm,
            headers=headers,
            forbid_overwrite=forbid_overwrite,
            workers=workers,
            total=total,
            expected_sha256=expected_sha256,
        )

    def create_marker(self, key: str, data: bytes) -> StoredObject:
        """Create a small object if there is none: the only atomic operation that OSS offers.

        Raises:
            ObjectExists: somebody else was first.
        """
        return self.put_bytes(key, data, forbid_overwrite=True)

    def get_bytes(self, key: str, *, limit: int = 64 << 20) -> bytes:
        """Return a small object, its CRC verified; raises ObjectMissing, CrcMismatch."""
        return download.get_bytes(self, key, limit)

    def get_stream(self, key: str) -> ObjectReader:
        """Open an object for reading; verified when it was read to its end."""
        return ObjectReader(self, key)

    def download_to(self, key: str, target: Path) -> StoredObject:
        """Copy an object into a file, which appears only when complete and verified; returns its hashes."""
        return download.download_to(self, key, target)

    def list(self, prefix: str = "", delimiter: str = "") -> Iterator[ListedObject]:
        """Yield objects in the order of their keys; with a delimiter the directories too."""
        token = ""
        while True:
            page, token = self._page(prefix, delimiter, token)
            yield from page
            if not token:
                return

    def _page(self, prefix: str, delimiter: str, token: str) -> wire.Page:
        return self.call(
            lambda bucket, _: wire.list_page(bucket, self.full(prefix), delimiter, token, self.base), prefix
        )

    def abort_stale_uploads(
        self, prefix: str = "", *, older_than_s: float, now: datetime | None = None
    ) -> int:
        """Abort multipart uploads that a killed run left behind, and return how many.

        Args:
            prefix: only keys that begin with it.
            older_than_s: only uploads that began so many seconds ago.
            now: the present, for tests.
        """
        before = (now or datetime.now(UTC)).timestamp() - older_than_s
        key_marker, id_marker, aborted = "", "", 0
        while True:
            page = self.call(
                lambda bucket, _, markers=(key_marker, id_marker): bucket.list_multipart_uploads(  # type: ignore[misc]
                    prefix=self.full(prefix),
                    key_marker=markers[0],
                    upload_id_marker=markers[1],
                    max_uploads=1000,
                )
            )
            for found in page.upload_list:
                if found.initiation_date <= before:
                    aborted += self._abort(found.key, found.upload_id)
            if not page.is_truncated:
                return aborted
            key_marker, id_marker = page.next_key_marker, page.next_upload_id_marker

    def _abort(self, full_key: str, upload_id: str) -> int:
        try:
            self.call(lambda bucket, _: bucket.abort_multipart_upload(full_key, upload_id))
        except UploadLost:
            return 0
        return 1


def open_store(
    settings: "OssBucket",
    site: str = "",
    *,
    threads: int = 16,
    bandwidth: Bandwidth = UNLIMITED,
    patience: Patience | None = None,
) -> ObjectStore:
    """Open the bucket of a site; nothing is sent before the first call.

    Args:
        settings: the OSS block.
        site: the site's name; keys lie under `<prefix>/<site>/`.
        threads: how many calls run at a time, for the connection pool.
        bandwidth: shared by all calls.
        patience: how long a call is tried; the default is three minutes.
    """
    base = "".join(f"{part}/" for part in (settings.prefix.strip("/"), site) if part)
    return ObjectStore(wire.open_bucket(settings, threads), base, patience=patience, bandwidth=bandwidth)
