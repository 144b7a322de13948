"""Where everything lies in the bucket. Keys are relative to the site's prefix."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.errors import HarborHaError

BACKUPS = "backups/"
LOCKS = "meta/locks/"
BLOBS = "registry/docker/registry/v2/blobs/sha256/"

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.hmac"
COMPLETE = "COMPLETE"
HOLD = "HOLD"
VERIFIED = "VERIFIED-"

GLOBALS = "pg/globals.sql"
CONFIGURATION = "harbor/config.tar"
LINKS = "registry/links.tar"
BLOB_INDEX = "registry/blobs.tsv.zst"

_TIME = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"(?P<time>\d{8}T\d{6}Z)-(?P<token>[0-9a-f]{8})")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOB_KEY = re.compile(re.escape(BLOBS) + r"([0-9a-f]{2})/(\1[0-9a-f]{62})/data")


class NotABackupId(HarborHaError):
    """A name that no backup of ours can have."""


class NotADigest(HarborHaError):
    """A text that is not `sha256:` and 64 hexadecimal digits."""


@dataclass(frozen=True, order=True)
class BackupId:
    """The name of one backup; sorting by it sorts by time.

    Attributes:
        started: when the backup began, UTC, whole seconds.
        token: eight hexadecimal digits: three for the millisecond in which it began, so that of two backups
            of one second the later one sorts last and is taken for the newest, and five drawn ones, so that
            two orchestrators never share a directory.
    """

    started: datetime
    token: str

    def __str__(self) -> str:
        return f"{self.started.strftime(_TIME)}-{self.token}"

    @property
    def directory(self) -> str:
        """The directory of the backup, with a slash at its end."""
        return f"{BACKUPS}{self.started:%Y/%m/%d}/{self}/"

    def key(self, name: str) -> str:
        """The key of one of its objects, for example `key("manifest.json")`."""
        return self.directory + name


def new_backup_id(started: datetime) -> BackupId:
    """Name a backup that begins at `started` (any time zone; naive times are refused)."""
    if started.tzinfo is None:
        raise ValueError("a backup id needs a time with a time zone")
    millisecond = started.microsecond // 1000
    return BackupId(
        started.astimezone(UTC).replace(microsecond=0), f"{millisecond:03x}{secrets.randbits(20):05x}"
    )


def parse_backup_id(text: str) -> BackupId:
    """Read a backup id; raises NotABackupId."""
    found = _ID.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        started = datetime.strptime(found["time"], _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise NotABackupId(
            f"`{text}` is not the name of a backup.",
            remedy="Use a name as in the catalogue, for example 20260131T180000Z-1a2b3c4d, or `latest`.",
        ) from None
    return BackupId(started, found["token"])


def split_key(key: str) -> tuple[BackupId, str] | None:
    """The backup that a key under `backups/` belongs to, and its name there; None for anything else.

    A key counts only where its date directories agree with the id: what somebody copied elsewhere by
    hand is not a backup, it only looks like one.
    """
    parts = key.removeprefix(BACKUPS).split("/", 4)
    if not key.startswith(BACKUPS) or len(parts) != 5:
        return None
    try:
        backup = parse_backup_id(parts[3])
    except NotABackupId:
        return None
    return (backup, parts[4]) if key.startswith(backup.directory) else None


def dump_name(database: str, suffixes: Sequence[str]) -> str:
    """The name of a database dump, for example `pg/registry.dump.zst.age`."""
    return with_suffixes(f"pg/{database}.dump", suffixes)


def is_dump(name: str) -> bool:
    """Whether an object of a backup is a dump as `dump_name` names it; roles and configuration are none."""
    return name.startswith("pg/") and ".dump" in name


def with_suffixes(name: str, suffixes: Sequence[str]) -> str:
    """Append `.zst`, `.age`… in the order in which they were applied."""
    return name + "".join(f".{suffix}" for suffix in suffixes)


def blob_key(digest: str) -> str:
    """Where a blob lies, the same path as under Harbor's storage root; raises NotADigest.

    The digest comes out of a database or a listing and becomes a path on a node, so nothing but the
    strict form passes.
    """
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise NotADigest(f"`{digest[:100]}` is not a sha256 digest.")
    return f"{BLOBS}{found[1][:2]}/{found[1]}/data"


def digest_of(key: str) -> str | None:
    """The digest of a blob's key; None when the key is not one of a blob."""
    found = _BLOB_KEY.fullmatch(key)
    return f"sha256:{found[2]}" if found is not None else None
