"""Prove that the newest backup can be restored, where that harms nobody."""

from typing import Any

from prefect import flow

from blocks import HarborSite
from flows.machinery import backup_steps as steps
from flows.machinery.backup_report import announce, bucket_lines, catalogue_of, publish_catalogue
from flows.machinery.dump_source import candidates_of
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish as publish_report
from flows.rules.dump_node import choose_drill_node
from tasks.backup.night.lock import held
from tasks.backup.settings import identities_or_none, require_backup_settings, store_of

LOCK = "restore-drill"


@flow(name="restore_drill", flow_run_name="restore-drill of {site}")
@ends_named
def restore_drill(
    site: str,
    backup: str = "latest",
    node: str = "",
    identity_file: str = "",
    accept_unsigned: bool = False,
    sign: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Restore a backup into a scratch PostgreSQL, compare everything, hash a sample of blobs, throw it away.

    The result is written next to the backup, and retention never removes the last one that passed. Without an identity
    nothing is decrypted: existence, sizes, checksums and closure are proven, and the report says what is not.

    Args:
        site: Name of the saved site.
        backup: `latest`, or the id of a backup.
        node: The node where the scratch server runs, beside the live one at low priority; empty: on the standby,
            unless the primary's PostgreSQL is newer.
        identity_file: Path of the age identity on the orchestrator: the runner's user (harbor-ha) must own it, with
            mode 0600, outside of /root, /home and /tmp. Empty: the site's own for drills, if it has one.
        accept_unsigned: Drill a backup that the site's key did not sign, for a review; its SQL is run in the scratch
            server, by a role that owns nothing else.
        sign: Sign the backup when it passed: from then on it is believed like the orchestrator's own.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("restore_drill", site, dry_run)
    identities_or_none(run.site, identity_file or None)
    store = store_of(run.site) if dry_run else require_backup_settings(run.site)
    where = node or _quiet_node(run.site)
    decided = [f"drill of {backup} on {where}"]
    if run.dry_run:
        run.on(steps.drill, where)
        return publish_report(run, f"Would drill {backup} on {where}.", {"Decided": decided})
    given: dict[str, Any] = {
        "backup": backup,
        "identity_file": identity_file or None,
        "accept_unsigned": accept_unsigned,
        "sign_it": sign,
    }
    # Two at once would remove each other's scratch server, and blame the backup.
    with held(store, LOCK, f"restore drill of {site}"):
        try:
            outcome = run.on(steps.drill, where, **given)
        except Exception as error:
            announce(site, "harbor-ha.drill.failed", error=str(error))
            raise
    found = outcome.data
    announce(
        site, "harbor-ha.drill.passed", backup=found["backup"], not_proven="; ".join(found["not_proven"])
    )
    listed = catalogue_of(store, run.site)
    publish_catalogue(run.site, listed)
    sections = {
        "Decided": decided,
        "Not proven": found["not_proven"] or ["nothing"],
        "Left out by a restore": found["left_out"] or ["nothing"],
        "Bucket": bucket_lines(store) or ["nothing to say"],
        "Backups": [each.line for each in listed[-10:]],
    }
    return publish_report(run, _headline(found, outcome.detail), sections)


def _headline(found: dict[str, Any], detail: str) -> str:
    if found["restored_tables"]:
        return f"Backup {found['backup']} can be restored: {detail}."
    return f"Backup {found['backup']} is all there, and was not opened: {detail}."


def _quiet_node(site: HarborSite) -> str:
    return choose_drill_node(candidates_of(site))
