"""The one bucket of the server: its catalog, its bytes, and the rules that protect objects."""

import json
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from lab.oss.answers import OssError
from lab.oss.catalog import Catalog, StoredObject
from lab.oss.disk import Disk
from lab.oss.signature import Credentials

MIN_PART_SIZE = 100 * 1024


class BucketStore:
    """What all calls work on.

    Args:
        data: directory for everything; made when missing.
        name: the bucket's name.
        credentials: the key that may use it, and the region.
    """

    def __init__(self, data: Path, name: str, credentials: Credentials) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.credentials = credentials
        self.catalog = Catalog(data / "catalog.sqlite")
        self.disk = Disk(data / "segments")
        self.disk.sweep(self.catalog.files())
        self.created = self._creation_time()

    def _creation_time(self) -> float:
        stored = self.catalog.setting("created")
        if stored is None:
            stored = json.dumps(time.time())
            self.catalog.set_setting("created", stored)
        return float(stored)

    def find(self, key: str) -> StoredObject:
        """Return an object, or refuse as OSS does."""
        entry = self.catalog.get(key)
        if entry is None:
            raise OssError(
                404, "NoSuchKey", "The specified key does not exist.", "0026-00000001", extra={"Key": key}
            )
        return entry

    def refuse_change_under_worm(self, key: str) -> None:
        """Refuse to replace or remove an existing object while a retention policy is on."""
        if self.catalog.setting("worm") and self.catalog.get(key):
            raise OssError(409, "FileImmutable", "The object you specified is immutable.", "0055-00000011")

    @property
    def versioned(self) -> bool:
        """Whether versioning is, or was, switched on."""
        return bool(self.catalog.setting("versioning"))

    def commit(self, entry: StoredObject, *, forbid_overwrite: bool) -> None:
        """Make an object visible in one step and drop the bytes that it replaces.

        Where versioning is on or suspended, OSS ignores x-oss-forbid-overwrite: a put adds a version.
        """
        try:
            self.refuse_change_under_worm(entry.key)
            old = self.catalog.put(entry, forbid_overwrite=forbid_overwrite and not self.versioned)
        except (OssError, FileExistsError) as error:
            self.disk.remove(segment.file for segment in entry.segments)
            if isinstance(error, OssError):
                raise
            raise OssError(
                409,
                "FileAlreadyExists",
                "The object you specified already exists and can not be overwritten.",
            ) from None
        if old:
            self.disk.remove(segment.file for segment in old.segments)

    def remove(self, key: str) -> None:
        """Delete an object; a missing one is no error, as in OSS."""
        self.refuse_change_under_worm(key)
        old = self.catalog.delete(key)
        if old:
            self.disk.remove(segment.file for segment in old.segments)

    def archive(self, key: str) -> None:
        """Put an object into an archive class, as a lifecycle rule does; it can be read only after a thaw."""
        self._label(key, {"x-oss-storage-class": "Archive"})

    def thawing(self, key: str) -> bool:
        """Begin to thaw an archived object; False when that was begun before."""
        if "x-oss-restore" in self.find(key).headers:
            return False
        self._label(key, {"x-oss-restore": 'ongoing-request="true"'})
        return True

    def thawed(self, key: str) -> None:
        """End the thaw: from now on the object can be read."""
        self._label(key, {"x-oss-restore": 'ongoing-request="false"'})

    def _label(self, key: str, headers: dict[str, str]) -> None:
        entry = self.find(key)
        self.catalog.put(replace(entry, headers=entry.headers | headers))

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()


def parse_tags(header: str) -> dict[str, str]:
    """Return the tags of an x-oss-tagging header."""
    return dict(parse_qsl(header, keep_blank_values=True))
