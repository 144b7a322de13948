"""Part of node programs: may this program still do what it was sent for?

What the orchestrator saw a second ago is a reason to try, never a permission. A program may be delivered minutes
late, after another orchestrator has taken over and ended the operation: a standby was promoted beside a healthy
primary that way. So term, operation, holder, phase and age are looked up here, where the step happens, and nobody
else can change them meanwhile.
"""

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Callable, Dict, Iterator, Optional

from tasks.on_node.pg_disk import text_of

# A step begins within a second of the record that names it; what comes later was stalled on its way.
MAX_INTENT_AGE_S = 30.0
# Others hold the lock for the moment of a write, or for a step that this one must not run beside.
LOCK_WAIT_S = 5.0
_CLOSED = ("done", "aborted")


class Busy(Exception):
    """Another program holds the state lock of this node."""


def uptime() -> float:
    """Return the seconds since this machine's boot; nobody can set this clock, and it runs while suspended."""
    return float((text_of("/proc/uptime") or "0").split()[0])


def boot_id() -> str:
    """Name this boot of the machine."""
    return (text_of("/proc/sys/kernel/random/boot_id") or "").strip()


def moment() -> Dict[str, Any]:
    """Return the present as this node's own clock tells it, for a file that is judged on this node."""
    return {"boot": boot_id(), "uptime": uptime()}


def since(stamp: Any) -> Optional[float]:
    """Return the seconds since a `moment` of this boot; None for one of another boot, or for none at all."""
    if not isinstance(stamp, dict) or stamp.get("boot") != boot_id():
        return None
    return uptime() - float(stamp["uptime"])


def state_of(p: Dict[str, Any], name: str) -> Optional[Dict[str, Any]]:
    """Read a state file of this node; None when there is none, ValueError when it cannot be read."""
    text = text_of("%s/%s.json" % (p["state_dir"], name))
    value = None if text is None else json.loads(text)
    if value is not None and not isinstance(value, dict):
        raise ValueError("%s.json holds no object" % name)
    return value


