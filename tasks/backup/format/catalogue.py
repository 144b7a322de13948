"""Which backups there are. Readers believe the completion marker and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.backup.format.layout import (
    BACKUPS,
    COMPLETE,
    HOLD,
    MANIFEST,
    SIGNATURE,
    VERIFIED,
    BackupId,
    is_dump,
    parse_backup_id,
    split_key,
)
from tasks.backup.format.manifest import Manifest, ManifestUnreadable, decode, encode, fingerprint
from tasks.backup.format.signature import SignatureWrong, Trust, require_signed, signature_of
from tasks.errors import HarborHaError
from tasks.storage.errors import ObjectMissing
from tasks.storage.objects import ListedObject
from tasks.storage.store import ObjectStore


class NoBackup(HarborHaError):
    """The backup that was asked for does not exist, or never completed."""


@dataclass(frozen=True)
class Entry:
    """One backup as the listing shows it; nothing of its content was read.

    Attributes:
        complete: it has a completion marker.
        held: somebody put a HOLD next to it.
        verified: names of the drills' results, oldest first.
        size: bytes of all its objects.
        names: of all its objects.
        dumps_size: bytes of the dumps of its databases.
    """

    backup: BackupId
    complete: bool
    held: bool
    verified: tuple[str, ...]
    size: int
    names: tuple[str, ...] = field(repr=False)
    dumps_size: int = 0


def list_backups(store: ObjectStore) -> list[Entry]:
    """List all backups, the complete and the others, oldest first."""
    return catalogue(store.list(BACKUPS))


def catalogue(objects: Iterable[ListedObject]) -> list[Entry]:
    """Group a listing into backups."""
    names: dict[BackupId, dict[str, int]] = {}
    for found in objects:
        if split := split_key(found.key):
            names.setdefault(split[0], {})[split[1]] = found.size
    return [_entry(backup, sizes) for backup, sizes in sorted(names.items())]


def _entry(backup: BackupId, sizes: dict[str, int]) -> Entry:
    return Entry(
        backup=backup,
        complete=COMPLETE in sizes and MANIFEST in sizes,
        held=HOLD in sizes,
        verified=tuple(sorted(name for name in sizes if name.startswith(VERIFIED))),
        size=sum(sizes.values()),
        names=tuple(sorted(sizes)),
        dumps_size=sum(size for name, size in sizes.items() if is_dump(name)),
    )


def find_backup(store: ObjectStore, wanted: str) -> BackupId:
    """Resolve `latest`, or the id of a backup.

    Raises:
        NotABackupId: neither of the two.
        NoBackup: there is none, or it never completed; the message lists the newest ones that did.
    """
    complete = [entry.backup for entry in list_backups(store) if entry.complete]
    if wanted == "latest" and complete:
        return complete[-1]
    if wanted != "latest" and (backup := parse_backup_id(wanted)) in complete:
        return backup
    newest = ", ".join(str(backup) for backup in complete[-5:]) or "none"
    raise NoBackup(
        f"There is no complete backup {wanted}." if complete else "There is no complete backup.",
        where=store.where(BACKUPS),
        remedy=f"Complete ones, newest last: {newest}.",
    )


def read_manifest(store: ObjectStore, backup: BackupId, trust: Trust) -> Manifest:
    """Read the manifest of a complete backup; see `read_believed`."""
    return read_believed(store, backup, trust)[0]


def read_believed(store: ObjectStore, backup: BackupId, trust: Trust) -> tuple[Manifest, str]:
    """Read the manifest of a complete backup, and the fingerprint of the very bytes that it was read from.

    Args:
        store: the bucket.
        backup: which one.
        trust: whose signature is believed.

    Raises:
        NoBackup: it has no completion marker.
        NotSigned, SignatureWrong: nobody who is believed signed it; nothing of it was looked at.
        ManifestUnreadable: the manifest is not the one that the marker was written for.
    """
    where = store.where(backup.directory)
    try:
        marker = store.get_bytes(backup.key(COMPLETE)).decode("ascii", "replace").strip()
        content = store.get_bytes(backup.key(MANIFEST))
    except ObjectMissing:
        raise NoBackup(f"The backup {backup} never completed.", where=where) from None
    if fingerprint(content) != marker:
        raise ManifestUnreadable(
            "The manifest is not the one that the completion marker was written for.",
            where=where,
            meaning="Somebody changed it, or it is damaged; nothing of this backup can be trusted.",
            remedy="Use another backup.",
        )
    require_signed(content, _signature(store, backup), trust, where)
    manifest = decode(content, where)
    if manifest.backup_id != str(backup):
        raise ManifestUnreadable(f"The manifest is of the backup {manifest.backup_id}.", where=where)
    return manifest, marker


def _signature(store: ObjectStore, backup: BackupId) -> bytes | None:
    try:
        return store.get_bytes(backup.key(SIGNATURE), limit=4096)
    except ObjectMissing:
        return None


def sign(store: ObjectStore, backup: BackupId, reviewed: str, trust: Trust) -> None:
    """Sign a backup that somebody reviewed.

    Args:
        store: the bucket.
        backup: which one.
        reviewed: fingerprint of the manifest that was reviewed.
        trust: its first key signs.

    Raises:
        SignatureWrong: the manifest in the bucket is another one by now.
    """
    content = store.get_bytes(backup.key(MANIFEST))
    if fingerprint(content) != reviewed:
        raise SignatureWrong(
            "The manifest is not the one that was reviewed.",
            where=store.where(backup.directory),
            meaning="Somebody exchanged it meanwhile; it was not signed.",
            remedy="Find out who writes into the bucket.",
        )
    store.put_bytes(backup.key(SIGNATURE), signature_of(content, trust))


def publish(store: ObjectStore, manifest: Manifest, trust: Trust) -> None:
    """Write the manifest and its signature, then the marker: from here on the backup exists.

    Args:
        store: the bucket.
        manifest: of the backup.
        trust: its first key signs; without one the backup stays unsigned.

    Raises:
        ObjectExists: the backup exists already.
    """
    backup = parse_backup_id(manifest.backup_id)
    content = encode(manifest)
    store.put_bytes(backup.key(MANIFEST), content, forbid_overwrite=True)
    if trust.keys:
        store.put_bytes(backup.key(SIGNATURE), signature_of(content, trust))
    store.create_marker(backup.key(COMPLETE), fingerprint(content).encode() + b"\n")


def remove_backup(store: ObjectStore, entry: Entry) -> int:
    """Remove one backup, its marker first: killed in the middle, what is left is not taken for a backup.

    Returns:
        How many objects there were.
    """
    if COMPLETE in entry.names:
        store.delete_many([entry.backup.key(COMPLETE)])
    return store.delete_many(entry.backup.key(name) for name in entry.names)
