"""What a backup says about itself: `manifest.json`."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tasks.errors import HarborHaError

SCHEMA_VERSION = 1

Compression = Literal["none", "zstd", "gzip"]
Encryption = Literal["none", "age"]
Part = TypeVar("Part")


class ManifestUnreadable(HarborHaError):
    """A manifest is damaged, or was written by a newer version of this software."""


@dataclass(frozen=True)
class Artifact:
    """One object of the backup.

    Attributes:
        name: its key below the backup's directory.
        role: what it is: `database`, `globals`, `configuration`, `links` or `blob-index`.
        subject: which one of its role, for example the name of the database.
        plain_size: bytes before encryption; equal to `size` when it is not encrypted.
        plain_sha256: hexadecimal, of the bytes before encryption.
        size: bytes as stored.
        sha256: hexadecimal, of the bytes as stored.
        crc64: CRC-64/XZ of the bytes as stored, as OSS reports it.
        compression: what was applied around the content; `none` also where pg_dump compresses by itself.
        encryption: what was applied last.
    """

    name: str
    role: Literal["database", "globals", "configuration", "links", "blob-index"]
    subject: str
    plain_size: int
    plain_sha256: str
    size: int
    sha256: str
    crc64: int
    compression: Compression
    encryption: Encryption


@dataclass(frozen=True)
class Database:
    """One database at the instant of its snapshot.

    Attributes:
        tables: exact number of rows of every ordinary table, by `schema.table`.
        schema_version: Harbor's `schema_migrations.version`; None where the database has none.
        schema_dirty: whether a migration was under way or had failed.
        left_out: what a restore will not bring back, one sentence each.
    """

    name: str
    owner: str
    encoding: str
    collation: str
    snapshot: str
    tables: dict[str, int]
    schema_version: int | None = None
    schema_dirty: bool = False
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """The PostgreSQL node that the dumps came from.

    Attributes:
        role: `primary` or `standby` while the dump ran.
        version_num: `server_version_num`, for example 150004.
        lsn: position of the snapshot, text form.
        reason: why this node was chosen.
    """

    node: str
    role: Literal["primary", "standby"]
    version_num: int
    pg_dump_version: str
    system_identifier: str
    timeline: int
    lsn: str
    reason: str = ""


@dataclass(frozen=True)
class Harbor:
    """The Harbor that the backup is of.

    Attributes:
        secretkey_sha256: fingerprint of `secretkey`: without the same key, stored credentials are lost
            silently (its cipher has no integrity check).
    """

    version: str
    hostname: str
    secretkey_sha256: str
    components: tuple[str, ...] = ()
    read_only: bool = False


@dataclass(frozen=True)
class Blobs:
    """The image data that belongs to the backup.

    Attributes:
        referenced: blobs that the dump needs.
        referenced_bytes: their size together.
        uploaded: blobs that this run copied into the bucket.
        uploaded_bytes: their size together.
        closure_ok: whether every needed blob was found in the bucket, or nowhere at all.
        pending: needed blobs that are at the source but not in the bucket yet (time budget).
        missing_at_source: digests that the database refers to and that no storage has, at most 1,000.
        missing_at_source_count: how many there are.
    """

    referenced: int
    referenced_bytes: int
    uploaded: int
    uploaded_bytes: int
    closure_ok: bool
    pending: int = 0
    missing_at_source: tuple[str, ...] = ()
    missing_at_source_count: int = 0


@dataclass(frozen=True)
class Links:
    """The packed `repositories/` tree."""

    repositories: int
    files: int


@dataclass(frozen=True)
class Stage:
    """How long one stage of the backup took; times are ISO 8601 in UTC."""

    name: str
    started_at: str
    seconds: float


@dataclass(frozen=True)
class Manifest:
    """Everything that a reader must know about one backup. Times are ISO 8601 in UTC.

    Attributes:
        blobs: None for a backup of the database and configuration only.
        previous: the newest complete backup before this one.
    """

    backup_id: str
    site: str
    started_at: str
    finished_at: str
    tool: str
    source: Source
    harbor: Harbor
    databases: tuple[Database, ...]
    artifacts: tuple[Artifact, ...]
    blobs: Blobs | None = None
    links: Links | None = None
    stages: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    previous: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    def artifact(self, role: str, subject: str | None = None) -> Artifact:
        """Find one object by role (and subject); raises ManifestUnreadable when it is not listed."""
        for artifact in self.artifacts:
            if artifact.role == role and subject in (None, artifact.subject):
                return artifact
        raise ManifestUnreadable(
            f"The backup lists no {role} {subject or ''}".rstrip() + ".", where=f"backup {self.backup_id}"
        )

    def database(self, name: str) -> Database:
        """Find one database by name; raises ManifestUnreadable when it is not listed."""
        for database in self.databases:
            if database.name == name:
                return database
        raise ManifestUnreadable(f"The backup lists no database {name}.", where=f"backup {self.backup_id}")

    @property
    def has_images(self) -> bool:
        """Whether every blob that the database needs was in the bucket (or nowhere) at that time."""
        return self.blobs is not None and self.blobs.closure_ok and self.links is not None


def part_from_plain(kind: type[Part], raw: object) -> Part:
    """Build a part of a manifest from what `dataclasses.asdict` made of it; raises ManifestUnreadable."""
    try:
        part: Part = _build(kind, raw, kind.__name__)
    except (KeyError, TypeError) as error:
        raise ManifestUnreadable(f"It is not a part of a manifest: {error}.") from None
    return part


def encode(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: sorted, indented, so that a human and a diff can read it."""
    return json.dumps(asdict(manifest), indent=1, sort_keys=True).encode() + b"\n"


