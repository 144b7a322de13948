"""A restore drill: the newest backup into a scratch PostgreSQL, and a sample of its blobs downloaded."""

import contextlib
import hashlib
import heapq
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import zstandard

from blocks import HarborSite
from tasks.backup.drill.invariants import broken_invariants
from tasks.backup.drill.inventory import check_blobs, check_objects
from tasks.backup.drill.result import DrillFailed, DrillResult
from tasks.backup.drill.scratch import DIRECTORY, make_user, scratch_server
from tasks.backup.format.blobs import IndexedBlob
from tasks.backup.format.catalogue import find_backup, read_believed, sign
from tasks.backup.format.layout import VERIFIED, BackupId, blob_key
from tasks.backup.format.manifest import Artifact, Manifest
from tasks.backup.format.signature import NotSigned
from tasks.backup.restore.fetch import ArtifactDamaged, Origin, opened, unpacked, whole
from tasks.backup.restore.restore_blobs import fetch_index
from tasks.backup.restore.restore_config import read_configuration
from tasks.backup.restore.restore_database import restore_database
from tasks.backup.restore.roles import make_roles
from tasks.backup.server import query, server_of
from tasks.backup.settings import identities, identities_or_none, store_of, trust_of
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed
from tasks.postgres.layout import layout_of
from tasks.storage.errors import CrcMismatch, ObjectArchived, ObjectMissing, StorageError
from tasks.storage.retry import read_again
from tasks.storage.store import ObjectStore

_TIMEOUT_S = 6 * 3600.0
_BLOCK = 1 << 20
# A drill a week reads every blob of a small registry within a year, and never more than this at a time.
_SAMPLE = 200
_SAMPLE_BYTES = 2 << 30


def drill(
    site: HarborSite,
    host: Host,
    *,
    backup: str = "latest",
    identity_file: str | None = None,
    accept_unsigned: bool = False,
    sign_it: bool = False,
) -> Outcome:
    """Restore a backup where it harms nobody, and record what was found next to it.

    Without an identity, which is kept offline unless somebody decided otherwise, nothing is decrypted: then it is
    proven that everything is there as it was stored, and said what was not proven.

    Args:
        site: its bucket, its PostgreSQL and, unless a file is named, its identity.
        host: the node whose PostgreSQL programs and disk are used; its live cluster is not touched.
        backup: `latest` or an id.
        identity_file: path of the age identity on the orchestrator, mode 0600.
        accept_unsigned: see `Trust`.
        sign_it: sign the backup when it passed.

    Returns:
        data: the DrillResult.

    Raises:
        NoBackup: there is none.
        IdentityUnusable: nothing could be decrypted; nothing was recorded.
        NoIdentity: it cannot be signed, because nothing of it could be restored.
        NotSigned: whose it is cannot be known, which says nothing of what is in it; nothing was recorded.
        DrillFailed: with all findings; they are recorded next to the backup.
        StorageError: OSS cannot be used; nothing was recorded.
    """
    store, trust = store_of(site), trust_of(site, accept_unsigned=accept_unsigned)
    # A site of before there were signatures, not applied since: its backups are no worse than they were.
    unknown = not trust.keys and not accept_unsigned
    trust = replace(trust, accept_unsigned=accept_unsigned or unknown)
    if sign_it and not trust.keys:
        raise NotSigned(
            "There is no key to sign the backup with.", remedy="Run `harbor-ha apply`, which makes one."
        )
    keys = identities_or_none(site, identity_file)
    if sign_it and not keys:
        identities(site, identity_file)
    origin = Origin(store, find_backup(store, backup), keys, trust)
    result = run_drill(host, server_of(layout_of(site)).programs, origin, user=make_user(host))
    if unknown:
        result.not_proven.append(
            "that the backup is the orchestrator's own: the site has no signing_secret, `harbor-ha apply` makes one"
        )
    record(store, origin.backup, result)
    if not result.ok:
        raise DrillFailed(
            f"The backup {result.backup} is not restorable as it is: {'; '.join(result.findings)}",
            where=store.where(origin.backup.directory),
            meaning="A disaster now would need an earlier backup.",
            remedy="Make a new backup and drill again; keep this one for analysis.",
        )
    if sign_it:
        sign(store, origin.backup, result.manifest_sha256, trust_of(site))
    return changed(_detail(result) + (", and signed" if sign_it else ""), **asdict(result))