@contextlib.contextmanager
def state_lock(p: Dict[str, Any], wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Keep every other program out that changes the state of this node; raises Busy, or OSError without a disk.

    The kernel drops a file lock with the process that holds it; a lock file made with O_EXCL would stay behind
    when this program is killed between making and filling it.
    """
    os.makedirs(p["state_dir"], 0o700, exist_ok=True)
    handle = os.open(p["state_dir"] + "/.state.lock", os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy("another step is running on this node")
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def known_term(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the highest term that this node knows, with its operation: `term` 0 before the first."""
    best: Dict[str, Any] = {"term": 0, "op_id": ""}
    for name in ("term", "operation"):
        found = state_of(p, name) or {}
        if int(found.get("term") or 0) > best["term"]:
            best = {"term": int(found["term"]), "op_id": str(found.get("op_id"))}
    return best


def why_not(p: Dict[str, Any]) -> Optional[str]:
    """Say why the caller may not act; None when it may. ValueError when the state cannot be read."""
    given = p.get("authority")
    lock, record = state_of(p, "lock"), state_of(p, "operation")
    if given is None:
        return _under_way(lock, record)
    known = known_term(p)
    if known["term"] > given["term"]:
        return "term %d (%s) has begun since, this is term %d" % (
            known["term"],
            known["op_id"],
            given["term"],
        )
    if lock is None or (lock.get("holder"), lock.get("op_id")) != (given["holder"], given["operation"]):
        return "the lock is held by %s" % ("nobody" if lock is None else lock.get("holder"))
    if record is None or record.get("op_id") != given["operation"] or record.get("phase") in _CLOSED:
        return "operation %s is not open here" % given["operation"]
    if record.get("phase") not in given["phases"]:
        return "the operation is at `%s`, this is a step of `%s`" % (record.get("phase"), given["phases"][0])
    age = since(lock.get("written"))
    if age is None or age > MAX_INTENT_AGE_S:
        return "it was told to more than %.0f s ago" % MAX_INTENT_AGE_S
    return None


def why_replaced(p: Dict[str, Any]) -> Optional[str]:
    """Say who has taken the lock from the caller; None when it is the caller's."""
    given, lock = p["authority"], state_of(p, "lock")
    if lock is None or (lock.get("holder"), lock.get("op_id")) != (given["holder"], given["operation"]):
        return "the lock is held by %s" % ("nobody" if lock is None else lock.get("holder"))
    return None


def alive(lock: Dict[str, Any]) -> bool:
    """Tell whether a lock's time is not over; by the clock that nobody sets, as long as this machine has not booted."""
    age = since(lock.get("renewed"))
    if age is not None:
        return age < float(lock["ttl_s"])
    # Renewed before this boot, so it is as old as that at the least: a clock that was ahead kept it alive for hours.
    over = isinstance(lock.get("renewed"), dict) and uptime() >= float(lock["ttl_s"])
    return not over and time.time() < lock["expires_at"]


def _under_way(lock: Optional[Dict[str, Any]], record: Optional[Dict[str, Any]]) -> Optional[str]:
    """Say which operation a step without one would run into; None when there is none."""
    if lock is None or record is None or record.get("phase") in _CLOSED:
        return None
    if lock.get("op_id") != record.get("op_id") or not alive(lock):
        return None
    return "operation %s is under way" % record.get("op_id")


def authorized(p: Dict[str, Any], act: Callable[[Dict[str, Any]], Dict[str, Any]]) -> Dict[str, Any]:
    """Do a step that must not be done twice, late, or for somebody who was replaced; nobody interferes meanwhile.

    Returns:
        the step's answer; or `outdated` with the reason, and nothing was done.
    """
    try:
        with state_lock(p):
            why = why_not(p)
            return {"outdated": why} if why else act(p)
    except (Busy, ValueError, OSError) as error:
        return {"outdated": "nothing may be done there: %s" % error}


def begun(p: Dict[str, Any], act: Callable[[Dict[str, Any]], Dict[str, Any]]) -> Dict[str, Any]:
    """Begin a step that may take an hour: it is judged as others are, and does not keep them out.

    What it does at its end asks `still_mine` first.
    """
    try:
        with state_lock(p):
            why = why_not(p)
    except (Busy, ValueError, OSError) as error:
        why = "nothing may be done there: %s" % error
    return {"outdated": why} if why else act(p)


def still_mine(p: Dict[str, Any]) -> Optional[str]:
    """Say why a step that has run for long must stop before its last act; None when it may go on."""
    given = p.get("authority")
    if given is None:
        return None
    known, lock = known_term(p), state_of(p, "lock")
    if known["term"] > given["term"]:
        return "term %d (%s) has begun since" % (known["term"], known["op_id"])
    if lock is not None and lock.get("op_id") != given["operation"]:
        return "operation %s works on this node now" % lock.get("op_id")
    return None


def stopping(p: Dict[str, Any], act: Callable[[Dict[str, Any]], Dict[str, Any]]) -> Dict[str, Any]:
    """Do a step that stops something, which is the safe thing to do: a node that cannot write is stopped too.

    Refused for one who was replaced; but a lock that could not be written here, because the disk is full, and a
    step that hangs on it, are no reasons to leave a primary running.
    """
    with contextlib.ExitStack() as locked:
        with contextlib.suppress(Busy, OSError):
            locked.enter_context(state_lock(p, 2.0))
        why = _replaced(p)
        return {"outdated": why} if why else act(p)


def _replaced(p: Dict[str, Any]) -> Optional[str]:
    """Say who has replaced the caller; None when nobody is known to have."""
    try:
        if p.get("authority") is None or writable(p):
            return why_not(p)
        return still_mine(p)
    except (ValueError, OSError):
        return None


def writable(p: Dict[str, Any]) -> bool:
    """Tell whether this node can keep a record at all."""
    path = "%s/.writable.%d" % (p["state_dir"], os.getpid())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, b"x" * 4096)
            os.fsync(handle)
        finally:
            os.close(handle)
            os.unlink(path)
        return True
    except OSError:
        return False