def fingerprint(content: bytes) -> str:
    """What the completion marker says: the hexadecimal sha256 of `manifest.json`."""
    return hashlib.sha256(content).hexdigest()


def decode(content: bytes, where: str = "manifest.json") -> Manifest:
    """Read a manifest. Unknown keys are ignored, so that an older reader understands a younger writer.

    Raises:
        ManifestUnreadable: not JSON, a field is missing or of another type, or the schema is newer.
    """
    try:
        raw = json.loads(content)
        version = raw["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise ManifestUnreadable(
            "The manifest is damaged: it is not what was written.", where=where
        ) from None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ManifestUnreadable(
            f"The manifest has schema version {version}, this software knows {SCHEMA_VERSION}.",
            where=where,
            remedy="Use the version of this software that wrote the backup, or a newer one.",
        )
    try:
        manifest: Manifest = _build(Manifest, raw, "manifest")
        return manifest
    except (KeyError, TypeError) as error:
        raise ManifestUnreadable(f"The manifest is damaged: {error}.", where=where) from None


def _build(kind: Any, raw: Any, path: str) -> Any:
    """Build a value of a type hint from parsed JSON; TypeError names the path that does not fit."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        if not isinstance(raw, dict):
            raise TypeError(f"{path} is not an object")
        hints = get_type_hints(kind)
        values = {
            f.name: _build(hints[f.name], raw[f.name], f"{path}.{f.name}")
            for f in fields(kind)
            if f.name in raw
        }
        return kind(**values)  # type: ignore[operator]  # missing ones: a TypeError that names them
    if origin in (Union, UnionType):
        if raw is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), raw, path)
    if origin is tuple:
        if not isinstance(raw, list | tuple):
            raise TypeError(f"{path} is not a list")
        return tuple(_build(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(raw))
    if origin is dict:
        if not isinstance(raw, dict):
            raise TypeError(f"{path} is not an object")
        return {key: _build(arguments[1], value, f"{path}.{key}") for key, value in raw.items()}
    if origin is Literal:
        if raw not in arguments:
            raise TypeError(f"{path} is `{raw}`")
        return raw
    wanted = (int, float) if kind is float else (kind,)
    if not isinstance(raw, wanted) or (isinstance(raw, bool) and kind is not bool):
        raise TypeError(f"{path} is not {kind.__name__}")
    return raw
