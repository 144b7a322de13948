"""Runs on a diverged former primary: keep the evidence, recover, rewind; never a second time.

pg_rewind on a rewound directory that was not started yet ends its recovery with a checkpoint of its own, finds
nothing to rewind, succeeds, and leaves a standby that never replays again.
"""

import fcntl
import json
import os
import re
import shutil
import sys
from typing import Any, Dict, List

from tasks.on_node.authority import begun, still_mine
from tasks.on_node.files import copy_file, lock_file, make_directories, move, remove_tree
from tasks.on_node.pg_disk import (
    control,
    remove_durably,
    servers_in,
    set_standby_signal,
    text_of,
    unknown_servers,
    write_durably,
)
from tasks.on_node.pg_run import Failed, as_postgres, run
from tasks.postgres.on_node.pg_archive import archive_has_line, only_archived
from tasks.postgres.on_node.pg_wal import (
    lsn_of,
    own_timeline,
    segment_size,
    segments_from,
    switchpoint,
)

_CRASHED = ("in production", "shutting down", "in crash recovery", "starting up")


def rewind(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `rewound` or `already`, or a `problem` and whether the directory is `half` a copy."""
    data = p["data"]
    if servers_in(data):
        return {"problem": "a server runs on it", "half": False}
    if unknown_servers(data):
        return {"problem": unknown_servers(data), "half": False}
    facts = control(p)
    state = facts.get("Database cluster state", "")
    label = text_of(data + "/backup_label") or ""
    noted = json.loads(text_of(note_path(p)) or '{"state": "none"}')
    if re.search(r"^BACKUP METHOD:\s*pg_rewind", label, re.M) and state == "in archive recovery":
        set_standby_signal(p)
        return {"state": "already", "evidence": noted.get("evidence")}
    if label or noted["state"] == "begun":
        return {"problem": "a rewind or copy was begun and not ended", "half": True}
    timeline = own_timeline(p)
    fork = switchpoint(p, timeline)
    if fork is None:
        return {"problem": "timeline %d is no ancestor of the primary's" % timeline, "half": False}
    try:
        evidence = keep_evidence(p, timeline, fork)
        if state in _CRASHED:
            recover(p)
        why = still_mine(p)
        if why:
            return {"outdated": why}
        write_durably(note_path(p), json.dumps(dict(note(p), state="begun", evidence=evidence)) + "\n")
        said = run_pg_rewind(p, archive_has_line(p, timeline))
    except (Failed, OSError) as error:
        begun = json.loads(text_of(note_path(p)) or "{}").get("state") == "begun"
        return {"problem": str(error), "half": begun}
    # It exits with 0 when it sees no divergence, also where there is one: a source without a checkpoint.
    if "no rewind required" in said:
        remove_durably(note_path(p))
        return {"problem": "pg_rewind saw no divergence although there is one", "half": False}
    set_standby_signal(p)
    run(["sync", "-f", data], 600)
    write_durably(note_path(p), json.dumps(dict(note(p), state="done", evidence=evidence)) + "\n")
    return {"state": "rewound", "evidence": evidence, "timeline": timeline, "switchpoint": fork}


def note_path(p: Dict[str, Any]) -> str:
    """Return the file that says that a rewind was begun here."""
    return str(p["state_dir"]) + "/rewind.json"


def note(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return what the note says besides the state."""
    return {"operation": p["operation"]}


def keep_evidence(p: Dict[str, Any], timeline: int, fork: str) -> str:
    """Copy the WAL that only this node has, and the control file; real copies, pg_rewind writes in place."""
    wal, target = p["data"] + "/pg_wal", "%s/diverged/%s" % (p["state_dir"], p["operation"])
    names = segments_from(wal, timeline, lsn_of(fork), segment_size(p))
    names += [name for name in os.listdir(wal) if name.endswith(".history")]
    paths = [wal + "/" + name for name in names]
    paths += [p["archive"] + "/" + name for name in only_archived(p, timeline, lsn_of(fork))]
    needed = sum(map(os.path.getsize, paths))
    if os.path.isdir(target):
        return target
    partial = target + ".partial"
    remove_tree(partial)
    make_directories(partial, 0o700)
    free = shutil.disk_usage(partial).free
    if free < needed + (256 << 20):
        raise Failed("%s has %d MB free; the diverged WAL needs %d MB" % (partial, free >> 20, needed >> 20))
    for path in paths:
        copy_file(path, partial)
    copy_file(p["data"] + "/global/pg_control", partial)
    run(["sync", "-f", partial], 600)
    move(partial, target)
    return target


def recover(p: Dict[str, Any]) -> None:
    """Bring a crashed primary to a clean end without letting anybody in."""
    # A standby cannot be recovered by a single-user server.
    remove_durably(p["data"] + "/standby.signal")
    try:
        run(as_postgres(recovery_argv(p)), p["recovery_s"])
    finally:
        set_standby_signal(p)


def recovery_argv(p: Dict[str, Any]) -> List[str]:
    """Build the command of the single-user server."""
    argv = [p["bin"] + "/postgres", "--single", "-F", "-D", p["data"]]
    argv += ["-c", "config_file=%s/postgresql.conf" % p["conf"], "-c", "archive_mode=off"]
    if p["major"] < 15:
        # Debian's is in /var/run, where only pg_ctlcluster makes it: after a power cut it is not there, and the
        # server ends with FATAL. The setting has gone in 15.
        argv += ["-c", "stats_temp_directory=pg_stat_tmp"]
    return argv + ["template1"]


def run_pg_rewind(p: Dict[str, Any], archived: bool) -> str:
    """Run it once, against the source's address; the password comes from the pass file.

    Args:
        archived: the node's own archive may be read for WAL that its server has dropped. Before 15 pg_rewind does
            not find Debian's configuration and cannot be told.
    """
    argv = [p["bin"] + "/pg_rewind", "-D", p["data"], "--source-server", p["source"], "--no-ensure-shutdown"]
    more = {"PGPASSFILE": p["passfile"], "PGOPTIONS": "-c statement_timeout=0", "PGCONNECT_TIMEOUT": "5"}
    config, with_archive = p["conf"] + "/postgresql.conf", p["conf"] + "/harbor-ha-rewind.conf"
    if archived and p["major"] >= 15:
        # Not in conf.d: a server with this restore_command could take up a timeline of this node that was left.
        text = "include '%s'\nrestore_command = 'cp \"%s/%%f\" \"%%p\"'\n" % (config, p["archive"])
        write_durably(with_archive, text, 0o644, "postgres")
        config = with_archive
        argv.append("--restore-target-wal")
    if p["major"] >= 15:
        argv += ["--config-file", config]
    try:
        return run(["sh", "-c", 'exec "$@" 2>&1', "sh"] + as_postgres(argv), p["rewind_s"], "", more)
    finally:
        remove_durably(with_archive)


def locked(p: Dict[str, Any]) -> Dict[str, Any]:
    """Keep a second rewind out: an orchestrator that was cut off may have left one running."""
    with lock_file(p["state_dir"] + "/.rewind.lock") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return {"problem": "another rewind is running on it", "half": False, "busy": True}
        return rewind(p)


if __name__ == "__main__":
    json.dump(begun(json.load(sys.stdin), locked), sys.stdout)
