"""The probe's JSON answer, read into facts."""

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from cryptography import x509

from tasks.clock import Moment
from tasks.errors import HarborHaError
from tasks.postgres.controldata import ControlData, ControlDataUnreadable, controldata
from tasks.postgres.facts import (
    Archiver,
    Cluster,
    Disk,
    Guard,
    HarborOnNode,
    NodeFacts,
    Receiver,
    Sender,
    Server,
    Slot,
)
from tasks.postgres.history import TimelineHistory, parse_history
from tasks.postgres.lsn import Lsn, optional_lsn, record_end, segment_begin

Read = TypeVar("Read")


class AnswerUnreadable(HarborHaError):
    """A node answered the probe with something that it does not answer."""


# What reading a value of another shape than expected can raise.
_ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def parse_answer(name: str, answer: Any, started: Moment, ended: Moment, path: str) -> NodeFacts:
    """Turn the answer of tasks/hosts/on_node/node_probe.py into facts.

    A part that cannot be read is left out and told under `problems`, as one that failed on the node: a
    certificate that no library reads must not make a sound node unreachable.

    Args:
        name: the node.
        answer: the decoded JSON.
        started: when the question was sent.
        ended: when the answer had come.
        path: the path that it was reached over.

    Raises:
        AnswerUnreadable: it is not an answer of the probe; or the records of our operations cannot be read, which
            must not pass for absent.
    """
    try:
        seen: Mapping[str, Any] = {str(part): value for part, value in answer["seen"].items()}
        problems = {str(part): str(why) for part, why in answer["problems"].items()}
        state = {str(key): value for key, value in (seen.get("state") or {}).items()}
        shared_files = {str(key): value for key, value in (seen.get("shared") or {}).items()}
    except _ODD as error:
        raise AnswerUnreadable(
            f"The probe's answer cannot be read ({type(error).__name__}).",
            where=name,
            meaning="Nothing is known of this node.",
            remedy="Something else writes where our program answers; look at the start-up files of its user.",
        ) from error
    read = _Parts(seen, problems)
    machine = read.part("machine", _machine)
    shared = read.part("nas", _nas)
    autostart = read.part("autostart", _autostart)
    clock = machine["clock"] if machine else None
    return NodeFacts(
        name=name,
        observed_at=started,
        reachable_by=(path,),
        problems=problems,
        cluster=read.part("cluster", lambda _: _cluster(seen, problems)),
        server=read.part("server", _server),
        start_conf=autostart["start_conf"] if autostart else None,
        masked=autostart["masked"] if autostart else None,
        data_disk=read.part("data_disk", _disk),
        nas_mounted=shared["mounted"] if shared else None,
        nas_disk=shared["disk"] if shared else None,
        images_denied=read.part("images", lambda found: tuple(str(path) for path in found)) or (),
        harbor=_harbor(read),
        tcp={key.removeprefix("tcp:"): value for key, value in seen.items() if key.startswith("tcp:")},
        state=state,
        shared=shared_files,
        guard=read.part("guard", _guard),
        addresses=read.part("addresses", lambda found: tuple(str(address) for address in found)) or (),
        clock_skew_s=None if clock is None else clock - (started.wall + ended.wall) / 2,
        boot_id=machine["boot_id"] if machine else None,
        uptime_s=machine["uptime_s"] if machine else None,
    )


class _Parts:
    """The parts of an answer, each read for itself."""

    def __init__(self, seen: Mapping[str, Any], problems: dict[str, str]) -> None:
        self._seen = seen
        self._problems = problems

    def part(self, name: str, read: Callable[[Any], Read]) -> Read | None:
        """Read a part; None when it is not there or is odd."""
        value = self._seen.get(name)
        if not value:
            return None
        try:
            return read(value)
        except _ODD as error:
            self._problems[name] = f"it cannot be read ({type(error).__name__})"
            return None


def _machine(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"clock": float(row["clock"]), "boot_id": str(row["boot_id"]), "uptime_s": float(row["uptime_s"])}


def _nas(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"mounted": bool(row["mounted"]), "disk": _disk(row.get("disk"))}


def _autostart(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"start_conf": row["start_conf"], "masked": bool(row["masked"])}


def _cluster(seen: Mapping[str, Any], problems: dict[str, str]) -> Cluster:
    row = seen["cluster"]
    if row["unknown_processes"]:
        pids = ", ".join(map(str, row["unknown_processes"]))
        problems["processes"] = (
            f"process {pids} may be its server: its directory may not be read (CAP_SYS_PTRACE, hidepid)"
        )
    return Cluster(
        major=row["major"],
        control=(control := _control(seen, problems)),
        processes=tuple(row["processes"]),
        postmaster_status=row["postmaster_status"],
        standby_signal=row["standby_signal"],
        recovery_signal=row["recovery_signal"],
        backup_label_method=row["backup_label_method"],
        auto_conf=tuple(row["auto_conf"]),
        writable=row["writable"],
        ready_count=row["ready_count"],
        checkpoint_end=_checkpoint_end(seen, control),
        history=_history(row, problems),
    )


