"""Runs on a node: term, lock, operation record and the other state files, each step under one lock.

A term is a number that only grows. Every operation begins with the next one, and a node that knows a higher term
does nothing for a lower one: whoever was stalled, cloned or restored finds out here and not by promoting.
"""

import json
import sys
import time
from typing import Any, Callable, Dict, Optional

from tasks.on_node.acceptance import newer
from tasks.on_node.authority import Busy, alive, known_term, moment, state_lock
from tasks.on_node.pg_disk import remove_durably, text_of, write_durably
from tasks.on_node.shared_copy import keep_shared, on_nas

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
    return dict(lock, **{key: lock[key] for key in ("op_id", "holder", "taken_at", "expires_at")})


def write_lock(p: Dict[str, Any], taken_at: float, written: Optional[Dict[str, Any]] = None) -> None:
    """Write our lock; its times are this node's, since it is this node that judges them.

    Args:
        written: the moment of the newest record, which is how old an intent is; None before the first.
    """
    lock = {"op_id": p["op_id"], "holder": p["holder"], "taken_at": taken_at, "ttl_s": p["ttl_s"]}
    lock.update(expires_at=time.time() + p["ttl_s"], renewed=moment(), written=written, sent=p.get("sent"))
    write_durably(path(p, "lock"), json.dumps(lock, sort_keys=True) + "\n")


def acquire(p: Dict[str, Any]) -> Answer:
    """Take the lock if it is free, over, ours, or that of a process known to be dead; never for a lower term."""
    lock, now = current_lock(p), time.time()
    others = lock is not None and lock["holder"] not in [p["holder"]] + p["dead"]
    if lock is not None and others and alive(lock):
        return {"state": "held", "lock": lock}
    outdated = claim_term(p)
    if outdated is not None:
        return outdated
    same = lock is not None and (lock["holder"], lock["op_id"]) == (p["holder"], p["op_id"])
    write_lock(p, lock["taken_at"] if lock is not None and same else now)
    return {"state": "acquired", "changed": not same, "previous": lock, "operation": operation(p)}


def claim_term(p: Dict[str, Any]) -> Optional[Answer]:
    """Make the caller's term the highest here and on the NAS; the answer for a caller that is behind.

    A bootstrap has none: it promotes nothing.
    """
    if p.get("term") is None:
        return None
    known, shared = known_term(p), on_nas(p, "term") or {}
    if (shared.get("term") or 0) > known["term"]:
        known = {"term": shared["term"], "op_id": str(shared.get("op_id"))}
    if known["term"] > p["term"] or (known["term"] == p["term"] and known["op_id"] != p["op_id"]):
        return {"state": "outdated", "term": known["term"], "operation": known["op_id"]}
    if known["term"] < p["term"]:
        text = json.dumps({"term": p["term"], "op_id": p["op_id"]}, sort_keys=True) + "\n"
        write_durably(path(p, "term"), text)
        keep_shared(p, "term", text)
    return None


def operation(p: Dict[str, Any]) -> Any:
    """Return the operation record as it stands; the reader judges a damaged one."""
    text = text_of(path(p, "operation"))
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return {"damaged": True}


def write(p: Dict[str, Any]) -> Answer:
    """Write the operation record and renew the lock; only while the lock is ours.

    With `accepted` the new primary is accepted in the same breath: the boot guard and a second orchestrator must
    know it before any client does.
    """
    lock = current_lock(p)
    if lock is None or (lock["holder"], lock["op_id"]) != (p["holder"], p["op_id"]):
        return {"state": "lost", "lock": lock}
    if behind(p, lock):
        return {"state": "late", "why": "what its holder sent later is here already"}
    record = json.loads(p["record"])
    known = known_term(p)
    if known["term"] > int(record.get("term") or 0):
        return {"state": "lost", "lock": dict(lock, holder="term %d, %s" % (known["term"], known["op_id"]))}
    if p.get("accepted"):
        accept(p)
    write_durably(path(p, "operation"), p["record"])
    write_lock(p, lock["taken_at"], moment())
    return {"state": "written"}


def behind(p: Dict[str, Any], lock: Dict[str, Any]) -> bool:
    """Tell whether the lock's holder has sent something else since, by its own clock, that is here already.

    A program may be delivered a minute late: a node's record went back from `promoting` to a phase that may be aborted.
    """
    before, sent = lock.get("sent"), p.get("sent")
    return before is not None and sent is not None and float(sent) < float(before)


def accept(p: Dict[str, Any]) -> Answer:
    """Keep who is the primary from now on, here and on the NAS; what is newer there stays."""
    given, text = json.loads(p["accepted"]), text_of(path(p, "accepted"))
    known = None if text is None else json.loads(text)
    if known is not None and newer(known, given):
        return {"state": "outdated", "term": known.get("term", 0), "operation": str(known.get("primary"))}
    same = known is not None and all(
        known.get(key) == given[key] for key in ("primary", "timeline", "system_identifier")
    )
    changed = not same or int((known or {}).get("term") or 0) < int(given.get("term") or 0)
    if changed:
        write_durably(path(p, "accepted"), p["accepted"])
    shared = on_nas(p, "accepted")
    if shared is None or not newer(shared, given):
        keep_shared(p, "accepted", p["accepted"])
    return {"state": "written", "changed": changed}


def renew(p: Dict[str, Any]) -> Answer:
    """Renew the lock while it is ours; a step of hours has no record to write meanwhile."""
    lock = current_lock(p)
    if lock is None or (lock["holder"], lock["op_id"]) != (p["holder"], p["op_id"]):
        return {"state": "lost", "lock": lock}
    if behind(p, lock):
        return {"state": "late", "why": "what its holder sent later is here already"}
    write_lock(p, lock["taken_at"], lock.get("written"))
    return {"state": "renewed"}


def confirm(p: Dict[str, Any]) -> Answer:
    """Say whether the lock is still ours, and renew it; one that was taken since and given back is nobody's.

    That something sent later is here already is no doubt of that: steps on several nodes ask at once.
    """
    answer = renew(p)
    return {"state": "renewed"} if answer["state"] == "late" else answer


def release(p: Dict[str, Any]) -> Answer:
    """Give the lock back if it is ours."""
    lock = current_lock(p)
    ours = lock is not None and (lock["holder"], lock["op_id"]) == (p["holder"], p["op_id"])
    return {"state": "released", "changed": ours and remove_durably(path(p, "lock"))}


def close(p: Dict[str, Any]) -> Answer:
    """Write the last record, then give the lock back."""
    answer = write(p)
    return release(p) if answer["state"] == "written" else answer


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
    "confirm": confirm,
    "release": release,
    "close": close,
    "accept": accept,
    "put": put,
    "drop": drop,
}


def act(p: Dict[str, Any]) -> Answer:
    """Do one action with all others kept out."""
    try:
        with state_lock(p):
            return ACTIONS[p["action"]](p)
    except Busy as error:
        return {"state": "busy", "why": str(error)}
    except OSError as error:
        # Its disk is full, read-only or gone: nothing can be recorded here, and the others go on without it.
        return {"state": "unwritable", "why": "%s: %s" % (type(error).__name__, error)}
    except (ValueError, KeyError, TypeError) as error:
        return {"state": "damaged", "why": "%s: %s" % (type(error).__name__, error)}


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
