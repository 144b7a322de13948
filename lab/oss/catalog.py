"""What the bucket holds: objects, uploads, parts and settings, in one SQLite file.

SQLite because a listing is a range scan of a sorted index, a commit is atomic (forbid-overwrite needs that),
and a restart of the server finds everything again, with 100,000 objects as with ten.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

_LAST = "\U0010ffff"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
  key TEXT, upload_id TEXT, initiated REAL, headers TEXT, PRIMARY KEY (key, upload_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
  upload_id TEXT, number INTEGER, fields TEXT NOT NULL, PRIMARY KEY (upload_id, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Segment:
    """One file on disk that holds a piece of an object."""

    file: str
    size: int


@dataclass(frozen=True)
class StoredObject:
    """An object as the catalog knows it; its content is the segments one after the other."""

    key: str
    etag: str
    crc: int
    size: int
    kind: str
    modified: float
    segments: tuple[Segment, ...]
    headers: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One uploaded part of a multipart upload."""

    number: int
    etag: str
    crc: int
    size: int
    modified: float
    file: str


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated: float
    headers: dict[str, str]


@dataclass(frozen=True)
class Page:
    """One page of a listing; `next_marker` is None at the end."""

    objects: tuple[StoredObject, ...]
    prefixes: tuple[str, ...]
    next_marker: str | None


def _load_object(text: str) -> StoredObject:
    fields = json.loads(text)
    fields["segments"] = tuple(Segment(**segment) for segment in fields["segments"])
    return StoredObject(**fields)


