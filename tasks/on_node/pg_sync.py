"""Part of node programs: whom a commit waits for.

Kept in a file of conf.d, not by ALTER SYSTEM: postgresql.auto.conf beats conf.d and travels with every base
backup and rewind, so a new standby would come with its primary's setting. And a file and a signal need no
session: when all connections hang in a commit that waits for a lost standby, none is to be had.
"""

import os
import signal
from typing import Any, Dict

from tasks.on_node.pg_disk import postmaster_of, text_of, write_durably
from tasks.on_node.pg_run import psql

_HEAD = (
    "# Written by harbor-ha while it runs: whom commits wait for. Your own setting would be overwritten.\n"
)


def sync_names(p: Dict[str, Any]) -> str:
    """Return the synchronous_standby_names of our file; empty when commits wait for nobody."""
    for line in (text_of(sync_path(p)) or "").splitlines():
        if line.startswith("synchronous_standby_names"):
            return line.split("=", 1)[1].strip().strip("'")
    return ""


def sync_path(p: Dict[str, Any]) -> str:
    """Return the path of our file."""
    return str(p["conf"]) + "/conf.d/20-harbor-ha-sync.conf"


def set_sync(p: Dict[str, Any], names: str) -> bool:
    """Let commits wait for these standbys (or nobody); a running server reloads. Tell if it changed."""
    changed = False
    if "synchronous_standby_names" in (text_of(p["data"] + "/postgresql.auto.conf") or ""):
        # Somebody's ALTER SYSTEM; it would win over the file.
        psql(p, "ALTER SYSTEM RESET synchronous_standby_names")
        changed = True
    if not os.path.exists(sync_path(p)) or sync_names(p) != names:
        text = "%ssynchronous_standby_names = '%s'\n" % (_HEAD, names)
        write_durably(sync_path(p), text, 0o644, "postgres")
        changed = True
    postmaster = postmaster_of(p["data"])
    if changed and postmaster is not None:
        os.kill(postmaster, signal.SIGHUP)
    return changed
