"""Rewind, base backup and the list of lost commits: what their programs do to data directories."""

import re
import subprocess as real_subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tasks.on_node.pg_run import Failed
from tests.simulation.world.here import node, world
from tests.simulation.world.machines import Data, Node
from tests.simulation.world.processes import COPY_S, REWIND_S, lsn


def position(text: str) -> int:
    """Read a position as PostgreSQL prints it."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def segments_from(directory: str, timeline: int, at: int, size: int) -> list[str]:
    """Stand for `pg_wal.segments_from`: there is a segment when anything was written behind the position."""
    data = node().data
    return ["000000010000000000000001"] if data is not None and data.end >= at else []


def first_gap(names: list[str], timeline: int, at: int, size: int) -> str | None:
    """Stand for `pg_wal.first_gap`: nothing is missing."""
    return None


def collect(p: dict[str, Any], wal: str, timeline: int, fork: str) -> dict[str, Any]:
    """Stand for `pg_lost_commits.collect`: the acknowledged writes of this directory behind the position."""
    here, data = world(), node().data
    assert data is not None
    at = position(fork)
    commits = [
        {"at": f"{write.at:.0f}", "xid": number, "relations": []}
        for number, write in enumerate(here.acks)
        if write.branch.timeline == timeline and write.lsn > at and data.has(write.branch, write.lsn)
    ]
    return {
        "known": True,
        "commits": commits[:1000],
        "total": len(commits),
        "timeline": timeline,
        "from": fork,
        "to": lsn(data.end),
    }


def keep_evidence(p: dict[str, Any], timeline: int, fork: str) -> str:
    """Stand for `pg_rewind.keep_evidence`."""
    return f"{p['state_dir']}/diverged/{p['operation']}"


def recover(p: dict[str, Any]) -> None:
    """Stand for `pg_rewind.recover`: a single-user server brings the directory to a clean end."""
    place = node()
    data = place.data
    assert data is not None
    place.files.pop(place.data_path + "/standby.signal", None)
    try:
        world().engine.sleep(2.0)
        data.state, data.checkpoint = "shut down", data.end
        data.control_timeline = data.branch.timeline
    finally:
        if place.on:
            place.files[place.data_path + "/standby.signal"] = ""


def source_of(text: str, place: Node) -> Data:
    """Find the primary that a copy comes from; Failed when it is not there."""
    here = world()
    addresses = re.findall(r"host=(\d[\d.]+)", text)
    source = here.nodes[here.name_at(addresses[-1])]
    if not here.path(place.name, source.name) or not source.primary or source.data is None:
        raise Failed("could not connect to the source server")
    return source.data


def only_archived(p: dict[str, Any], timeline: int, at: int) -> list[str]:
    """Stand for `pg_archive.only_archived`: the simulated nodes keep no archive."""
    return []


def archive_has_line(p: dict[str, Any], timeline: int) -> bool:
    """Stand for `pg_archive.archive_has_line`."""
    return False


def set_archive_aside(archive: str, sysid: str | None) -> str | None:
    """Stand for `pg_archive.set_archive_aside`."""
    return None


def run_pg_rewind(p: dict[str, Any], archived: bool) -> str:
    """Stand for `pg_rewind.run_pg_rewind`."""
    place, here = node(), world()
    source, data = source_of(p["source"], place), place.data
    assert data is not None
    if source.control_timeline == data.control_timeline and source.branch is not data.branch:
        return "no rewind required"
    if source.branch is data.branch:
        return "no rewind required"
    data.half = True
    here.engine.sleep(here.rng.uniform(2.0, REWIND_S))
    source_of(p["source"], place)
    if place.disk != "ok":
        raise Failed("could not write")
    # Overwritten in place: what only this directory had is in the evidence from here on.
    place.dirs[place.data_path] = replace(source.copied(), floor=0)
    place.files[place.data_path + "/backup_label"] = "BACKUP METHOD: pg_rewind\n"
    here.changed()
    return "Done!"


def as_postgres(argv: list[str], limit: float) -> "real_subprocess.CompletedProcess[bytes]":
    """Stand for `base_backup.as_postgres`: pg_basebackup and pg_verifybackup."""
    place, here = node(), world()
    if "pg_basebackup" not in argv[0]:
        return real_subprocess.CompletedProcess(argv, 0, b"")
    target = argv[argv.index("-D") + 1]
    try:
        source_of(" ".join(argv), place)
        here.engine.sleep(here.rng.uniform(5.0, COPY_S))
        source = source_of(" ".join(argv), place)
        if source.slots.get(place.name) is not False:
            raise Failed("replication slot does not exist")
        if place.disk != "ok":
            raise Failed("No space left on device")
    except Failed as error:
        return real_subprocess.CompletedProcess(argv, 1, str(error).encode())
    place.dirs[target] = source.copied()
    place.files[target + "/backup_label"] = "BACKUP METHOD: streamed\n"
    here.changed()
    return real_subprocess.CompletedProcess(argv, 0, b"")


class SimShutil:
    """Stands for `shutil`."""

    @staticmethod
    def disk_usage(path: str) -> Any:
        return SimpleNamespace(free=50 << 30 if node().disk == "ok" else 0)
