"""The probe's JSON answer, read into facts."""

import base64
from collections.abc import Mapping
from typing import Any

from cryptography import x509

from tasks.clock import Moment
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


def parse_answer(
    name: str, answer: Mapping[str, Any], started: Moment, ended: Moment, path: str
) -> NodeFacts:
    """Turn the answer of tasks/hosts/on_node/node_probe.py into facts.

    Args:
        name: the node.
        answer: the decoded JSON.
        started: when the question was sent.
        ended: when the answer had come.
        path: the path that it was reached over.

    Raises:
        ValueError, KeyError, TypeError: when the answer is not what the probe gives.
    """
    seen: Mapping[str, Any] = answer["seen"]
    problems = dict(answer["problems"])
    machine = seen.get("machine") or {}
    shared = seen.get("nas") or {}
    autostart = seen.get("autostart") or {}
    clock = machine.get("clock")
    return NodeFacts(
        name=name,
        observed_at=started,
        reachable_by=(path,),
        problems=problems,
        cluster=_cluster(seen, problems),
        server=_server(seen["server"]) if seen.get("server") else None,
        start_conf=autostart.get("start_conf"),
        masked=autostart.get("masked"),
        data_disk=_disk(seen.get("data_disk")),
        nas_mounted=shared.get("mounted"),
        nas_disk=_disk(shared.get("disk")),
        harbor=_harbor(seen),
        tcp={key.removeprefix("tcp:"): value for key, value in seen.items() if key.startswith("tcp:")},
        state=seen.get("state") or {},
        shared=seen.get("shared") or {},
        guard=_guard(seen.get("guard")),
        clock_skew_s=None if clock is None else clock - (started.wall + ended.wall) / 2,
        boot_id=machine.get("boot_id"),
        uptime_s=machine.get("uptime_s"),
    )


def _cluster(seen: Mapping[str, Any], problems: dict[str, str]) -> Cluster | None:
    row = seen.get("cluster")
    if not row:
        return None
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


def _guard(row: Mapping[str, Any] | None) -> Guard | None:
    if not row:
        return None
    limit = row.get("self_fence_s")
    return Guard(
        present=bool(row["present"]),
        age_s=row.get("age_s"),
        version=row.get("version"),
        self_fence_s=None if limit is None else float(limit),
    )


def _disk(row: Mapping[str, Any] | None) -> Disk | None:
    return Disk(row["total"], row["free"]) if row else None


def _harbor(seen: Mapping[str, Any]) -> HarborOnNode | None:
    row = seen.get("harbor")
    if not row:
        return None
    engine = seen.get("harbor_containers") or {}
    health = seen.get("harbor_health") or {}
    der = base64.b64decode(health.get("certificate") or "")
    return HarborOnNode(
        containers=engine.get("containers") or {},
        configured_database=row["configured_database"],
        running_database=engine.get("running_database"),
        health=health.get("status"),
        components=health.get("components") or {},
        certificate_end=x509.load_der_x509_certificate(der).not_valid_after_utc if der else None,
    )