def _detail(result: DrillResult) -> str:
    text = f"{result.blobs_listed:,} blobs are in the bucket as they were stored, {result.blobs_checked:,} were hashed"
    if result.restored_tables:
        text = f"{result.restored_rows:,} rows restored and counted, {text}"
    return text + (f"; not proven: {'; '.join(result.not_proven)}" if result.not_proven else "")


def run_drill(
    host: Host, programs: str, origin: Origin, directory: str = DIRECTORY, *, user: str = "postgres"
) -> DrillResult:
    """Do all checks of a drill, each of them whatever the others found.

    Args:
        host: where the scratch server runs.
        programs: directory of PostgreSQL's programs there.
        origin: the backup and what decrypts it.
        directory: for the scratch server.
        user: whom it runs as.
    """
    now = datetime.now(UTC)
    result = DrillResult(str(origin.backup), now.isoformat(timespec="seconds"))
    manifest: list[Manifest] = []

    def check(name: str, work: Callable[[], None]) -> None:
        begun = datetime.now(UTC)
        try:
            work()
        except (CrcMismatch, ObjectMissing) as error:
            result.findings.append(f"{name}: {error}")
        except (StorageError, NotSigned):
            raise  # OSS cannot be used, or whose it is is not known: nothing of what is in it, and nothing is recorded
        except HarborHaError as error:
            result.findings.append(f"{name}: {error}")
        result.seconds[name] = round((datetime.now(UTC) - begun).total_seconds(), 2)

    def believe() -> None:
        found, result.manifest_sha256 = read_believed(origin.store, origin.backup, origin.trust)
        manifest.append(found)

    check("manifest", believe)
    if not manifest:
        return result
    if origin.identities:
        check("configuration", lambda: _configuration(origin, manifest[0], result))
        check("databases", lambda: _databases(host, programs, origin, manifest[0], directory, user, result))
        if manifest[0].links is not None:
            check("links", lambda: _links(origin, manifest[0], result))
    else:
        # What is decrypted is read to its last byte; what is not is asked for.
        check("objects", lambda: check_objects(origin, manifest[0], result))
        result.not_proven.append(
            "that databases, configuration and links can be decrypted and restored: there is no age identity here"
        )
    if manifest[0].blobs is not None:
        check("blobs", lambda: _blobs(origin, manifest[0], result, now))
    return result


