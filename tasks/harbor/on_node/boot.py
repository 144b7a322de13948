"""Runs whenever the Docker engine starts on a Harbor node: starts the containers that the engine could not.

All of Harbor logs to harbor-log through a port of this machine, and the engine starts all containers at once:
whichever comes before that port listens fails, and the engine does not try it again. The same happens to those
that need a NAS which is mounted late. After a power cut or an upgrade of Docker half of Harbor stayed down.

Where the site was restored on another machine meanwhile, all of it is stopped instead: an old jobservice took the
jobs of the new Harbor out of their one Redis.

What somebody has stopped, a fence for example, has no error and stays stopped.

And when the engine itself dies (killed for its memory), the next one finds the containers running and takes their
network away: "Up", and reached by nobody, until somebody restarts them. Seen with Docker 20.10.
"""

import calendar
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional

from tasks.guard.on_node.guard_rules import Local, must_leave
from tasks.harbor.on_node.containers import (
    containers,
    core_runs,
    proxy_lost_core,
    reload_proxy,
    require_log,
    require_nas,
)
from tasks.harbor.on_node.next_core import CORE, require_no_next_core
from tasks.on_node.lib import must, poll
from tasks.on_node.pg_disk import control, text_of
from tasks.on_node.shared_copy import read_shared

LOG = "harbor-log"
# What a node with a database knows of it; the guard's.
NODE = "/etc/harbor-ha/node.json"
# Seconds. Core waits as long for its database before it gives up and is started again.
CORE_S = 60.0


def states(home: str) -> Dict[str, Dict[str, Any]]:
    """Read the state of each of Harbor's containers, by name."""
    names = [found.name for found in containers(home).values()]
    if not names:
        return {}
    described = json.loads(must(["docker", "inspect", "--type", "container", *names], 30))
    return {str(one["Name"]).lstrip("/"): one["State"] for one in described}


def not_started(seen: Dict[str, Dict[str, Any]]) -> List[str]:
    """Name the containers that the engine tried to start and could not."""
    return sorted(name for name, state in seen.items() if state.get("Error") and not state.get("Running"))


def left_behind(seen: Dict[str, Dict[str, Any]], engine_since: float) -> List[str]:
    """Name the containers that have run since before the engine, which has no network for them."""
    return sorted(
        name
        for name, state in seen.items()
        # Written to the second: what began in the same second counts as the engine's own.
        if state.get("Running") and started_at(state) + 1 < engine_since
    )


def started_at(state: Dict[str, Any]) -> float:
    """Read when a container started, in seconds of the wall clock."""
    return calendar.timegm(time.strptime(str(state["StartedAt"])[:19], "%Y-%m-%dT%H:%M:%S"))


def engine_since() -> float:
    """Read when the engine started, in seconds of the wall clock; 0 when its containers outlive it by intent."""
    if must(["docker", "info", "--format", "{{.LiveRestoreEnabled}}"], 30).strip() == "true":
        return 0.0
    show = ["systemctl", "show", "--property", "ExecMainStartTimestampMonotonic", "docker.service"]
    since_boot = int(must(show, 10).partition("=")[2]) / 1e6
    return time.time() - (time.monotonic() - since_boot)


def find_core(home: str, port: int) -> None:
    """Wait for core, and have nginx look it up again when it has another address than before."""
    seen = containers(home)
    if "core" not in seen or "proxy" not in seen:
        return
    core, proxy = seen["core"].name, seen["proxy"].name
    if not poll(lambda: core_runs(core), CORE_S, 0.5):
        print("core does not answer; its database may be away", flush=True)
    elif proxy_lost_core(port, core):
        print("nginx " + reload_proxy(proxy), flush=True)


def replaced(config: str) -> Optional[str]:
    """Say why this machine's Harbor must not run, as the NAS tells; None also where it does not tell.

    A standby's as well: it uses the old primary, and takes jobs from Redis.
    """
    p = json.loads(text_of(config) or "null")
    sysid = None if p is None else control(p).get("Database system identifier")
    return (
        None if sysid is None else must_leave(Local(p["node"], sysid, 0, False), read_shared(p, "restored"))
    )


def boot(home: str, nas: str, port: int, fenced: str) -> None:
    """Start what is missing; ends the program, to be tried again, when that is not possible yet.

    Args:
        home: Harbor's directory.
        nas: the mount point.
        port: nginx's on this machine.
        fenced: the file that the guard leaves when the node has fenced itself.
    """
    if os.path.exists(fenced):
        sys.exit("This node has fenced itself; what it stopped is started when it is in touch again.")
    seen = states(home)
    old = replaced(NODE)
    if old is not None:
        docker(["stop", "-t", "3"], [name for name in seen if name != LOG])
        sys.exit("This Harbor is not the site's any more: %s." % old)
    # A next core is never started here, and the engine leaves it down; one that outlived its engine must go. Where it
    # is the only core, its switch was cut short.
    if CORE in seen:
        require_no_next_core()
    missing, orphans = not_started(seen), left_behind(seen, engine_since())
    if missing or orphans:
        require_nas(nas)
        docker(["start"], [name for name in missing if name == LOG])
        docker(["restart", "-t", "1"], [name for name in orphans if name == LOG])
        require_log()
        docker(["start"], [name for name in missing if name != LOG])
        docker(["restart", "-t", "3"], [name for name in orphans if name != LOG])
    find_core(home, port)


def docker(words: List[str], names: List[str]) -> None:
    """Give the engine a command for containers, if there are any."""
    if names:
        print(" ".join([words[0], *names]), flush=True)
        must(["docker", *words, *names], 180)


if __name__ == "__main__":
    boot(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
