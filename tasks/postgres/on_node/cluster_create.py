"""Runs on a node: create the site's cluster once; recognise it ever after.

The intent is on disk before initdb starts, so that a run that was killed in its middle is told from a
foreign database, and the half-made directory from one that holds data.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any, Dict, Optional, Tuple

from tasks.on_node.files import make_directories, move, write_file
from tasks.on_node.pg_cluster import creation_open, data_elsewhere
from tasks.on_node.pg_control import control_text
from tasks.on_node.pg_former import set_former_aside
from tasks.on_node.pg_processes import proc_file, server_processes
from tasks.on_node.shared_copy import drop_shared
from tasks.postgres.on_node.pg_archive import set_archive_aside


def system_identifier(p: Dict[str, Any]) -> Optional[str]:
    """Return the identifier in the data directory; None when there is no readable database."""
    if not os.path.exists(p["data"] + "/global/pg_control"):
        return None
    text = control_text(p["bin"], p["data"])
    found = [line.split(":", 1)[1].strip() for line in text.splitlines() if "system identifier" in line]
    return found[0] if found else None


def write(path: str, value: Any) -> None:
    """Write JSON so that a crash leaves the old file or the new one."""
    write_file(path, json.dumps(value).encode(), 0o600)


def text_of_file(path: str) -> Optional[str]:
    """Return what a file of ours holds; None when there is none."""
    try:
        with open(path, errors="replace") as source:
            return source.read()
    except FileNotFoundError:
        return None


def server_of_cluster(conf: str, data: str) -> Optional[int]:
    """Find a server that was started with this configuration, or for this directory, wherever its data is now."""
    mine = ("%s/postgresql.conf" % conf, data)
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        words = (proc_file(pid, "cmdline") or "").split("\0")
        named = [word.partition("config_file=")[2] or word for word in words]
        if any("postgres" in word for word in words[:4]) and set(mine) & set(named):
            return pid
    own, hidden = server_processes(data)
    return next(iter(own + hidden), None)


def free_name(stem: str) -> str:
    """Give a name with the time in it that nothing has."""
    now = int(time.time())
    while os.path.lexists("%s.%d" % (stem, now)):
        now += 1
    return "%s.%d" % (stem, now)


def set_aside(p: Dict[str, Any]) -> None:
    """Set aside what lies in the way of pg_createcluster: a configuration without its data, or what was half made.

    pg_dropcluster would remove both. Below /etc/postgresql it would be a cluster still, and start with the machine.
    """
    if os.path.isdir(p["conf"]):
        place = os.path.dirname(os.path.dirname(p["conf"])) + ".aside"
        make_directories(place, 0o700)
        move(p["conf"], free_name("%s/%s-%s" % (place, p["major"], p["cluster"])))
    if os.path.exists(p["data"]) and os.listdir(p["data"]):
        move(p["data"], free_name(p["data"] + ".unfinished"))


def create(p: Dict[str, Any]) -> Tuple[str, Optional[str]]:
    """Return the state (`present`, `foreign`, `created`) and the system identifier.

    `taken`: the cluster's name belongs to a database elsewhere, whose directory comes with it. `runs`: a server runs
    from what would have to be set aside, whose process comes with it.
    """
    intent = p["state_dir"] + "/creating.json"
    make_directories(p["state_dir"], 0o700)
    here = system_identifier(p)
    recorded = json.loads(text_of_file(p["record"]) or "{}").get("system_identifier")
    begun = creation_open(text_of_file(intent), p["data"], recorded, here)
    if here is not None and recorded == here:
        # The record is written last: the cluster is whole, whatever was begun.
        if os.path.exists(intent):
            os.unlink(intent)
        return "present", here
    # An intent of ours says nothing of a cluster that somebody else has under this name; it would be set aside.
    taken = data_elsewhere(p["conf"], p["data"])
    if taken is not None:
        return "taken", taken
    if not begun and os.path.exists(p["data"]) and os.listdir(p["data"]):
        return "foreign", here or "in an unreadable state"
    running = server_of_cluster(p["conf"], p["data"])
    if running is not None:
        return "runs", str(running)
    return make(p, intent)


def make(p: Dict[str, Any], intent: str) -> Tuple[str, Optional[str]]:
    """Make the cluster; what is in the way is set aside, and was looked at."""
    write(intent, {"data": p["data"]})
    # Of a database that is not here any more: beside the new one it would call that somebody else's.
    if os.path.exists(p["record"]):
        move(p["record"], p["record"] + ".aside")
    set_aside(p)
    make_directories(os.path.dirname(p["data"]), 0o755)
    argv = ["pg_createcluster", "-d", p["data"], "-p", p["port"], "-e", "UTF8", "--locale", "C.UTF-8"]
    argv += ["--start-conf", "auto", p["major"], p["cluster"], "--", "--data-checksums"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    if done.returncode != 0:
        sys.exit(done.stdout.decode("utf-8", "replace"))
    sysid = system_identifier(p)
    # Before the record: killed in between, the next run makes the cluster anew and comes here again.
    set_archive_aside(p["archive"], sysid)
    set_former_aside(p)
    # A restore's word against every other database would keep this one from starting.
    if p.get("nas_path"):
        drop_shared(p, "restored")
    write(p["record"], {"site": p["site"], "system_identifier": sysid})
    os.unlink(intent)
    return "created", sysid


if __name__ == "__main__":
    state, sysid = create(json.load(sys.stdin))
    print(json.dumps({"state": state, "sysid": sysid}))
