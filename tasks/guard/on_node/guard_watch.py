"""Runs on a database node all the time: a primary that must not be one stops itself.

Two reasons. It has just started, and a peer is the primary on a newer timeline (both booted at once). Or it is
isolated: for the configured seconds neither the standby nor the load balancer nor Redis has answered. Redis is
shared, so an isolated Harbor cannot serve anybody; stopping loses nothing that was not lost already.

It stops the server. default_transaction_read_only would be softer, but every session can turn it off again.
"""

import json
import os
import signal
import subprocess
import threading
import time
from typing import Any, Dict, List

from tasks.guard.on_node.guard_look import CONFIG, accepted, ask_all, local, reaches
from tasks.guard.on_node.guard_rules import YIELD_S, may_resume, must_yield
from tasks.on_node.pg_disk import (
    postmaster_of,
    remove_durably,
    servers_in,
    set_standby_signal,
    set_start_conf,
    signal_all,
    text_of,
    wait_gone,
    write_durably,
)
from tasks.on_node.pg_run import systemctl

# With the fast and the immediate stop this ends well within the ten seconds that a failover adds to the limit.
PERIOD_S = 1.0
FAST_S = 3.0
IMMEDIATE_S = 2.0
# They write to the shared storage without asking PostgreSQL for each byte.
CONTAINERS = ["harbor-jobservice", "harbor-core", "registryctl"]


def is_primary(p: Dict[str, Any]) -> bool:
    """Tell whether a primary runs here, without a session."""
    return postmaster_of(p["data"]) is not None and not os.path.exists(p["data"] + "/standby.signal")


def in_touch(p: Dict[str, Any]) -> bool:
    """Ask all witnesses at once; one that answers is enough. A refusal comes from a living machine too."""
    seen: List[str] = []
    asked = [
        threading.Thread(target=lambda a=address, n=port: seen.append(reaches(a, n)), daemon=True)
        for _, address, port in p["peers"] + p["witnesses"]
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(2.0)
    return not asked or "open" in seen or "refused" in seen


def stop_server(p: Dict[str, Any]) -> None:
    """Stop the server within five seconds."""
    postmaster = postmaster_of(p["data"])
    if postmaster is not None:
        signal_all([postmaster], signal.SIGINT)
        if wait_gone(p["data"], FAST_S):
            return
        signal_all([postmaster], signal.SIGQUIT)
        if wait_gone(p["data"], IMMEDIATE_S):
            return
    signal_all(servers_in(p["data"]), signal.SIGKILL)


def fence(p: Dict[str, Any], why: str) -> None:
    """Stop, and remember what for; the containers at the same time as the server."""
    print("self-fence: %s" % why, flush=True)
    write_durably(state_path(p), json.dumps({"at": time.time(), "why": why}) + "\n")
    docker = subprocess.Popen(
        ["sh", "-c", 'docker stop -t 1 "$@" >/dev/null 2>&1', "sh"] + CONTAINERS, cwd="/"
    )
    stop_server(p)
    try:
        docker.wait(10)
    except subprocess.TimeoutExpired:
        docker.kill()


def resume(p: Dict[str, Any]) -> None:
    """Start again when the peers answer and none took over; the boot guard has the last word."""
    here = local(p)
    if here is None or here.standby_signal:
        # Somebody has made it a standby since; it is theirs to start.
        remove_durably(state_path(p))
        return
    if not in_touch(p) or not may_resume(here, accepted(p), ask_all(p)):
        return
    print("in touch again and still the accepted primary", flush=True)
    remove_durably(state_path(p))
    systemctl("start", "--no-block", p["unit"])
    # Core has another address now, and nginx resolves the name once: it answered 502 from then on.
    script = '{ docker start "$@"; docker exec nginx nginx -s reload || docker restart -t 1 nginx; } >/dev/null 2>&1'
    subprocess.call(["timeout", "60", "sh", "-c", script, "sh"] + CONTAINERS, cwd="/")


def yield_to_peer(p: Dict[str, Any], running_s: float) -> bool:
    """Stop and become a standby to be, when a peer is the rightful primary."""
    here = local(p)
    why = must_yield(here, running_s, ask_all(p)) if here is not None else None
    if why is None:
        return False
    print("yields: %s" % why, flush=True)
    set_standby_signal(p)
    set_start_conf(p, "manual")
    stop_server(p)
    return True


def state_path(p: Dict[str, Any]) -> str:
    """Return the file that says that the node has fenced itself."""
    return str(p["state_dir"]) + "/self_fence.json"


def started_at(p: Dict[str, Any]) -> float:
    """Return when the postmaster started, in seconds of the wall clock, as postmaster.pid says."""
    lines = (text_of(p["data"] + "/postmaster.pid") or "").splitlines()
    return float(lines[2]) if len(lines) > 2 and lines[2].strip().isdigit() else 0.0


def watch() -> None:
    """Look every second; a pass that fails is told and tried again."""
    last_touch = time.monotonic()
    while True:
        time.sleep(PERIOD_S)
        try:
            p = json.loads(text_of(CONFIG) or "{}")
            if not is_primary(p):
                last_touch = time.monotonic()
                if os.path.exists(state_path(p)) and not servers_in(p["data"]):
                    resume(p)
                continue
            running_s = time.time() - started_at(p)
            if running_s < YIELD_S and yield_to_peer(p, running_s):
                continue
            # The moment before the questions: an answer is as old as its question.
            asked_at = time.monotonic()
            limit = p["self_fence_s"]
            if limit is None or in_touch(p):
                last_touch = asked_at
            elif time.monotonic() - last_touch >= limit:
                fence(p, "no witness has answered for %d s" % limit)
        except Exception as error:
            print("%s: %s" % (type(error).__name__, error), flush=True)


if __name__ == "__main__":
    watch()