def _control(seen: Mapping[str, Any], problems: dict[str, str]) -> ControlData | None:
    if "control" not in seen:
        return None
    try:
        return controldata(seen["control"]["text"])
    except ControlDataUnreadable as error:
        problems["control"] = str(error)
        return None


def _checkpoint_end(seen: Mapping[str, Any], control: ControlData | None) -> Lsn | None:
    length = (seen.get("control") or {}).get("checkpoint_length")
    return record_end(control.checkpoint, length, control.segment_size) if control and length else None


def _history(row: Mapping[str, Any], problems: dict[str, str]) -> TimelineHistory | None:
    if row["history_timeline"] is None:
        return None
    try:
        return parse_history(row["history_timeline"], row["history"] or "")
    except ValueError as error:
        problems["history"] = str(error)
        return None


def _server(row: Mapping[str, Any]) -> Server:
    archiver = row["archiver"] or {}
    return Server(
        version_num=row["version_num"],
        system_identifier=row["system_identifier"],
        in_recovery=row["in_recovery"],
        started_at=row["started_at"],
        data_directory=row["data_directory"],
        timeline=int(row["timeline"]),
        write_lsn=optional_lsn(row["write_lsn"]),
        receive_lsn=optional_lsn(row["receive_lsn"]),
        replay_lsn=optional_lsn(row["replay_lsn"]),
        replay_paused=row["replay_paused"],
        read_only=row["read_only"],
        sync_names=row["sync_names"],
        archiver=Archiver(
            enabled=row["archiving"],
            failed_count=archiver.get("failed_count") or 0,
            last_failed_wal=archiver.get("last_failed_wal"),
            last_failed_at=archiver.get("last_failed_at"),
            last_archived_at=archiver.get("last_archived_at"),
        ),
        receiver=_receiver(row["receiver"]),
        senders=tuple(_sender(sender) for sender in row["senders"]),
        slots=tuple(_slot(slot) for slot in row["slots"]),
        free_senders=row["free_senders"],
        free_slots=row["free_slots"],
        hba_errors=row["hba_errors"],
        base_backups=row["base_backups"],
        oldest_transaction_s=row["oldest_transaction_s"],
        clients={client["address"]: client["sessions"] for client in row["clients"]},
        oldest_wal=segment_begin(row["oldest_wal"], row["wal_segment_size"]) if row["oldest_wal"] else None,
    )


def _receiver(row: Mapping[str, Any] | None) -> Receiver | None:
    if not row:
        return None
    return Receiver(
        status=row["status"] or "",
        sender_host=row["sender_host"],
        slot=row["slot_name"],
        received_timeline=row["received_tli"],
        flushed=optional_lsn(row["flushed_lsn"]),
        message_age_s=row["message_age_s"],
        timeout_s=row.get("timeout_s"),
    )


def _sender(row: Mapping[str, Any]) -> Sender:
    return Sender(
        application_name=row["application_name"],
        client_addr=row["client_addr"],
        state=row["state"] or "",
        sync_state=row["sync_state"] or "",
        replayed=optional_lsn(row["replay_lsn"]),
        lag_bytes=row["lag_bytes"],
        reply_age_s=row["reply_age_s"],
    )


def _slot(row: Mapping[str, Any]) -> Slot:
    return Slot(
        name=row["slot_name"],
        kind=row["slot_type"],
        active=row["active"],
        restart_lsn=optional_lsn(row["restart_lsn"]),
        wal_status=row["wal_status"],
        safe_wal_size=row["safe_wal_size"],
        has_xmin=row["has_xmin"],
        xmin_age=row["xmin_age"],
        held_bytes=row["held_bytes"],
    )


def _guard(row: Mapping[str, Any]) -> Guard:
    age, limit = row.get("age_s"), row.get("self_fence_s")
    return Guard(
        present=bool(row["present"]),
        age_s=None if age is None else float(age),
        version=row.get("version"),
        self_fence_s=None if limit is None else float(limit),
    )


def _disk(row: Mapping[str, Any] | None) -> Disk | None:
    return Disk(int(row["total"]), int(row["free"])) if row else None


def _harbor(read: _Parts) -> HarborOnNode | None:
    configured = read.part("harbor", lambda row: (row["configured_database"],))
    if configured is None:
        return None
    engine = read.part(
        "harbor_containers",
        lambda row: (
            dict(row.get("containers") or {}),
            row.get("running_database"),
            bool(row.get("jobs_behind")),
        ),
    )
    health = read.part("harbor_health", lambda row: (row.get("status"), dict(row.get("components") or {})))
    return HarborOnNode(
        containers=engine[0] if engine else {},
        configured_database=configured[0],
        running_database=engine[1] if engine else None,
        health=health[0] if health else None,
        components=health[1] if health else {},
        certificate_end=read.part("harbor_health", _certificate_end),
        jobs_behind=bool(engine and engine[2]),
    )


def _certificate_end(row: Mapping[str, Any]) -> datetime | None:
    der = base64.b64decode(row.get("certificate") or "")
    return x509.load_der_x509_certificate(der).not_valid_after_utc if der else None
