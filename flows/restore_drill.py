"""Prove that the newest backup can be restored, where that harms nobody."""

from typing import Any

from prefect import flow

from blocks import HarborSite
from flows.machinery import backup_steps as steps
from flows.machinery.backup_report import announce, catalogue_lines, publish_catalogue
from flows.machinery.dump_source import candidates_of
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish as publish_report
from flows.rules.dump_node import choose_dump_node
from tasks.backup.settings import identities, require_backup_settings, store_of


@flow(name="restore_drill", flow_run_name="restore-drill of {site}")
@ends_named
def restore_drill(
    site: str, backup: str = "latest", node: str = "", identity_file: str = "", dry_run: bool = False
) -> dict[str, Any]:
    """Restore a backup into a scratch PostgreSQL, compare everything, hash a sample of blobs, throw it away.

    The result is written next to the backup, and retention never removes the last one that passed.

    Args:
        site: Name of the saved site.
        backup: `latest`, or the id of a backup.
        node: Where the scratch server runs, beside the live one at low priority; empty: on the standby.
        identity_file: Path of the age identity on the orchestrator; empty: the site's own for drills.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("restore_drill", site, dry_run)
    identities(run.site, identity_file or None)
    store = store_of(run.site) if dry_run else require_backup_settings(run.site)
    where = node or _quiet_node(run.site)
    decided = [f"drill of {backup} on {where}"]
    if run.dry_run:
        run.on(steps.drill, where)
        return publish_report(run, f"Would drill {backup} on {where}.", {"Decided": decided})
    try:
        outcome = run.on(steps.drill, where, backup=backup, identity_file=identity_file or None)
    except Exception as error:
        announce(site, "harbor-ha.drill.failed", error=str(error))
        raise
    announce(site, "harbor-ha.drill.passed", backup=outcome.data["backup"])
    lines = catalogue_lines(store, run.site)
    publish_catalogue(run.site, lines)
    headline = f"Backup {outcome.data['backup']} can be restored: {outcome.detail}."
    return publish_report(run, headline, {"Decided": decided, "Backups": lines[-10:]})


def _quiet_node(site: HarborSite) -> str:
    return choose_dump_node(candidates_of(site)).node
