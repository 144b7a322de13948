"""Remove backups past all generations, and, asked separately, blobs that no backup needs."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger

from flows.machinery.backup_report import facts_of, generations_of
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish as publish_report
from flows.machinery.typed import require_typed
from flows.nightly_backup import LOCK
from flows.rules.retention import retain
from tasks.backup.format.catalogue import remove_backup
from tasks.backup.night.lock import held
from tasks.backup.night.prune import entries_named, prune_blobs
from tasks.backup.settings import store_of, trust_of
from tasks.errors import Refused

# Never shorter than a backup and its repetition take.
_LEAST_GRACE_DAYS = 2


@flow(name="prune", flow_run_name="prune of {site}")
@ends_named
def prune(
    site: str, confirm: bool = False, blobs: bool = False, grace_days: int = 14, confirm_site: str = ""
) -> dict[str, Any]:
    """Show which backups the site's policy no longer keeps, and remove them when confirmed.

    Args:
        site: Name of the saved site.
        confirm: Really remove. Without it nothing is changed and the report shows what would be.
        blobs: Also remove blobs that no remaining backup needs. Slow, and rarely worth it.
        grace_days: Blobs younger than this stay in any case.
        confirm_site: The site's name once more, typed; only when something is to be removed.
    """
    run = Protocol.begin("prune", site, dry_run=not confirm)
    if confirm:
        require_typed(site, confirm_site, "It removes backups for good.")
    if grace_days < _LEAST_GRACE_DAYS:
        raise Refused("The grace period is too short.", [f"grace_days must be at least {_LEAST_GRACE_DAYS}."])
    store, now, lines = store_of(run.site), datetime.now(UTC), []
    with held(store, LOCK, f"prune of {site}") if confirm else nullcontext() as lock:
        # Before each removal: a run that stood still for long may not remove what was decided then.
        still_ours = lock.renew if lock is not None else lambda: None
        facts = facts_of(store, trust_of(run.site))
        verdicts = retain([fact for _, fact in facts], generations_of(run.site), now)
        going = entries_named((entry for entry, _ in facts), (v.name for v in verdicts if not v.keep))
        for entry in going if confirm else ():
            still_ours()
            get_run_logger().info("Removing backup %s", entry.backup)
            remove_backup(store, entry)
        lines = [f"{'stays' if v.keep else 'goes'}: {v.name}: {v.reason}" for v in verdicts]
        freed = f"{len(going)} of {len(facts)} backups, {sum(entry.size for entry in going):,} bytes"
        if blobs:
            grace = timedelta(days=grace_days)
            count, size = prune_blobs(store, now, grace, confirm=confirm, still_ours=still_ours)
            freed += f"; {count:,} blobs, {size:,} bytes"
    headline = f"Removed {freed}." if confirm else f"Would remove {freed}. Run it with confirm to do so."
    return publish_report(run, headline, {"Backups": lines or ["none"]})
