"""A site's database out of base backup and WAL, on the one machine that becomes Harbor again."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks import HarborSite
from tasks.backup.drill.invariants import broken_invariants
from tasks.backup.restore import done
from tasks.backup.restore.application import as_application
from tasks.errors import HarborHaError, Refused
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.pitr.errors import TargetNotReached, repository_error
from tasks.pitr.on_node import pitr_recover, pitr_restore
from tasks.pitr.settings import command, get_command
from tasks.postgres.cluster import as_record
from tasks.postgres.layout import STATE_DIR, layout_of
from tasks.postgres.run_on_node import run_on_node

_PITR_RESTORE = node_program(pitr_restore)
_PITR_RECOVER = node_program(pitr_recover)

MARKER = f"{STATE_DIR}/point-in-time.json"
# 1 TB at 50 MB/s, twice over, and WAL of a week; these only bound a node that hangs.
_RESTORE_S = 12 * 3600.0
_RECOVER_S = 12 * 3600.0


@dataclass(frozen=True)
class Standing:
    """What an earlier restore to a point in time left on a node.

    What was noted counts for the directory and the database that it was written for: after the data had been moved
    away, the same time onto a new cluster restored nothing, and another time was refused for ever.

    Attributes:
        to_time: of that restore; None when there was none, or what is there did not come from it.
        done: it became a primary; another time would need an empty machine.
        occupied: the data directory holds a database.
        stale: something was noted that does not count.
        placed: what is there is a base backup that was put there.
    """

    to_time: str | None
    done: bool
    occupied: bool
    stale: bool = False
    placed: bool = False


@dataclass(frozen=True)
class DirectorySeen:
    """What the data directory holds.

    Attributes:
        path: its path.
        sysid: the system identifier; "" where there is none that can be read.
        occupied: there is a control file.
        databases: how many; initdb makes three.
    """

    path: str
    sysid: str
    occupied: bool
    databases: int


_OF_INITDB = 3


def standing(site: HarborSite, host: Host) -> Standing:
    """Look at what is on the node; nothing is changed."""
    try:
        known: dict[str, Any] = json.loads(host.read(MARKER) or b"{}")
    except ValueError:
        known = {"to_time": None}
    return judge(known, _look_at_directory(site, host))


def judge(known: Mapping[str, Any], seen: DirectorySeen) -> Standing:
    """Decide whether what was noted is about what is there; a pure function."""
    placed = known.get("restored") or known.get("placing")
    # Nothing is there, or the empty cluster that was made for it; also after a kill between the two renames.
    to_come = not known.get("restored") and (not seen.occupied or seen.databases <= _OF_INITDB)
    is_it = seen.sysid == known.get("sysid") and known.get("data", seen.path) == seen.path
    counts = bool(known) and (to_come or (bool(placed) and is_it))
    if not counts:
        return Standing(None, False, seen.occupied, stale=bool(known))
    finished = bool(known.get("done"))
    return Standing(known.get("to_time"), finished, seen.occupied, placed=bool(placed) and is_it)


def _look_at_directory(site: HarborSite, host: Host) -> DirectorySeen:
    layout = layout_of(site)
    occupied = host.run(["test", "-e", f"{layout.data}/global/pg_control"], check=False).exit_status == 0
    argv = ["env", "LC_ALL=C", f"{layout.bin}/pg_controldata", "-D", layout.data]
    told = host.run(argv, check=False)
    found = re.search(r"system identifier:\s*(\d+)", told.stdout) if told.exit_status == 0 else None
    names = host.run(["ls", "-1", f"{layout.data}/base"], check=False).stdout.split()
    return DirectorySeen(
        layout.data, found.group(1) if found else "", occupied, sum(name.isdigit() for name in names)
    )


def require_free(found: Standing, where: str, to_time: str) -> None:
    """Refuse a node whose database did not come from this restore.

    Raises:
        Refused: with what to do.
    """
    if found.to_time is None and found.occupied:
        reason = (
            f"{where} holds a database that no restore to a point in time made; move it away if it may go."
        )
    elif found.done and found.to_time != to_time:
        reason = f"{where} was restored to {found.to_time} already; for another time take a bare machine."
    else:
        return
    raise Refused("The site cannot be restored to that time there.", [reason])


def begin(site: HarborSite, host: Host, *, to_time: str, base: str, sysid: str) -> Outcome:
    """Note on the node what it is about to become; whatever is made there from now on is known as ours.

    Args:
        to_time: with its zone.
        base: label of the base backup.
        sysid: system identifier of the database.
    """
    found = standing(site, host)
    require_free(found, host.name, to_time)
    if found.stale:
        host.run(["mv", "-f", "--", MARKER, f"{MARKER}.aside"])
    if found.to_time == to_time:
        return unchanged(f"goes on with the restore to {to_time}")
    # Of the restore before, into another directory: the identifier is the lost site's each time.
    done.forget(host)
    note = {"to_time": to_time, "base": base, "sysid": sysid, "data": layout_of(site).data}
    if found.placed:
        # Of another time, and never a primary: it is ours all the same.
        note["placing"] = found.to_time or ""
    host.put(MARKER, json.dumps(note), mode=0o600)
    return changed(f"restores to {to_time} from the base backup {base}")


def restore_base(site: HarborSite, host: Host, *, to_time: str, base: str, sysid: str) -> Outcome:
    """Fetch the base backup, verified file by file, and put it in the place of the empty cluster.

    Raises:
        RepositoryError, StorageError: with one sentence; the cluster is as it was.
    """
    target = datetime.fromisoformat(to_time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
    options = [
        "--type=time",
        f"--target={target}",
        "--target-action=promote",
        f"--set={base}",
        # Made for this directory, pgBackRest's own would name the one beside it.
        f"--recovery-option=restore_command={get_command(site)}",
    ]
    answer = run_on_node(
        site,
        host,
        _PITR_RESTORE,
        limit=_RESTORE_S,
        limit_s=_RESTORE_S,
        restore=command(site, "", *options)[:-1],
        marker=MARKER,
        to_time=to_time,
        base=base,
        sysid=sysid,
        record=layout_of(site).record,
        record_text=as_record(site.name, sysid),
    )
    if "problem" in answer:
        raise repository_error(answer["problem"], host.name)
    text = f"base backup {base} of the database {sysid}"
    return changed(text) if answer["changed"] else unchanged(text)


def recover(site: HarborSite, host: Host, *, to_time: str) -> Outcome:
    """Replay WAL up to the time, and become a primary.

    Returns:
        data: `replayed`, the commit time of the last transaction that is in it.

    Raises:
        TargetNotReached: the WAL in the bucket ends before; choose an earlier time.
        HarborHaError: the server did not start.
    """
    given = {"marker": MARKER, "limit_s": _RECOVER_S}
    answer = run_on_node(site, host, _PITR_RECOVER, limit=_RECOVER_S, **given)
    if "ended" in answer:
        raise TargetNotReached(
            f"The WAL in the bucket ends before {to_time}; its last transaction is of {answer['ended'] or 'unknown'}.",
            where=host.name,
            meaning="The database was not opened for writing.",
            remedy="Run it again with a to_time at or before that transaction.",
        )
    if "problem" in answer:
        raise HarborHaError(f"PostgreSQL did not recover: {answer['problem']}", where=host.name)
    replayed = answer["replayed"] or "none after the base backup"
    text = f"recovered to {to_time}; last transaction: {replayed}; timeline {answer['timeline']}"
    return (changed if answer["changed"] else unchanged)(text, replayed=replayed)


def check(site: HarborSite, host: Host) -> Outcome:
    """Check what must be true of a database of Harbor's, as Harbor: what stands in it was written by others.

    Raises:
        HarborHaError: it is not consistent in itself.
    """
    with as_application(site, host) as server:
        broken = broken_invariants(host, server, site.postgres.database)
    if broken:
        raise HarborHaError(
            f"The restored database is not consistent in itself: {'; '.join(broken)}.",
            where=host.name,
            remedy="Choose another time, or look whether these statements were true before.",
        )
    return unchanged("Harbor's invariants hold")
