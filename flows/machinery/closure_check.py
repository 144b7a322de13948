"""Closure of a backup: every blob that the dump refers to is in the bucket; and the index that proves it."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from blocks import HarborSite
from flows.rules.closure import Checked, State, compare, conclude
from tasks.backup.format.blobs import BlobFile, IndexedBlob, KnownBlob, indexed_line
from tasks.backup.format.catalogue import list_backups, read_manifest
from tasks.backup.format.layout import BLOB_INDEX, blob_key, parse_backup_id
from tasks.backup.format.manifest import Artifact, ManifestUnreadable
from tasks.backup.format.signature import NotSigned, SignatureWrong, Trust
from tasks.backup.night.images import INDEX, NEEDED, PREVIOUS, UPLOADED
from tasks.backup.night.known import known_of, newest_of
from tasks.backup.restore.fetch import ArtifactDamaged, Origin
from tasks.backup.restore.restore_blobs import fetch_index
from tasks.backup.settings import store_of, trust_of
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed
from tasks.storage.digests import Digests
from tasks.storage.errors import CrcMismatch, ObjectMissing
from tasks.storage.inventory import bucket_inventory, node_inventory
from tasks.storage.store import ObjectStore

_LOG = logging.getLogger(__name__)

# Blobs that a killed run uploaded and never listed: their checksums are asked for one by one.
_ASK_AT_MOST = 5000
_NAMED_AT_MOST = 1000


def check_closure(
    site: HarborSite, host: Host, *, backup: str, work: str, damaged: list[str] | None = None
) -> Outcome:
    """Compare what the dump needs with what the bucket has, and store the index of blobs of this backup.

    Args:
        site: its bucket and NAS.
        host: a node with the NAS mounted; asked only for what the bucket lacks.
        backup: id of the backup.
        work: directory on the orchestrator with the lists of needed and of uploaded blobs.
        damaged: digests whose content at the source is not what their name says: as good as missing.

    Returns:
        data: `artifact` (of the index), the fields of ClosureResult, `ok`.
    """
    directory, store, identity = Path(work), store_of(site), parse_backup_id(backup)
    source = _Source(host, site.nas.path, frozenset(damaged or ()))
    index = BlobFile(directory / INDEX)
    needed = BlobFile(directory / NEEDED)
    # As many listings as there are blobs to expect: sixteen of a million blobs are held all at once, 450 MB.
    stored = bucket_inventory(store, expected=needed.count())
    checks = compare(needed.needed(), stored, _known(store, trust_of(site), directory))
    tee = _Tee(checks, store, source)
    index.write(tee.lines())
    result = conclude(tee.kept, source.has)
    present = tee.present, tee.present_bytes
    artifact = _store_index(store, identity.key(BLOB_INDEX), index)
    data = asdict(result) | {
        "present": present[0],
        "present_bytes": present[1],
        "ok": result.ok,
        "artifact": asdict(artifact),
    }
    return changed(_describe(data), **data)


class _Tee:
    """Writes the index while the checks stream by, and keeps only those that are not simply present."""

    def __init__(self, checks: Iterable[Checked], store: ObjectStore, source: "_Source") -> None:
        self._checks, self._store, self._source = checks, store, source
        self._asked = 0
        self.kept: list[Checked] = []
        self.present = self.present_bytes = 0

    def lines(self) -> Iterator[str]:
        for check in self._checks:
            if check.state is State.PRESENT and check.stored is not None:
                self.present += 1
                self.present_bytes += check.stored.size
            if check.state is not State.PRESENT or check.reason:
                self.kept.append(check)
            if check.stored is not None and check.state in (State.PRESENT, State.EXEMPT):
                yield indexed_line(self._present(check))
            elif check.state is not State.EXEMPT and not self._source.has(check.blob.digest):
                size = check.blob.size or 0
                yield indexed_line(
                    IndexedBlob(check.blob.digest, size, None, "", "missing_at_source", check.blob.pulled)
                )

    def _present(self, check: Checked) -> IndexedBlob:
        assert check.stored is not None
        crc = check.known.crc64 if check.known is not None else None
        if crc is None and self._asked < _ASK_AT_MOST:
            self._asked += 1
            crc = self._store.head(blob_key(check.blob.digest)).crc64
        stored = check.stored
        return IndexedBlob(stored.digest, stored.size, crc, stored.etag, "present", check.blob.pulled)


class _Source:
    """Which blobs the NAS has; listed only when somebody asks."""

    def __init__(self, host: Host, nas_path: str, damaged: frozenset[str]) -> None:
        self._host, self._nas_path, self._damaged = host, nas_path, damaged
        self._digests: Digests | None = None

    def has(self, digest: str) -> bool:
        if digest in self._damaged:
            return False
        if self._digests is None:
            self._digests = node_inventory(self._host, self._nas_path).digests
        return bytes.fromhex(digest.removeprefix("sha256:")) in self._digests


def _known(store: ObjectStore, trust: Trust, directory: Path) -> Iterator[KnownBlob]:
    """What was hashed on its way into the bucket: the last index, and this run's uploads."""
    older: Iterable[KnownBlob] = ()
    for entry in reversed(list_backups(store)):
        if not entry.complete or BLOB_INDEX not in entry.names:
            continue
        try:
            manifest = read_manifest(store, entry.backup, trust)
            found = fetch_index(Origin(store, entry.backup, []), manifest, directory / PREVIOUS)
        except (NotSigned, SignatureWrong) as error:
            # What somebody else wrote must not vouch for blobs; theirs are asked for and hashed anew.
            _LOG.warning("The index of %s is not used: %s", entry.backup, error)
            continue
        except (ManifestUnreadable, ArtifactDamaged, CrcMismatch, ObjectMissing) as error:
            # A damaged backup of yesterday is no reason to have none of tonight.
            _LOG.warning("The index of %s is not used: %s", entry.backup, error)
            continue
        older = known_of(found.indexed())
        break
    uploaded = directory / UPLOADED
    newer = known_of(BlobFile(uploaded).indexed()) if uploaded.exists() else ()
    return newest_of(newer, older)


def _store_index(store: ObjectStore, key: str, index: BlobFile) -> Artifact:
    with index.path.open("rb") as source:
        stored = store.put_stream(key, source)
    return Artifact(
        name=BLOB_INDEX,
        role="blob-index",
        subject="",
        plain_size=stored.size,
        plain_sha256=stored.sha256,
        size=stored.size,
        sha256=stored.sha256,
        crc64=stored.crc64,
        compression="zstd",
        encryption="none",
    )


def _describe(data: dict[str, object]) -> str:
    text = f"{data['present']:,} blobs present, {data['present_bytes']:,} bytes"
    for count, words in (
        ("missing_in_bucket_count", "still to be copied"),
        ("missing_at_source_count", "missing at the source"),
        ("wrong_count", "wrong in the bucket"),
        ("other_size", "of another size than the database says"),
    ):
        text += f", {data[count]} {words}" if data[count] else ""
    return text
