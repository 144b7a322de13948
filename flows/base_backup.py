"""Make a base backup of the primary: with the WAL in the bucket, any later moment can be restored."""

from typing import Any

from prefect import flow

from flows.machinery.backup_report import announce
from flows.machinery.dump_source import candidates_of
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish as publish_report
from flows.rules.dump_node import only_primary
from tasks.backup.night.lock import held
from tasks.backup.settings import store_of
from tasks.pitr import steps as pitr
from tasks.pitr.settings import bucket_of

LOCK = "base-backup"


@flow(name="base_backup", flow_run_name="base-backup of {site}")
@ends_named
def base_backup(site: str, dry_run: bool = False) -> dict[str, Any]:
    """Make a base backup of the primary, from which the WAL in the bucket leads to any later point in time.

    Base backups past `backup.keep_base_backups` are removed, with the WAL that only they needed.

    Args:
        site: Name of the saved site.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("base_backup", site, dry_run)
    try:
        return _run(run)
    except Exception as error:
        announce(site, "harbor-ha.base-backup.failed", error=str(error))
        raise


def _run(run: Protocol) -> dict[str, Any]:
    bucket_of(run.site)
    seen = candidates_of(run.site)
    primary = only_primary(seen).node
    decided = [f"base backup of {primary}: it is the primary"]
    if run.dry_run:
        run.on(pitr.base_backup, primary)
        return publish_report(run, f"Would make a base backup of {primary}.", {"Decided": decided})
    with held(store_of(run.site), LOCK, f"base backup of {run.site.name}"):
        made = run.on(pitr.base_backup, primary)
    announce(run.site.name, "harbor-ha.base-backup.completed", backup=made.data["label"])
    sections = {"Decided": decided, "Times that can be restored": made.data["reach"]}
    return publish_report(run, f"Base backup {made.data['label']} of {primary} is complete.", sections)
