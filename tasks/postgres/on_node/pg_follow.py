"""Runs on a node that becomes a standby again: settings, signal, autostart, start."""

import json
import os
import re
import sys
from typing import Any, Dict, List

from tasks.on_node.authority import begun
from tasks.on_node.pg_disk import (
    remove_durably,
    servers_in,
    set_standby_signal,
    set_start_conf,
    text_to_change,
    write_durably,
)
from tasks.on_node.pg_log import log_size
from tasks.on_node.pg_run import Failed, psql, start, systemctl, unmask
from tasks.on_node.pg_sync import set_sync

# What must come from conf.d on each node: in postgresql.auto.conf it wins, and a rewind has just copied the
# primary's. Everything else that an operator has set with ALTER SYSTEM stays.
_OF_ONE_NODE = re.compile(
    r"\s*(primary_conninfo|primary_slot_name|restore_command|archive_cleanup_command|recovery_\w+"
    r"|synchronous_standby_names|promote_trigger_file)\s*=",
    re.I,
)

# With what the server says so of itself, this data will never follow that primary. It does not end then: it asks
# for the same segment once a second, and 300 s were waited for it, at each rejoin again.
CANNOT_FOLLOW = re.compile(
    r"requested WAL segment \S+ has already been removed"
    r"|could not locate (?:a valid|required) checkpoint record"
    r"|requested timeline \d+ is not a child of this server's history"
    r"|new timeline \d+ forked off current database system timeline \d+ before current recovery point"
    r"|highest timeline \d+ of the primary is behind recovery timeline \d+"
)


def follow(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `standby` when the server answers in recovery, or `problem`; `log_from`: where its log began to tell."""
    log_from = log_size(p["log"])
    return dict(started_as_standby(p), log_from=log_from)


def started_as_standby(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `standby`, or `problem` and whether it is one that only a copy cures (`cannot_follow`)."""
    running = bool(servers_in(p["data"]))
    if running:
        try:
            recovering = psql(p, "SELECT pg_is_in_recovery()", 5)
        except Failed as error:
            return {"problem": "a server runs and does not answer: %s" % error}
        if recovering != "t":
            return {"problem": "it runs as a primary"}
    # The signal first: whatever happens from here on, this directory starts as a standby.
    changed = set_standby_signal(p)
    changed = clean_auto_conf(p) or changed
    changed = set_sync(p, "") or changed
    changed = autostart(p) or changed
    if not running:
        for name in ("rewind", "self_fence"):
            remove_durably("%s/%s.json" % (p["state_dir"], name))
        problem = start(p, p["limit_s"], CANNOT_FOLLOW)
        if problem is not None:
            return {"problem": problem, "cannot_follow": bool(CANNOT_FOLLOW.search(problem))}
    return {"state": "standby", "changed": changed or not running}


def clean_auto_conf(p: Dict[str, Any]) -> bool:
    """Take the settings of one node out of postgresql.auto.conf."""
    path = p["data"] + "/postgresql.auto.conf"
    lines = text_to_change(path).splitlines()
    kept: List[str] = [line for line in lines if not _OF_ONE_NODE.match(line)]
    if kept == lines and os.path.exists(path):
        return False
    write_durably(path, "".join(line + "\n" for line in kept), 0o600, "postgres")
    return True


def autostart(p: Dict[str, Any]) -> bool:
    """Let the boot start it again, as the standby that it is now."""
    changed = set_start_conf(p, "auto")
    changed = unmask(p) or changed
    if changed:
        systemctl("daemon-reload")
    return changed


if __name__ == "__main__":
    json.dump(begun(json.load(sys.stdin), follow), sys.stdout)