class Catalog:
    """The index of one bucket. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file; later calls fail."""
        with self._lock:
            self._db.close()

    def get(self, key: str) -> StoredObject | None:
        """Return one object, or None."""
        with self._lock:
            row = self._db.execute("SELECT fields FROM objects WHERE key = ?", (key,)).fetchone()
        return _load_object(row[0]) if row else None

    def put(self, entry: StoredObject, *, forbid_overwrite: bool = False) -> StoredObject | None:
        """Store an object and return what it replaced.

        Raises:
            FileExistsError: it exists and must not be replaced.
        """
        text = json.dumps(asdict(entry), separators=(",", ":"))
        with self._lock:
            old = self.get(entry.key)
            if old and forbid_overwrite:
                raise FileExistsError(entry.key)
            self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?)", (entry.key, text))
        return old

    def delete(self, key: str) -> StoredObject | None:
        """Remove an object and return what it was."""
        with self._lock:
            old = self.get(key)
            self._db.execute("DELETE FROM objects WHERE key = ?", (key,))
        return old

    def page(self, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """Return at most `limit` objects and common prefixes that sort after `after`."""
        objects: list[StoredObject] = []
        prefixes: list[str] = []
        position, inclusive = (after, False) if after >= prefix else (prefix, True)
        if delimiter and after.startswith(prefix) and after.endswith(delimiter):
            position = after + _LAST  # the marker was a common prefix: skip all of it
        while True:
            wanted = limit + 1 - len(objects) - len(prefixes)
            if wanted <= 0:
                break
            rows = self._range(position, inclusive, prefix, wanted)
            skipped_to = None
            for key, text in rows:
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                if cut >= 0:
                    prefixes.append(key[: cut + len(delimiter)])
                    skipped_to = prefixes[-1] + _LAST
                    break
                objects.append(_load_object(text))
                position = key
            if skipped_to is None:
                break  # the range gave all it has, or all that was asked for
            position, inclusive = skipped_to, False
        return _cut(objects, prefixes, limit)

    def _range(self, position: str, inclusive: bool, prefix: str, limit: int) -> list[tuple[str, str]]:
        comparison = ">=" if inclusive else ">"
        with self._lock:
            return self._db.execute(
                f"SELECT key, fields FROM objects WHERE key {comparison} ? AND key < ? ORDER BY key LIMIT ?",
                (position, prefix + _LAST, limit),
            ).fetchall()

    def totals(self) -> tuple[int, int, int]:
        """Return the number of objects, their bytes, and the number of unfinished uploads."""
        with self._lock:
            count, size = self._db.execute(
                "SELECT count(*), coalesce(sum(json_extract(fields, '$.size')), 0) FROM objects"
            ).fetchone()
            (uploads,) = self._db.execute("SELECT count(*) FROM uploads").fetchone()
        return count, size, uploads

    def add_upload(self, upload: Upload) -> None:
        """Record a started multipart upload."""
        with self._lock:
            self._db.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?)",
                (upload.key, upload.upload_id, upload.initiated, json.dumps(upload.headers)),
            )

    def upload(self, key: str, upload_id: str) -> Upload | None:
        """Return one unfinished upload, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT key, upload_id, initiated, headers FROM uploads WHERE key = ? AND upload_id = ?",
                (key, upload_id),
            ).fetchone()
        return Upload(row[0], row[1], row[2], json.loads(row[3])) if row else None

    def uploads(self, prefix: str, key_marker: str, id_marker: str, limit: int) -> list[Upload]:
        """Return at most `limit` unfinished uploads after the markers, in OSS's order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT key, upload_id, initiated, headers FROM uploads WHERE key >= ? AND key < ? "
                "AND (key > ? OR (key = ? AND upload_id > ? AND ? <> '')) ORDER BY key, upload_id LIMIT ?",
                (prefix, prefix + _LAST, key_marker, key_marker, id_marker, id_marker, limit),
            ).fetchall()
        return [
            Upload(key, upload_id, initiated, json.loads(text)) for key, upload_id, initiated, text in rows
        ]

    def add_part(self, upload_id: str, part: Part) -> Part | None:
        """Record an uploaded part and return the one it replaced."""
        with self._lock:
            old = self._db.execute(
                "SELECT fields FROM parts WHERE upload_id = ? AND number = ?", (upload_id, part.number)
            ).fetchone()
            self._db.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?)",
                (upload_id, part.number, json.dumps(asdict(part))),
            )
        return Part(**json.loads(old[0])) if old else None

    def parts(self, upload_id: str) -> list[Part]:
        """Return the parts of an upload by number."""
        with self._lock:
            rows = self._db.execute(
                "SELECT fields FROM parts WHERE upload_id = ? ORDER BY number", (upload_id,)
            ).fetchall()
        return [Part(**json.loads(row[0])) for row in rows]

    def remove_upload(self, upload_id: str) -> None:
        """Forget an upload and its parts."""
        with self._lock:
            self._db.execute("DELETE FROM parts WHERE upload_id = ?", (upload_id,))
            self._db.execute("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))

    def setting(self, name: str) -> str | None:
        """Return a stored bucket setting (the XML that was put), or None."""
        with self._lock:
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_setting(self, name: str, value: str | None) -> None:
        """Store a bucket setting; None removes it."""
        with self._lock:
            if value is None:
                self._db.execute("DELETE FROM settings WHERE name = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def files(self) -> Iterator[str]:
        """Yield every segment file that an object or a part still needs."""
        with self._lock:
            objects = self._db.execute("SELECT fields FROM objects").fetchall()
            parts = self._db.execute("SELECT fields FROM parts").fetchall()
        for (text,) in objects:
            yield from (segment["file"] for segment in json.loads(text)["segments"])
        for (text,) in parts:
            yield json.loads(text)["file"]


def _cut(objects: list[StoredObject], prefixes: list[str], limit: int) -> Page:
    """Keep the first `limit` of both lists together, in the order of their names."""
    names = sorted([entry.key for entry in objects] + prefixes)
    if len(names) <= limit:
        return Page(tuple(objects), tuple(prefixes), None)
    last = names[limit - 1] if limit else ""
    return Page(
        tuple(entry for entry in objects if entry.key <= last),
        tuple(prefix for prefix in prefixes if prefix <= last),
        last,
    )
