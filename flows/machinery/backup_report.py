"""What an operator sees of backups: the catalogue as a table, and events for alerts."""

from dataclasses import dataclass
from datetime import UTC, datetime

from blocks import HarborSite
from flows.machinery.around import emit_event, hand_over, run_logger
from flows.machinery.report import folded, row
from flows.pictures.backups import Backup, backups_chart
from flows.pictures.svg import in_markdown
from flows.rules.retention import BackupFact, Generations, Verdict, retain
from tasks.backup.format.catalogue import Entry, list_backups, read_manifest
from tasks.backup.format.manifest import Manifest, ManifestUnreadable
from tasks.backup.format.signature import ANYONE, NotSigned, SignatureWrong, Trust
from tasks.backup.settings import trust_of
from tasks.storage.errors import CrcMismatch, StorageError
from tasks.storage.facts import advice, bucket_facts
from tasks.storage.store import ObjectStore


def facts_of(store: ObjectStore, trust: Trust) -> list[tuple[Entry, BackupFact]]:
    """Read the catalogue for the rules of retention; a damaged manifest counts as not complete."""
    return [(entry, _fact(entry, *_manifest_of(store, entry, trust))) for entry in list_backups(store)]


def _manifest_of(store: ObjectStore, entry: Entry, trust: Trust) -> tuple[Manifest | None, bool]:
    """The manifest of a complete backup, None when it is damaged or not complete; and whether it is signed."""
    if not entry.complete:
        return None, True
    try:
        if trust.keys:
            return read_manifest(store, entry.backup, trust), True
    except (NotSigned, SignatureWrong):
        pass
    except (ManifestUnreadable, CrcMismatch):
        return None, True
    try:
        # Without a key nothing can be told apart, and everything counts as it did before there were signatures.
        return read_manifest(store, entry.backup, ANYONE), not trust.keys
    except (ManifestUnreadable, CrcMismatch):
        return None, True


def _fact(entry: Entry, manifest: Manifest | None, signed: bool) -> BackupFact:
    return BackupFact(
        name=str(entry.backup),
        started=entry.backup.started,
        complete=manifest is not None,
        with_images=manifest is not None and manifest.has_images,
        held=entry.held,
        verified=any("-ok" in name for name in entry.verified),
        signed=signed,
        seconds=None if manifest is None else _seconds(manifest),
    )


def _seconds(manifest: Manifest) -> float | None:
    try:
        begun, ended = map(datetime.fromisoformat, (manifest.started_at, manifest.finished_at))
        return max(0.0, (ended - begun).total_seconds())
    except (ValueError, TypeError):
        return None


def generations_of(site: HarborSite) -> Generations:
    """The site's policy as the rules take it."""
    policy = site.backup
    return Generations(
        daily=policy.keep_daily,
        weekly=policy.keep_weekly,
        monthly=policy.keep_monthly,
        yearly=policy.keep_yearly,
        at_least=policy.keep_at_least,
        timezone=policy.timezone,
    )


@dataclass(frozen=True)
class Listed:
    """A backup in the catalogue, as a line and as it is drawn."""

    line: str
    drawn: Backup


def catalogue_of(store: ObjectStore, site: HarborSite) -> list[Listed]:
    """List the backups, oldest first: what each holds and why it is kept."""
    facts = facts_of(store, trust_of(site))
    verdicts = {
        v.name: v for v in retain([fact for _, fact in facts], generations_of(site), datetime.now(UTC))
    }
    return [_listed(entry, fact, verdicts[fact.name]) for entry, fact in facts]


def catalogue_lines(store: ObjectStore, site: HarborSite) -> list[str]:
    """One line for each backup, oldest first: what it holds and why it is kept."""
    return [listed.line for listed in catalogue_of(store, site)]


def _listed(entry: Entry, fact: BackupFact, verdict: Verdict) -> Listed:
    state = "complete" if fact.complete else "damaged" if entry.complete else "not complete"
    images = "with images" if fact.with_images else "without images"
    proven = ", restored in a drill" if fact.verified else ""
    proven += "" if fact.signed else ", not signed"
    fate = "stays" if verdict.keep else "may go"
    line = f"{fact.name}: {state}, {images}{proven}, {entry.size:,} bytes; {fate}: {verdict.reason}"
    drawn = f"{images}{proven}" if fact.complete else state
    return Listed(line, Backup(fact.name, fact.started, entry.size, fact.seconds, fact.complete, drawn))


def bucket_lines(store: ObjectStore) -> list[str]:
    """What the operator should know about the bucket; nothing of it ends a backup, nor does it when nobody answers."""
    try:
        return advice(bucket_facts(store))
    except StorageError as error:
        return [f"It could not be asked what it is like: {error.what}"]


def publish_catalogue(site: HarborSite, listed: list[Listed]) -> None:
    """Show the catalogue in the UI, as a chart with its lines under a fold; best effort."""
    title = f"Backups of {site.name}"
    try:
        # A fault of the picture is no reason to call a backup failed either.
        chart = backups_chart(title, [each.drawn for each in listed], datetime.now(UTC))
        text = "\n".join(
            [f"# {title}", "", in_markdown(chart, title), "", *folded("Table", catalogue_table(listed))]
        )
        hand_over(f"backups-{site.name}".lower(), title, text)
    except Exception as error:
        run_logger().warning("The catalogue could not be published: %s", error)


def catalogue_table(listed: list[Listed]) -> list[str]:
    """Give the catalogue as a table in Markdown, the newest first."""
    lines = ["| backup | holds | retention |", "|---|---|---|"]
    for each in reversed(listed):
        name, _, rest = each.line.partition(": ")
        holds, _, fate = rest.partition("; ")
        lines.append(row(name, holds, fate))
    return lines


def announce(site: str, event: str, **payload: str) -> None:
    """Emit an event about a site's backups; best effort.

    Args:
        site: its name, part of the resource `harbor-ha.site.<name>`.
        event: for example `harbor-ha.backup.completed`.
        payload: plain texts, no secrets.
    """
    try:
        emit_event(event, resource={"prefect.resource.id": f"harbor-ha.site.{site}"}, payload=dict(payload))
    except Exception as error:
        run_logger().warning("The event %s could not be sent: %s", event, error)