def record(store: ObjectStore, backup: BackupId, result: DrillResult) -> None:
    """Write the result next to the backup; the manifest is never touched."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    # Only what was restored protects a backup from prune.
    word = "failed" if not result.ok else "ok" if result.restored_tables else "unopened"
    content = json.dumps(asdict(result), indent=1, sort_keys=True).encode()
    store.put_bytes(backup.key(f"{VERIFIED}{moment}-{word}.json"), content)


def _configuration(origin: Origin, manifest: Manifest, result: DrillResult) -> None:
    result.configuration_files = len(read_configuration(origin, manifest).files)


def _links(origin: Origin, manifest: Manifest, result: DrillResult) -> None:
    """Read the whole archive of links and count them; nothing is unpacked."""
    artifact, wanted = manifest.artifact("links"), manifest.links
    result.links = files = whole(origin, lambda: _count_links(origin, artifact))
    if wanted is not None and files != wanted.files:
        result.findings.append(f"{artifact.name} holds {files} links, {wanted.files} are in the manifest")


def _count_links(origin: Origin, artifact: Artifact) -> int:
    files = 0
    try:
        with (
            opened(origin, artifact) as packed,
            unpacked(packed, artifact.compression) as plain,
            tarfile.open(fileobj=cast(IO[bytes], plain), mode="r|") as archive,
        ):
            for member in archive:
                files += member.isfile()
                # It would keep every member that it has seen, and there are millions.
                archive.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zstandard.ZstdError) as error:
        raise ArtifactDamaged(f"{artifact.name} cannot be unpacked: {error}.") from None
    return files


def _databases(
    host: Host,
    programs: str,
    origin: Origin,
    manifest: Manifest,
    directory: str,
    user: str,
    result: DrillResult,
) -> None:
    with scratch_server(host, programs, directory=directory, user=user) as server:
        make_roles(host, server, origin, manifest)
        for database in manifest.databases:
            query(host, server, "postgres", _OWNER, values=[database.owner])
            restored = restore_database(
                host,
                server,
                origin,
                manifest,
                database.name,
                owner=database.owner,
                work_directory=f"{directory}/dump",
                timeout=_TIMEOUT_S,
            )
            result.restored_rows += restored.rows
            result.restored_tables += restored.tables
            result.left_out += [f"{database.name}: {line}" for line in restored.left_out]
            # Not as the superuser: they name tables without a schema, and the dump may bring a function to each.
            owner = replace(server, role=database.owner)
            result.findings += broken_invariants(host, owner, database.name)


# Whoever may write a dump writes SQL that a restore runs: it is run by a role that owns one scratch database.
_OWNER = r"""
SELECT format('CREATE ROLE %I', :'v0') WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'v0')
\gexec
ALTER ROLE :"v0" LOGIN NOSUPERUSER;
"""


def _blobs(origin: Origin, manifest: Manifest, result: DrillResult, now: datetime) -> None:
    """Every blob of the index against the bucket's listing; and the content of a sample."""
    archived = 0
    with tempfile.TemporaryDirectory(prefix="harbor-ha-drill-") as work:
        index = fetch_index(origin, manifest, Path(work) / "index.zst")
        check_blobs(origin.store, index, result)
        for blob in sample(index.indexed(), f"{now:%G-%V}"):
            if any(blob.digest in finding for finding in result.findings):
                continue
            try:
                problem = blob_problem(origin.store, blob)
            except ObjectArchived:
                archived += 1
                continue
            result.blobs_checked += 1
            result.blob_bytes_checked += blob.size
            if problem:
                result.findings.append(f"blob {blob.digest}: {problem}")
    if archived:
        result.not_proven.append(
            f"the content of {archived} blobs: they lie in an archive class, and a restore waits hours for their thaw"
        )


def sample(
    index: Iterable[IndexedBlob], turn: str, count: int = _SAMPLE, size: int = _SAMPLE_BYTES
) -> list[IndexedBlob]:
    """Choose blobs to download: another choice every turn, the same for the same turn.

    Args:
        index: of a backup.
        turn: for example the year and week.
        count: at most so many.
        size: at most so many bytes together; at least one blob is chosen.
    """

    def rank(blob: IndexedBlob) -> bytes:
        return hashlib.sha256(f"{turn} {blob.digest}".encode()).digest()

    present = (blob for blob in index if blob.state == "present")
    chosen: list[IndexedBlob] = []
    total = 0
    for blob in heapq.nsmallest(count, present, key=rank):
        if not chosen or total + blob.size <= size:
            chosen.append(blob)
            total += blob.size
    return chosen


def blob_problem(store: ObjectStore, blob: IndexedBlob) -> str:
    """Download a blob and say what is wrong with it; an empty text when nothing is."""

    def digest_in_bucket() -> str:
        digest = hashlib.sha256()
        with contextlib.closing(store.get_stream(blob_key(blob.digest))) as source:
            while block := source.read(_BLOCK):
                digest.update(block)
        return f"sha256:{digest.hexdigest()}"

    try:
        found = read_again(digest_in_bucket, store.patience)
    except (CrcMismatch, ObjectMissing) as error:
        return str(error)
    return "" if found == blob.digest else f"its content hashes to {found}"
