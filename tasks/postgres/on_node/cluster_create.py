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
from tasks.on_node.pg_cluster import data_elsewhere
from tasks.on_node.pg_control import control_text
from tasks.on_node.pg_former import set_former_aside
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


def set_aside(p: Dict[str, Any]) -> None:
    """Clear away what an interrupted initdb of ours left: it was never started and holds nothing."""
    quiet = subprocess.DEVNULL
    subprocess.run(["pg_dropcluster", p["major"], p["cluster"]], timeout=60, stdout=quiet, stderr=quiet)
    if os.path.exists(p["data"]) and os.listdir(p["data"]):
        move(p["data"], "%s.unfinished.%d" % (p["data"], time.time()))


def create(p: Dict[str, Any]) -> Tuple[str, Optional[str]]:
    """Return the state (`present`, `foreign`, `created`) and the system identifier.

    `taken`: the cluster's name belongs to a database elsewhere, whose directory comes with it.
    """
    intent = p["state_dir"] + "/creating.json"
    make_directories(p["state_dir"], 0o700)
    here = system_identifier(p)
    if os.path.exists(p["record"]):
        with open(p["record"], errors="replace") as source:
            if json.load(source)["system_identifier"] == here:
                return "present", here
    # An intent of ours says nothing of a cluster that somebody else has under this name; it would be dropped.
    taken = data_elsewhere(p["conf"], p["data"])
    if taken is not None:
        return "taken", taken
    if os.path.exists(intent):
        set_aside(p)
    elif os.path.exists(p["data"]) and os.listdir(p["data"]):
        return "foreign", here or "in an unreadable state"
    write(intent, {"data": p["data"]})
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
