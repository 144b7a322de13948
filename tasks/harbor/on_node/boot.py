"""Runs whenever the Docker engine starts on a Harbor node: starts the containers that the engine could not.

All of Harbor logs to harbor-log through a port of this machine, and the engine starts all containers at once:
whichever comes before that port listens fails, and the engine does not try it again. The same happens to those
that need a NAS which is mounted late. After a power cut or an upgrade of Docker half of Harbor stayed down.

What somebody has stopped, a fence for example, has no error and stays stopped.
"""

# ruff: noqa: UP006, UP035 - Python 3.6

import json
import os
import sys
from typing import List

from tasks.docker.on_node.lib import STATE_DIR, must, poll
from tasks.harbor.on_node.containers import (
    containers,
    core_runs,
    proxy_lost_core,
    reload_proxy,
    require_log,
    require_nas,
)

# Seconds. Core waits as long for its database before it gives up and is started again.
CORE_S = 60.0


def not_started(home: str) -> List[str]:
    """Name the containers that the engine tried to start and could not."""
    down = [found.name for found in containers(home).values() if not found.running]
    if not down:
        return []
    described = json.loads(must(["docker", "inspect", "--type", "container", *down], 30))
    states = [(str(one["Name"]).lstrip("/"), one["State"]) for one in described]
    return sorted(name for name, state in states if state.get("Error") and not state.get("Running"))


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


def boot(home: str, nas: str, port: int) -> None:
    """Start what is missing; ends the program, to be tried again, when that is not possible yet."""
    if os.path.exists(STATE_DIR + "/self_fence.json"):
        sys.exit("This node has fenced itself; what it stopped is started when it is in touch again.")
    missing = not_started(home)
    if missing:
        require_nas(nas)
        require_log()
        print("starts " + ", ".join(missing), flush=True)
        must(["docker", "start", *missing], 120)
    find_core(home, port)


if __name__ == "__main__":
    boot(sys.argv[1], sys.argv[2], int(sys.argv[3]))
