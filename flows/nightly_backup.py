"""Back up a site into its bucket: databases, configuration, images; believed only when it is complete."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prefect import flow

from blocks import HarborSite
from flows.machinery import backup_steps as steps
from flows.machinery.again import RETRIES, RETRY_DELAY_S, tried
from flows.machinery.backup_report import announce, bucket_lines, catalogue_of, publish_catalogue
from flows.machinery.dump_source import candidates_of
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish as publish_report
from flows.rules.dump_node import DumpNode, choose_dump_node, older_servers, only_primary
from flows.rules.point_in_time import gap
from tasks.backup.format import catalogue
from tasks.backup.format.layout import BACKUPS, BLOBS, BackupId, new_backup_id
from tasks.backup.format.manifest import (
    Artifact,
    Blobs,
    Database,
    Harbor,
    Links,
    Manifest,
    Source,
    Stage,
    part_from_plain,
)
from tasks.backup.night.database import is_recovery_conflict
from tasks.backup.night.lock import held
from tasks.backup.settings import require_backup_settings, trust_of
from tasks.errors import HarborHaError, RemoteCommandFailed
from tasks.outcome import Outcome
from tasks.pitr.catalogue import reach_of
from tasks.pitr.settings import stanza_of, uses_repository
from tasks.storage.store import ObjectStore

LOCK = "backup"
# Once more when garbage collection, or a standby's replay, got in the way; then a human should look.
_ROUNDS = 2


class NotClosed(HarborHaError):
    """The bucket lacks blobs that the database refers to, and another copy did not help."""


class ImagesElsewhere(HarborHaError):
    """So many images are missing at the source that it cannot be where Harbor keeps them."""


@dataclass
class Parts:
    """What the steps of one backup gave, on its way into the manifest.

    Attributes:
        dumps_size: bytes of the last dump of all databases, of an earlier backup at first; 0 where there is none.
    """

    backup: BackupId
    work: str
    source: Source | None = None
    databases: tuple[Database, ...] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    secretkey_sha256: str = ""
    links: Links | None = None
    blobs: Blobs | None = None
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    dumps_size: int = 0

    def add(self, plain: dict[str, Any]) -> None:
        """Keep an artifact; one of the same name replaces it."""
        artifact = part_from_plain(Artifact, plain)
        self.artifacts[artifact.name] = artifact


@flow(
    name="nightly_backup",
    flow_run_name="nightly-backup of {site}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_S,
)
@ends_named
def nightly_backup(site: str, images: bool = True, dry_run: bool = False) -> dict[str, Any]:
    """Back up the databases, the configuration and the images of a site.

    A run that dies leaves nothing that counts as a backup; the next one removes its remains and goes on with
    the images where it stopped. When OSS or a node is away, the run waits and tries again by itself.

    Args:
        site: Name of the saved site.
        images: Copy images too. Without them the backup restores only where the NAS still lives.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("nightly_backup", site, dry_run)
    try:
        manifest, result = _run(run, images)
    except Exception as error:
        if tried(error):
            announce(run.site.name, "harbor-ha.backup.failed", error=str(error))
        raise
    if manifest is not None:
        announce(run.site.name, "harbor-ha.backup.completed", backup=manifest.backup_id)
    return result


def _run(run: Protocol, images: bool) -> tuple[Manifest | None, dict[str, Any]]:
    store = require_backup_settings(run.site)
    candidates = candidates_of(run.site)
    chosen = choose_dump_node(candidates)
    decided = [f"dump from {chosen.node}: {chosen.reason}"]
    if run.dry_run:
        _announce_steps(run, chosen, images)
        return None, publish_report(
            run, f"Would back up {run.site.name} from {chosen.node}.", {"Decided": decided}
        )
    trust = trust_of(run.site)
    if images:
        run.on(steps.image_storage, harbor_node(run.site, chosen.node))
    with held(store, LOCK, f"nightly backup of {run.site.name}") as lock, _begun(store) as parts:
        previous = _previous(store)
        parts.dumps_size = previous.dumps_size if previous else 0
        _databases(run, parts, chosen)
        _configuration(run, parts, chosen)
        if images:
            _images(run, parts, chosen)
        if uses_repository(run.site):
            _look_for_gap(run, store, parts, only_primary(candidates).system_identifier)
        parts.warnings += [f"a restore leaves out, in {line}" for line in parts.left_out]
        parts.warnings += older_servers(candidates)
        if not trust.keys:
            parts.warnings.append(
                "the backup is not signed: no restore believes it without being told to; `harbor-ha apply` makes a key"
            )
        manifest = _manifest(run, parts, str(previous.backup) if previous else None)
        # A run that was silent for too long must not publish what another run's clean-up took the parts of.
        lock.renew()
        catalogue.publish(store, manifest, trust)
    listed = catalogue_of(store, run.site)
    publish_catalogue(run.site, listed)
    sections = {
        "Decided": decided,
        "Warnings": list(manifest.warnings) or ["none"],
        "Bucket": bucket_lines(store) or ["nothing to say"],
        "Backups": [each.line for each in listed[-10:]],
    }
    return manifest, publish_report(run, _headline(manifest), sections)


