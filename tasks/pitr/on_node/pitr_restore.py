"""Runs on a node: a base backup out of the bucket, beside the empty cluster, swapped in when it is whole."""

import json
import os
import sys
import time
from typing import Any, Dict

from tasks.on_node.files import move, new_directory, remove_tree
from tasks.on_node.pg_disk import control, ids_of, remove_durably, servers_in, text_of, write_durably
from tasks.on_node.pg_former import set_former_aside
from tasks.on_node.pg_run import Failed, as_postgres, run, systemctl
from tasks.on_node.shared_copy import drop_shared, read_shared
from tasks.postgres.on_node.pg_archive import set_archive_aside


def marker(p: Dict[str, Any]) -> Dict[str, Any]:
    """Read what is known of this restore."""
    found: Dict[str, Any] = json.loads(text_of(p["marker"]) or "{}")
    return found


def restore(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return whether anything was done, or `problem` with what pgBackRest said."""
    wanted = [p["base"], p["to_time"]]
    if marker(p).get("restored") == wanted and is_in_place(p):
        return {"changed": False}
    if servers_in(p["data"]):
        # An earlier recovery of ours, to another time; it never became a primary.
        systemctl("stop", p["unit"])
    new = p["data"] + ".restoring"
    # Killed in the middle, pgBackRest goes on where its list of files is; without the list nothing counts.
    more = ["--delta"] if os.path.exists(new + "/backup.manifest") else []
    if not more:
        remove_tree(new)
        new_directory(new, 0o700, ids_of("postgres"))
    try:
        run(as_postgres(p["restore"] + ["--pg1-path=" + new] + more + ["restore"]), p["limit_s"])
    except Failed as error:
        return {"problem": str(error)}
    found = control(dict(p, data=new)).get("Database system identifier")
    if found != p["sysid"]:
        return {
            "problem": "ERROR: [000]: the base backup is of the database %s, not %s" % (found, p["sysid"])
        }
    # Killed after the renames, what lies there is known by this as what was put there.
    before = marker(p)
    ours = bool(before.get("placing") or before.get("restored")) and is_in_place(p)
    write_durably(p["marker"], json.dumps(dict(before, placing=wanted)))
    swap(p, new, ours)
    write_durably(p["marker"], json.dumps(dict(marker(p), restored=wanted)))
    return {"changed": True}


def is_in_place(p: Dict[str, Any]) -> bool:
    """Tell whether the directory holds what was restored: moved away, a new cluster of the same name is empty."""
    found: Dict[str, str] = control(p)
    return bool(found.get("Database system identifier") == p["sysid"])


def holds_more_than_initdb_made(data: str) -> bool:
    """Tell whether there is a database beside the three that every cluster has."""
    try:
        return len([name for name in os.listdir(data + "/base") if name.isdigit()]) > 3
    except OSError:
        return False


def swap(p: Dict[str, Any], new: str, ours: bool = False) -> None:
    """Put the copy in the place of a cluster that never held anything; one that does is kept aside.

    Args:
        ours: what is there is a base backup that was put there, for another time.
    """
    intent = p["state_dir"] + "/creating.json"
    unused, kept = p["data"] + ".unused", False
    remove_tree(unused)
    # Killed in between, the next run finds a creation that was not finished, sets it aside and begins anew.
    write_durably(intent, json.dumps({"data": p["data"]}))
    remove_durably(p["record"])
    if os.path.exists(p["data"]):
        if not ours and holds_more_than_initdb_made(p["data"]):
            kept = True
            unused = "%s.%d" % (unused, time.time())
        move(p["data"], unused)
    move(new, p["data"])
    set_archive_aside(p["archive"], p["sysid"])
    set_former_aside(p)
    # The NAS goes on to tell every other node of that primary. Only this one, which goes back to a time before, may
    # start in spite of it; a later acceptance counts here as well.
    write_durably(p["state_dir"] + "/restored.json", json.dumps({"over": read_shared(p, "accepted")}) + "\n")
    if p.get("nas_path"):
        drop_shared(p, "restored")
        # A promotion that was under way is one of the time that it goes back behind.
        drop_shared(p, "promotion")
    write_durably(p["record"], p["record_text"])
    remove_durably(intent)
    if not kept:
        remove_tree(unused)


if __name__ == "__main__":
    json.dump(restore(json.load(sys.stdin)), sys.stdout)
