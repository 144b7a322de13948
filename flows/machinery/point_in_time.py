"""The part of a disaster restore that leads to a point in time: base backup and WAL instead of a dump."""

from dataclasses import dataclass
from datetime import UTC, datetime

from flows.machinery import backup_steps as steps
from flows.machinery.protocol import Protocol
from flows.rules.point_in_time import choose_base, choose_nightly, parse_time, ranges
from tasks.backup.format.catalogue import list_backups
from tasks.backup.format.layout import BackupId
from tasks.backup.settings import store_of
from tasks.hosts.connection import connect
from tasks.outcome import Outcome
from tasks.pitr import steps as pitr
from tasks.pitr.catalogue import Reach, reach_of
from tasks.pitr.restore import require_free, standing
from tasks.pitr.settings import bucket_of, stanza_of
from tasks.postgres import steps as postgres


@dataclass(frozen=True)
class Point:
    """Where a restore goes to, and by what.

    Attributes:
        time: with its zone, as the operator gave it.
        chosen: the base backup and its reach.
        nightly: where secretkey, keys and configuration come from.
        why: why that one.
        possible: the times that could be reached.
    """

    time: datetime
    chosen: Reach
    nightly: BackupId
    why: str
    possible: str

    @property
    def given(self) -> dict[str, str]:
        """What the steps on the node take."""
        base = self.chosen.base
        return {"to_time": self.time.isoformat(), "base": base.label, "sysid": base.system_identifier}


def decide_point(run: Protocol, target: str, to_time: str) -> Point:
    """Find out from the bucket how the time can be reached; nothing is changed.

    Raises:
        Refused: it cannot, or the target was restored to another one; with the times that can.
    """
    bucket_of(run.site)
    store, time = store_of(run.site), parse_time(to_time, datetime.now(UTC))
    reaches = reach_of(store, stanza_of(run.site))
    chosen = choose_base(time, reaches, run.site.postgres.major)
    nightly, why = choose_nightly(time, [entry.backup for entry in list_backups(store) if entry.complete])
    found = standing(run.site, connect(run.site.node(target)))
    require_free(found, target, time.isoformat())
    return Point(time, chosen, nightly, why, ranges(reaches))


def rebuild_database(run: Protocol, target: str, point: Point) -> Outcome:
    """Fetch the base backup, replay WAL up to the time, and open the database."""
    run.on(pitr.begin, target, **point.given)
    run.on(postgres.create_cluster, target)
    run.on(pitr.restore_base, target, **point.given)
    run.on(postgres.configure, target)
    recovered = run.on(pitr.recover, target, to_time=point.given["to_time"])
    run.on(postgres.create_roles, target)
    run.on(postgres.set_passwords, target)
    run.on(pitr.check, target)
    run.on(pitr.create_stanza, target)
    return recovered


def bring_back_images(run: Protocol, target: str, images: str) -> Outcome:
    """Make links and blobs present that the restored database refers to, as far as NAS and bucket have them."""
    if images == "nas":
        run.on(steps.require_links, target)
    run.on(steps.make_links, target)
    return run.on(steps.restore_needed_images, target)


def describe(point: Point, recovered: Outcome, images: Outcome) -> dict[str, list[str]]:
    """Tell what was reached, and what could not be brought back."""
    base = point.chosen.base
    sections = {
        "Point in time": [
            f"asked for {point.time.isoformat()}; last transaction in it: {recovered.data.get('replayed', 'not run')}",
            f"from the base backup {base.label} of PostgreSQL {base.major}; {point.possible}",
            f"secretkey, keys and configuration from {point.nightly}: {point.why}",
            "rows cannot be compared with a manifest: none was written at that time; Harbor's invariants were checked",
        ]
    }
    lost, count = images.data.get("lost", []), images.data.get("lost_count", 0)
    if count:
        sections["Images that are lost"] = [
            f"{count} blobs are neither on the NAS nor in the bucket: they were pushed after the last nightly backup. "
            "The database knows these images and they cannot be pulled; push them again, or delete them:",
            *lost,
        ]
    return sections