def _look_for_gap(run: Protocol, store: ObjectStore, parts: Parts, system_identifier: str) -> None:
    """Warn where the WAL in the bucket does not lead to the present; nobody else looks between base backups."""

    def look() -> str:
        try:
            return gap(reach_of(store, stanza_of(run.site)), system_identifier, datetime.now(UTC))
        except HarborHaError as error:
            # Of the WAL; a backup that is whole is not thrown away for it.
            return f"the WAL in the bucket could not be looked at: {error.what}"

    found = run.watch("Look for gaps in the WAL", look, lambda text: text or "none")
    if found:
        parts.warnings.append(found)
        announce(run.site.name, "harbor-ha.wal.gap", reason=found)


@contextmanager
def _begun(store: ObjectStore) -> Iterator[Parts]:
    """A new backup with a private directory for its lists; uploads of killed runs are aborted first."""
    # We have the lock, so whatever is still being uploaded belongs to a dead run.
    # Those of pgBackRest, which may be in the middle of a base backup, are not under these prefixes.
    for prefix in (BACKUPS, BLOBS):
        store.abort_stale_uploads(prefix, older_than_s=0, now=datetime.now(UTC) + timedelta(minutes=1))
    with tempfile.TemporaryDirectory(prefix="harbor-ha-backup-") as work:
        yield Parts(new_backup_id(datetime.now(UTC)), work)


def _databases(run: Protocol, parts: Parts, chosen: DumpNode) -> None:
    node, reason = chosen.node, chosen.reason
    plain = {"backup": str(parts.backup), "work": parts.work, "expected": parts.dumps_size}
    try:
        dumped = run.on(steps.dump, node, reason=reason, **plain)
    except RemoteCommandFailed as error:
        if chosen.fallback is None or not is_recovery_conflict(error):
            raise
        parts.warnings.append(f"{node} cancelled the dump for its replay; it was made on {chosen.fallback}")
        dumped = run.on(steps.dump, chosen.fallback, reason=parts.warnings[-1], **plain)
    parts.source = part_from_plain(Source, dumped.data["source"])
    parts.databases = tuple(part_from_plain(Database, plain) for plain in dumped.data["databases"])
    for artifact in dumped.data["artifacts"]:
        parts.add(artifact)
    parts.left_out = list(dumped.data["left_out"])
    parts.dumps_size = sum(one.size for one in parts.artifacts.values() if one.role == "database")


def _configuration(run: Protocol, parts: Parts, chosen: DumpNode) -> None:
    saved = run.on(steps.configuration, harbor_node(run.site, chosen.node), backup=str(parts.backup))
    parts.add(saved.data["artifact"])
    parts.secretkey_sha256 = saved.data["secretkey_sha256"]


def _images(run: Protocol, parts: Parts, chosen: DumpNode) -> None:
    """Links, then blobs, then closure. A garbage collection in between may cost a second round."""
    node, backup = harbor_node(run.site, chosen.node), str(parts.backup)
    before = run.on(steps.await_no_collection, node=node).data["gc"]
    again: list[str] = []
    for round_number in range(1, _ROUNDS + 1):
        saved = run.on(steps.links, node, backup=backup)
        copied = run.on(steps.copy_images, node, work=parts.work, again=again)
        closed = run.on(steps.closure, node, backup=backup, work=parts.work, damaged=copied.data["corrupt"])
        after = run.on(steps.await_no_collection, node=node).data["gc"]
        collected = after is not None and before is not None and after != before
        lost = closed.data["missing_at_source_count"]
        retry = not closed.data["ok"] and not copied.data["left"]
        if round_number == _ROUNDS or not (retry or (collected and lost)):
            break
        if collected and lost:
            # What was deleted after the dump is no longer referred to by a dump that is made now.
            _databases(run, parts, chosen)
        before, again = after, list(closed.data["wrong"])
    _require_images(run.site, closed)
    _add_images(parts, saved, copied, closed)


def _require_images(site: HarborSite, closed: Outcome) -> None:
    """Refuse to call it a backup when more than the stated share of the images is not there to be backed up."""
    missing, data = closed.data["missing_at_source_count"], closed.data
    all_of_them = data["present"] + data["missing_in_bucket_count"] + data["wrong_count"] + missing
    if missing * 100 > all_of_them * site.backup.missing_percent:
        raise ImagesElsewhere(
            f"{missing:,} of {all_of_them:,} blobs are missing at the source, more than "
            f"{site.backup.missing_percent} %: {', '.join(data['missing_at_source'][:3])} among them.",
            where=site.nas.registry,
            meaning="This run is no backup; the earlier ones are as they were.",
            remedy="Is the NAS mounted, and is it where this Harbor keeps its images (storage_service in harbor.yml)? "
            "If the images are lost, delete them in Harbor, or raise backup.missing_percent.",
        )


