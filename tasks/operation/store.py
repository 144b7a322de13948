"""The lock, the operation record and the switches of a site, kept on its database nodes.

They are on the nodes because an orchestrator can be lost with what it knows, and a second one must find out.
Locks are taken in the order of the site file, so of two orchestrators that begin at the same instant the one
that gets the first node wins; and on every node that is given, so one that reaches only the other node does
not get past it. An operation must hold the lock on the node that it promotes (`required`).
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blocks import HarborSite
from tasks import clock
from tasks.errors import (
    HarborHaError,
    HostUnreachable,
    RemoteCommandFailed,
    RemoteConnectionLost,
    RemoteTimeout,
    Superseded,
)
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.on_node import operation_file
from tasks.operation.files import LAST_PRIMARY, PAUSED
from tasks.operation.holder import describe, known_dead, this_process
from tasks.operation.record import LastPrimary, OperationRecord, RecordDamaged, to_json
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import STATE_DIR

_OPERATION_FILE = node_program(operation_file)

# A working process renews its lock (`renewed`); of one that is gone, or stalls, the lock is over after a minute.
LOCK_TTL_S = 60.0
RENEWAL_S = 15.0
_LIMIT_S = 10.0
# A node on which no program ends well keeps no record either: its disk is full, or its Python is gone.
_AWAY = (HostUnreachable, RemoteConnectionLost, RemoteTimeout, RemoteCommandFailed)


class LockHeld(HarborHaError):
    """Another process works on the site.

    Attributes:
        holder: who, as the lock says.
        op_id: on which operation.
    """

    def __init__(self, where: str, lock: dict[str, Any]) -> None:
        self.holder = str(lock["holder"])
        self.op_id = str(lock["op_id"])
        # Its node's clock may be hours from ours; no lock lasts longer than this.
        left = min(LOCK_TTL_S, max(0.0, float(lock["expires_at"]) - clock.now().wall))
        super().__init__(
            f"Operation {self.op_id} of {describe(self.holder)} is in progress.",
            where=where,
            meaning="Nothing was changed by this call.",
            remedy=f"Wait for it. If its process is dead, the lock runs out in {left:.0f} s, "
            "or at once on the machine where it ran.",
        )


class LockLost(HarborHaError):
    """The lock is no longer ours: this process slept too long and another one took over."""


class Unwritable(HarborHaError):
    """A node is reached and can keep nothing: its disk is full or read-only, or another step holds it up."""


class NotMirrored(HarborHaError):
    """A state file could not be written where it is needed."""


def holder() -> str:
    """Return how this process signs a lock."""
    return str(this_process())


def acquire(
    site: HarborSite, *hosts: Host, op_id: str, term: int | None = None, required: Sequence[str] = ()
) -> Outcome:
    """Take the site's lock for an operation, on all given nodes or on none; a second time is no change.

    Args:
        hosts: the database nodes; one that cannot be reached is left out.
        op_id: the operation, new or resumed.
        term: its term, which becomes the highest on these nodes; None for work that promotes nothing.
        required: nodes that must be locked.

    Returns:
        data: `locked` and `missed` (node names), `records` (what the nodes hold, undecoded, by node),
        `taken_over` (the holders whose dead or expired locks were taken).

    Raises:
        LockHeld: another process works on the site.
        Superseded: a node knows a later operation.
        NotMirrored: a required node, or every node, could not be reached or written.
        RecordDamaged: a lock cannot be read.
    """
    locked: list[Host] = []
    missed: dict[str, str] = {}
    records: dict[str, Any] = {}
    taken_over: set[str] = set()
    fresh = False
    try:
        for host in _in_order(site, hosts):
            try:
                answer = _acquire_on(site, host, op_id, term)
            except (*_AWAY, Unwritable) as error:
                missed[host.name] = str(error)
                continue
            locked.append(host)
            records[host.name] = answer["operation"]
            previous = answer["previous"]
            if previous is not None and previous["holder"] != holder():
                taken_over.add(str(previous["holder"]))
            fresh = fresh or answer["changed"]
        _require(locked, required, missed, "The lock")
    except HarborHaError:
        _each(locked, lambda host: _act(site, host, "release", op_id=op_id))
        raise
    names = [host.name for host in locked]
    said = changed if fresh else unchanged
    return said(
        f"operation {op_id} holds the lock on {', '.join(names)}",
        locked=names,
        missed=missed,
        records=records,
        taken_over=sorted(taken_over),
    )


def advance(
    site: HarborSite,
    *hosts: Host,
    record: OperationRecord,
    required: Sequence[str] = (),
    accepted: str | None = None,
) -> Outcome:
    """Write the operation record on the nodes, before the step that its phase names, and renew the lock.

    Args:
        hosts: nodes on which `acquire` took the lock; written all at once.
        required: nodes that must have it; the node to promote before its promotion.
        accepted: who is the primary from now on (the text of accepted.json), written with it; None: no change.

    Raises:
        LockLost: the lock went to another process.
        NotMirrored: a required node, or every node, could not be written.
    """
    detail = f"{record.kind} {record.op_id}: {record.phase}"
    return _record(site, hosts, record, "write", required, detail, accepted=accepted)


def close(site: HarborSite, *hosts: Host, record: OperationRecord, required: Sequence[str] = ()) -> Outcome:
    """Write the last record and give the lock back.

    Args:
        required: nodes that must have it: an abort that the target does not know is none.

    Raises:
        LockLost: the lock went to another process.
        NotMirrored: a required node, or every node, could not be written.
    """
    detail = f"{record.kind} {record.op_id} closed: {record.phase}"
    return _record(site, hosts, record, "close", required, detail)


def confirm(site: HarborSite, *hosts: Host, op_id: str, required: Sequence[str] = ()) -> None:
    """See that the lock is still ours on all these nodes, and renew it there.

    Nobody took it meanwhile, not even for a moment: it would be gone, or another's.

    Args:
        hosts: nodes on which `acquire` took the lock.
        op_id: of which operation.
        required: nodes that must say so; of the others it is enough that they do not say the contrary.

    Raises:
        LockLost: another run took it.
        NotMirrored: a required node, or every node, could not be asked.
    """
    done = _each(hosts, lambda host: _act(site, host, "confirm", op_id=op_id))
    for node, answer in done.items():
        if not isinstance(answer, str) and answer["state"] == "lost":
            raise _lost(node, op_id, answer["lock"])
    missed = {node: answer for node, answer in done.items() if isinstance(answer, str)}
    _require([host for host in hosts if host.name not in missed], required, missed, "The lock")


@contextlib.contextmanager
def renewed(site: HarborSite, *hosts: Host, op_id: str, every_s: float = RENEWAL_S) -> Iterator[None]:
    """Renew the lock while its process works; one that is killed or stalls loses it within a minute.

    A renewal that fails is not told: the next `advance`, or `confirm`, finds a lock that was lost, and stops.
    """
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(every_s):
            with contextlib.suppress(HarborHaError):
                _each(hosts, lambda host: _act(site, host, "renew", op_id=op_id))

    renewer = threading.Thread(target=renew, daemon=True)
    renewer.start()
    try:
        yield
    finally:
        ended.set()
        renewer.join(_LIMIT_S)


def release(site: HarborSite, *hosts: Host, op_id: str) -> Outcome:
    """Give the lock back without a record, when the operation did not begin."""
    done = _each(hosts, lambda host: _act(site, host, "release", op_id=op_id))
    freed = [name for name, answer in done.items() if not isinstance(answer, str) and answer["changed"]]
    return changed(f"lock released on {', '.join(freed)}") if freed else unchanged("no lock of ours")


def pause(site: HarborSite, *hosts: Host, reason: str, by: str) -> Outcome:
    """Switch the site to maintenance: nothing that an alert starts may act.

    Raises:
        NotMirrored: on no node; a node that is missed is named in the result.
    """
    text = json.dumps({"reason": reason, "since": clock.now().wall, "by": by}, sort_keys=True) + "\n"
    return put_state(site, *hosts, name=PAUSED, text=text)


def unpause(site: HarborSite, *hosts: Host) -> Outcome:
    """End the maintenance.

    Raises:
        NotMirrored: a node could not be reached; the site stays paused as long as one node says so.
    """
    done = _each(hosts, lambda host: _act(site, host, "drop", name=PAUSED))
    missed = {name: answer for name, answer in done.items() if isinstance(answer, str)}
    _require([h for h in hosts if h.name not in missed], [h.name for h in hosts], missed, "The pause")
    ended = any(answer["changed"] for answer in done.values() if not isinstance(answer, str))
    return changed("the pause is over") if ended else unchanged("the site was not paused")


def remember_primary(site: HarborSite, *hosts: Host, last: LastPrimary) -> Outcome:
    """Keep the last position seen on the primary where a failover finds it.

    Raises:
        NotMirrored: on no node.
    """
    return put_state(site, *hosts, name=LAST_PRIMARY, text=to_json(last))


def put_state(site: HarborSite, *hosts: Host, name: str, text: str, required: Sequence[str] = ()) -> Outcome:
    """Write a state file on all nodes that can be reached.

    Args:
        name: from `tasks.operation.files`.
        text: its JSON.
        required: nodes that must have it.

    Returns:
        data: `written` and `missed` (node names).

    Raises:
        NotMirrored: a required node, or every node, could not be written.
    """
    done = _each(hosts, lambda host: _act(site, host, "put", name=name, text=text))
    missed = {node: answer for node, answer in done.items() if isinstance(answer, str)}
    written = [host for host in hosts if host.name not in missed]
    _require(written, required, missed, f"{name}.json")
    names = [host.name for host in written]
    new = any(answer["changed"] for answer in done.values() if not isinstance(answer, str))
    detail = f"{name}.json on {', '.join(names)}" + (f", not on {', '.join(missed)}" if missed else "")
    return (changed if new else unchanged)(detail, written=names, missed=missed)


def accept(site: HarborSite, *hosts: Host, accepted: str, required: Sequence[str] = ()) -> Outcome:
    """Keep who is the primary on all nodes that can be reached and on the NAS; a later acceptance there stays.

    Args:
        accepted: the text of accepted.json.
        required: nodes that must have it.

    Raises:
        Superseded: a node knows a later promotion.
        NotMirrored: a required node, or every node, could not be written.
    """
    done = _each(hosts, lambda host: _act(site, host, "accept", accepted=accepted))
    missed = {node: answer for node, answer in done.items() if isinstance(answer, str)}
    written = [host for host in hosts if host.name not in missed]
    _require(written, required, missed, "accepted.json")
    new = any(answer["changed"] for answer in done.values() if not isinstance(answer, str))
    detail = f"accepted.json on {', '.join(host.name for host in written)}"
    return (changed if new else unchanged)(detail, written=[host.name for host in written], missed=missed)


def _record(
    site: HarborSite,
    hosts: Sequence[Host],
    record: OperationRecord,
    action: str,
    required: Sequence[str],
    detail: str,
    **more: Any,
) -> Outcome:
    text = to_json(record)
    done = _each(hosts, lambda host: _act(site, host, action, op_id=record.op_id, record=text, **more))
    for node, answer in done.items():
        if not isinstance(answer, str) and answer["state"] == "lost":
            raise _lost(node, record.op_id, answer["lock"])
    missed = {node: answer for node, answer in done.items() if isinstance(answer, str)}
    written = [host for host in hosts if host.name not in missed]
    _require(written, required, missed, "The operation record")
    return changed(detail, written=[host.name for host in written], missed=missed)


def _lost(node: str, op_id: str, lock: dict[str, Any] | None) -> LockLost:
    return LockLost(
        f"The lock of operation {op_id} is held by {describe(lock['holder']) if lock else 'nobody'}.",
        where=node,
        meaning="Another run works on the site, or has since; this one has stopped, and its next step was not begun.",
        remedy="Look at the other run. Run again when it has ended; the flow looks anew.",
    )


def _acquire_on(site: HarborSite, host: Host, op_id: str, term: int | None) -> dict[str, Any]:
    answer = _act(site, host, "acquire", op_id=op_id, term=term, dead=[])
    if answer["state"] == "held" and known_dead(answer["lock"]["holder"]):
        dead = [answer["lock"]["holder"]]
        answer = _act(site, host, "acquire", op_id=op_id, term=term, dead=dead)
    if answer["state"] == "held":
        raise LockHeld(host.name, answer["lock"])
    return answer


def _act(site: HarborSite, host: Host, action: str, **given: Any) -> dict[str, Any]:
    payload = {"action": action, "state_dir": STATE_DIR, "holder": holder(), "ttl_s": LOCK_TTL_S, **given}
    payload.update(site=site.name, nas_path=nas_path_of(site, host.name), sent=time.monotonic())
    answer: dict[str, Any] = host.python(_OPERATION_FILE, payload, timeout=_LIMIT_S)
    if answer["state"] == "damaged":
        raise RecordDamaged(
            f"What is recorded there cannot be read: {answer['why']}.",
            where=host.name,
            meaning="An operation may be half done; it is not taken for absent.",
            remedy=f"Look at the files in {STATE_DIR}; move the damaged one aside when you know the state.",
        )
    if answer["state"] in ("unwritable", "busy", "late"):
        raise Unwritable(f"Nothing can be recorded there: {answer['why']}.", where=host.name)
    if answer["state"] == "outdated":
        raise Superseded(
            f"Another operation has begun since: term {answer['term']} ({answer['operation']}).",
            where=host.name,
            meaning="Nothing was changed there by this call.",
            remedy="Run the flow again; it looks anew.",
        )
    return answer


def nas_path_of(site: HarborSite, node: str) -> str | None:
    """Say where a node sees the NAS; None for one that does not mount it."""
    return site.nas.path if site.node(node).runs_harbor else None


def _each(hosts: Iterable[Host], action: Callable[[Host], dict[str, Any]]) -> dict[str, dict[str, Any] | str]:
    """Act on all hosts at once; a node that cannot be reached gives the reason as text."""

    def guarded(host: Host) -> dict[str, Any] | str:
        try:
            return action(host)
        except (*_AWAY, Unwritable) as error:
            return str(error)

    listed = list(hosts)
    if not listed:
        return {}
    with ThreadPoolExecutor(len(listed)) as pool:
        return dict(zip([host.name for host in listed], pool.map(guarded, listed), strict=True))


def _in_order(site: HarborSite, hosts: Iterable[Host]) -> list[Host]:
    order = [node.name for node in site.nodes]
    return sorted(hosts, key=lambda host: order.index(host.name))


def _require(done: Sequence[Host], required: Iterable[str], missed: dict[str, str], what: str) -> None:
    names = {host.name for host in done}
    lacking = [name for name in required if name not in names]
    if lacking or not names:
        reasons = "; ".join(f"{name}: {missed.get(name, 'not reached')}" for name in lacking or missed)
        raise NotMirrored(
            f"{what} could not be written on {', '.join(lacking) or 'any node'}: {reasons}",
            meaning="Another orchestrator could not see what this one does, so it stops.",
            remedy="Bring the node back, then run the flow again.",
        )
