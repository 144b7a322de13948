"""Runs on a node: the lock, the operation record and the other state files, each step under one file lock.

The kernel drops a file lock with the process that holds it; a lock file made with O_EXCL would stay behind
when this program is killed between making and filling it.
"""

import fcntl
import json
import os
import sys
import time
from typing import Any, Callable, Dict, Optional

from tasks.on_node.pg_disk import remove_durably, text_of, write_durably

Answer = Dict[str, Any]


def path(p: Dict[str, Any], name: str) -> str:
    """Return the path of a state file."""
    return "%s/%s.json" % (p["state_dir"], name)


def current_lock(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the lock that is there; raises ValueError when it cannot be read."""
    text = text_of(path(p, "lock"))
    if text is None:
        return None
    lock: Dict[str, Any] = json.loads(text)
    return {key: lock[key] for key in ("op_id", "holder", "taken_at", "expires_at")}


def write_lock(p: Dict[str, Any], taken_at: float) -> None:
    """Write our lock; its times are this node's, since it is this node that judges them."""
    lock = {"op_id": p["op_id"], "holder": p["holder"], "taken_at": taken_at}
    lock["expires_at"] = time.time() + p["ttl_s"]
    write_durably(path(p, "lock"), json.dumps(lock, sort_keys=True) + "\n")


def acquire(p: Dict[str, Any]) -> Answer:
    """Take the lock if it is free, expired, ours, or that of a process known to be dead."""
    lock, now = current_lock(p), time.time()
    others = lock is not None and lock["holder"] not in [p["holder"]] + p["dead"]
    if lock is not None and others and now < lock["expires_at"]:
        return {"state": "held", "lock": lock}
    same = lock is not None and (lock["holder"], lock["op_id"]) == (p["holder"], p["op_id"])
    write_lock(p, lock["taken_at"] if lock is not None and same else now)
    return {"state": "acquired", "changed": not same, "previous": lock, "operation": operation(p)}


def operation(p: Dict[str, Any]) -> Any:
    """Return the operation record as it stands; the reader judges a damaged one."""
    text = text_of(path(p, "operation"))
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return {"damaged": True}


def write(p: Dict[str, Any]) -> Answer:
    """Write the operation record and renew the lock; only while the lock is ours."""
    lock = current_lock(p)
    if lock is None or (lock["holder"], lock["op_id"]) != (p["holder"], p["op_id"]):
        return {"state": "lost", "lock": lock}
    write_durably(path(p, "operation"), p["record"])
    write_lock(p, lock["taken_at"])
    return {"state": "written"}


def renew(p: Dict[str, Any]) -> Answer:
    """Renew the lock while it is ours; a step of hours has no record to write meanwhile."""
    lock = current_lock(p)
    if lock is None or (lock["holder"], lock["op_id"]) != (p["holder"], p["op_id"]):
        return {"state": "lost", "lock": lock}
    write_lock(p, lock["taken_at"])
    return {"state": "renewed"}


def release(p: Dict[str, Any]) -> Answer:
    """Give the lock back if it is ours."""
    lock = current_lock(p)
    ours = lock is not None and (lock["holder"], lock["op_id"]) == (p["holder"], p["op_id"])
    return {"state": "released", "changed": ours and remove_durably(path(p, "lock"))}


def close(p: Dict[str, Any]) -> Answer:
    """Write the last record, then give the lock back."""
    answer = write(p)
    return answer if answer["state"] == "lost" else release(p)


def put(p: Dict[str, Any]) -> Answer:
    """Write another state file if its content differs."""
    changed = text_of(path(p, p["name"])) != p["text"]
    if changed:
        write_durably(path(p, p["name"]), p["text"])
    return {"state": "written", "changed": changed}


def drop(p: Dict[str, Any]) -> Answer:
    """Remove another state file."""
    return {"state": "removed", "changed": remove_durably(path(p, p["name"]))}


ACTIONS: Dict[str, Callable[[Dict[str, Any]], Answer]] = {
    "acquire": acquire,
    "write": write,
    "renew": renew,
    "release": release,
    "close": close,
    "put": put,
    "drop": drop,
}


def act(p: Dict[str, Any]) -> Answer:
    """Do one action with all others kept out."""
    os.makedirs(p["state_dir"], 0o700, exist_ok=True)
    with open(p["state_dir"] + "/.state.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            return ACTIONS[p["action"]](p)
        except (ValueError, KeyError, TypeError) as error:
            return {"state": "damaged", "why": "%s: %s" % (type(error).__name__, error)}


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
