"""Closure: whether the bucket holds every blob that the dumped database refers to.

Three sorted streams are merged, none is held: a million blobs cost a million steps and no memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from tasks.backup.format.blobs import KnownBlob, NeededBlob, StoredBlob

# Layers that Docker never uploads: clients fetch them from their vendor.
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
# Harbor's garbage collector has taken these; the row goes after the file.
DELETING = "deleting"
NAMED_AT_MOST = 1000


class OutOfOrder(Exception):
    """A stream is not sorted by digest; merging it would report blobs as missing that are not."""


class State(StrEnum):
    """What closure found for one blob."""

    PRESENT = "present"
    EXEMPT = "exempt"
    MISSING = "missing"
    WRONG_SIZE = "wrong-size"
    CHANGED = "changed"


class Checked(NamedTuple):
    """One needed blob and what the bucket has of it."""

    blob: NeededBlob
    state: State
    stored: StoredBlob | None = None
    known: KnownBlob | None = None
    reason: str = ""


@dataclass(frozen=True)
class ClosureResult:
    """The sum of all checks. Lists name at most 1,000 digests each; the counts are exact.

    Attributes:
        missing_in_bucket: not in the bucket but at the source: copy again.
        missing_at_source: in neither; damage that is older than this backup.
        wrong: wrong size, or changed since it was hashed.
        exempt: not needed, by reason.
        other_size: present, hashed, and of another size than the database says.
    """

    present: int
    present_bytes: int
    missing_in_bucket: tuple[str, ...]
    missing_in_bucket_count: int
    missing_at_source: tuple[str, ...]
    missing_at_source_count: int
    wrong: tuple[str, ...]
    wrong_count: int
    exempt: dict[str, int]
    other_size: int = 0

    @property
    def ok(self) -> bool:
        """Whether the backup can serve every image that its source could serve."""
        return self.missing_in_bucket_count == 0 and self.wrong_count == 0


def exemption(blob: NeededBlob) -> str | None:
    """Why a blob need not be in the bucket, or None when it must be."""
    if blob.content_type == FOREIGN_LAYER:
        return "foreign layer"
    if blob.status == DELETING:
        return "being deleted by garbage collection"
    if not blob.digest.startswith("sha256:"):
        return "not addressed by sha256"
    return None


def compare(
    needed: Iterable[NeededBlob], stored: Iterable[StoredBlob], known: Iterable[KnownBlob] = ()
) -> Iterator[Checked]:
    """Judge every needed blob against the bucket, in order of digest.

    Args:
        needed: from the dump, sorted by digest, no digest twice.
        stored: from the bucket's listing, sorted by digest.
        known: from the index of an earlier backup and from this run's uploads, sorted by digest.

    Raises:
        OutOfOrder: a stream is not sorted.
    """
    listing = _Cursor(stored, "the bucket's listing")
    index = _Cursor(known, "the index of blobs")
    for blob in _sorted(needed, "the database's list of blobs"):
        found, before = listing.seek(blob.digest), index.seek(blob.digest)
        yield _check(blob, found, before)


def _check(blob: NeededBlob, stored: StoredBlob | None, known: KnownBlob | None) -> Checked:
    reason = exemption(blob)
    if stored is None:
        if reason is None and blob.proxied:
            reason = "of a proxy cache, perhaps never fetched"
        if reason is None and not blob.referenced:
            # Garbage collection may take it at any moment, and no pull can ask for it.
            reason = "no artifact refers to it"
        return Checked(blob, State.EXEMPT if reason else State.MISSING, reason=reason or "")
    if reason is not None:
        return Checked(blob, State.EXEMPT, stored, known, reason)
    if known is not None and (stored.size != known.size or (known.etag and stored.etag != known.etag)):
        return Checked(blob, State.CHANGED, stored, known, "another object than the one that was hashed")
    if blob.size is not None and stored.size != blob.size:
        text = f"{stored.size} bytes in the bucket, {blob.size} in the database"
        # Harbor writes wrong sizes itself. The digest is the identity: where the content was hashed on its way, that
        # settles it, and where it was not, the copy that follows will.
        return Checked(blob, State.PRESENT if known is not None else State.WRONG_SIZE, stored, known, text)
    return Checked(blob, State.PRESENT, stored, known)


def conclude(checks: Iterable[Checked], at_source: Callable[[str], bool]) -> ClosureResult:
    """Add up.

    Args:
        checks: what `compare` yields.
        at_source: says whether Harbor's storage has a blob; asked only for those that the bucket lacks, or has wrong.
    """
    present = present_bytes = other_size = 0
    named: dict[str, list[str]] = {"bucket": [], "source": [], "wrong": []}
    counts: Counter[str] = Counter()
    exempt: Counter[str] = Counter()
    for check in checks:
        if check.state is State.PRESENT and check.stored is not None:
            present += 1
            present_bytes += check.stored.size
            other_size += bool(check.reason)
            continue
        if check.state is State.EXEMPT:
            exempt[check.reason] += 1
            continue
        # What is wrong in the bucket and gone at the source is lost: one image's damage, and no reason for no backup.
        kind = "source"
        if at_source(check.blob.digest):
            kind = "bucket" if check.state is State.MISSING else "wrong"
        counts[kind] += 1
        if len(named[kind]) < NAMED_AT_MOST:
            named[kind].append(check.blob.digest)
    return ClosureResult(
        present=present,
        present_bytes=present_bytes,
        missing_in_bucket=tuple(named["bucket"]),
        missing_in_bucket_count=counts["bucket"],
        missing_at_source=tuple(named["source"]),
        missing_at_source_count=counts["source"],
        wrong=tuple(named["wrong"]),
        wrong_count=counts["wrong"],
        exempt=dict(exempt),
        other_size=other_size,
    )


class _HasDigest(Protocol):
    @property
    def digest(self) -> str: ...


B = TypeVar("B", bound=_HasDigest)


def _sorted(items: Iterable[B], what: str) -> Iterator[B]:
    """Pass a stream on, and refuse it where it is not sorted or names a digest twice."""
    last = ""
    for item in items:
        if item.digest <= last:
            raise _out_of_order(what, item.digest, last)
        last = item.digest
        yield item


def _out_of_order(what: str, digest: str, last: str) -> OutOfOrder:
    return OutOfOrder(f"{what} is not sorted: {digest} after {last}")


class _Cursor(Generic[B]):
    """A sorted stream that is only ever read forwards."""

    def __init__(self, items: Iterable[B], what: str) -> None:
        self._items, self._what = iter(items), what
        self._head: B | None = next(self._items, None)

    def seek(self, digest: str) -> B | None:
        """The item with this digest, or None; everything before it is passed over."""
        head = self._head
        while head is not None and head.digest < digest:
            last, head = head.digest, next(self._items, None)
            if head is not None and head.digest <= last:
                raise _out_of_order(self._what, head.digest, last)
        self._head = head
        return head if head is not None and head.digest == digest else None