def _add_images(parts: Parts, saved: Outcome, copied: Outcome, closed: Outcome) -> None:
    parts.add(saved.data["artifact"])
    parts.add(closed.data["artifact"])
    parts.links = part_from_plain(Links, saved.data["links"])
    data = closed.data
    parts.blobs = Blobs(
        referenced=data["present"] + data["missing_in_bucket_count"] + data["missing_at_source_count"],
        referenced_bytes=data["present_bytes"],
        uploaded=copied.data["copied"],
        uploaded_bytes=copied.data["copied_bytes"],
        closure_ok=data["ok"],
        pending=data["missing_in_bucket_count"],
        missing_at_source=tuple(data["missing_at_source"]),
        missing_at_source_count=data["missing_at_source_count"],
    )
    if data["wrong_count"] or (data["missing_in_bucket_count"] and not copied.data["left"]):
        raise NotClosed(
            f"{data['wrong_count']} blobs are wrong in the bucket and {data['missing_in_bucket_count']} are not "
            f"in it, {', '.join((data['wrong'] or data['missing_in_bucket'])[:3])} among them.",
            meaning="This run is no backup; the earlier ones are as they were.",
            remedy="Look at `unreadable` in the report of `Copy images`, then run it again.",
        )
    for count, text in (
        (data["missing_at_source_count"], "blobs are missing at the source, and were before this backup"),
        (
            data["other_size"],
            "blobs have another size in the database than in truth; their digests are right",
        ),
        (data["missing_in_bucket_count"], "blobs follow the next night: the time budget was used up"),
        (saved.data["damaged_count"], "link files are damaged at the source"),
        (len(copied.data["corrupt"]), "blobs at the source are not what their name says"),
    ):
        if count:
            parts.warnings.append(f"{count} {text}")


def _manifest(run: Protocol, parts: Parts, previous: str | None) -> Manifest:
    assert parts.source is not None
    harbor = run.site.harbor
    begun = time.time() - run.total()
    return Manifest(
        backup_id=str(parts.backup),
        site=run.site.name,
        started_at=parts.backup.started.isoformat(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tool=_tool(),
        source=parts.source,
        harbor=Harbor(harbor.version, harbor.hostname, parts.secretkey_sha256, tuple(harbor.components)),
        databases=parts.databases,
        artifacts=tuple(parts.artifacts.values()),
        blobs=parts.blobs,
        links=parts.links,
        stages=tuple(
            Stage(
                record.title,
                datetime.fromtimestamp(begun + record.begin_s, UTC).isoformat(timespec="seconds"),
                round(record.seconds, 3),
            )
            for record in run.records
        ),
        warnings=tuple(parts.warnings),
        previous=previous,
    )


def _tool() -> str:
    try:
        return f"harbor-ha {version('harbor-ha')}"
    except PackageNotFoundError:
        # Run from a source tree; no reason to lose a backup at its last step.
        return "harbor-ha"


def _previous(store: ObjectStore) -> catalogue.Entry | None:
    complete = [entry for entry in catalogue.list_backups(store) if entry.complete]
    return complete[-1] if complete else None


def harbor_node(site: HarborSite, preferred: str) -> str:
    """The node whose configuration and NAS are read: the preferred one if it runs Harbor."""
    running = [node.name for node in site.nodes if node.runs_harbor]
    return preferred if preferred in running or not running else running[0]


def _announce_steps(run: Protocol, chosen: DumpNode, images: bool) -> None:
    node = harbor_node(run.site, chosen.node)
    if images:
        run.on(steps.image_storage, node)
    run.on(steps.dump, chosen.node)
    run.on(steps.configuration, node)
    for step in (steps.links, steps.copy_images, steps.closure) if images else ():
        run.on(step, node)


def _headline(manifest: Manifest) -> str:
    size = sum(artifact.size for artifact in manifest.artifacts)
    text = f"Backup {manifest.backup_id} is complete: {size:,} bytes"
    if manifest.blobs is None:
        return f"{text}, without images."
    if not manifest.has_images:
        return f"{text}; {manifest.blobs.pending:,} blobs follow the next night."
    blobs = manifest.blobs
    if lost := blobs.missing_at_source_count:
        there = f"{blobs.referenced - lost:,} of {blobs.referenced:,} blobs"
        return f"{text}, and {there}; {lost:,} are missing at the source; {blobs.uploaded:,} were new."
    return f"{text}, and all {blobs.referenced:,} blobs; {blobs.uploaded:,} were new."
