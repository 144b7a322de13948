"""What can be restored, read from the bucket alone: base backups as small objects of ours, WAL by its names.

pgBackRest's own index is encrypted and needs pgBackRest; a restore must be refused before anything is
installed on a bare machine.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from tasks.errors import HarborHaError
from tasks.pitr.repository import BaseBackup
from tasks.pitr.settings import REPOSITORY
from tasks.storage.store import ObjectStore

BASES = "base-backups/"
_WAL = re.compile(r"/(?P<name>[0-9A-F]{24})-[0-9a-f]{40}")
# Of the default segment size, 16 MB; the site's clusters are made with it.
_SEGMENTS_OF_A_LOG = 256


class RecordDamaged(HarborHaError):
    """The record of a base backup in the bucket cannot be read."""


@dataclass(frozen=True)
class Reach:
    """A base backup and how far the WAL in the bucket leads from it.

    Attributes:
        first, last: times that can be reached lie between them. `last` is when the last segment of an
            unbroken chain arrived; what was committed in it may be a little older.
        broken: a segment is missing behind `last`; the next base backup starts anew.
    """

    base: BaseBackup
    first: datetime
    last: datetime
    broken: bool


def record_bases(store: ObjectStore, stanza: str, backups: Iterable[BaseBackup]) -> None:
    """Write an object for every base backup, and remove those of backups that pgBackRest has removed."""
    wanted = {f"{BASES}{stanza}/{backup.label}.json": backup for backup in backups}
    present = {found.key for found in store.list(f"{BASES}{stanza}/")}
    for key in sorted(wanted.keys() - present):
        store.put_bytes(key, json.dumps(_plain(wanted[key]), indent=1).encode())
    store.delete_many(sorted(present - wanted.keys()))


def read_bases(store: ObjectStore, stanza: str) -> list[BaseBackup]:
    """Read the recorded base backups that are still whole, oldest first.

    Raises:
        RecordDamaged: a record is not what `record_bases` wrote.
    """
    labels = {
        found.key.rstrip("/").rpartition("/")[2]
        for found in store.list(f"{REPOSITORY}backup/{stanza}/", "/")
        if found.is_prefix
    }
    found = [_base(store, entry.key) for entry in store.list(f"{BASES}{stanza}/")]
    whole = [
        base
        for base in found
        if base.label in labels and store.exists(f"{REPOSITORY}backup/{stanza}/{base.label}/backup.manifest")
    ]
    return sorted(whole, key=lambda base: base.stopped)


def reach_of(store: ObjectStore, stanza: str) -> list[Reach]:
    """Read how far the WAL leads from each base backup, oldest first."""
    bases = read_bases(store, stanza)
    arrivals = {
        archive: wal_arrivals(
            (found.key, datetime.fromisoformat(found.modified).timestamp())
            for found in store.list(f"{REPOSITORY}archive/{stanza}/{archive}/")
        )
        for archive in {base.archive_id for base in bases}
    }
    return [reach(base, arrivals[base.archive_id]) for base in bases]


def wal_arrivals(objects: Iterable[tuple[str, float]]) -> dict[int, float]:
    """Group WAL by position: number of the segment, whatever its timeline, and when it arrived (Unix time).

    After a failover the same position may be there on two timelines; one of them is what is needed.
    """
    arrived: dict[int, float] = {}
    for key, modified in objects:
        if name := _WAL.search(key):
            number = segment_number(name["name"])
            arrived[number] = max(modified, arrived.get(number, 0.0))
    return arrived


def segment_number(name: str) -> int:
    """The position of a WAL segment, counted in segments, from its name of 24 hexadecimal digits."""
    return int(name[8:16], 16) * _SEGMENTS_OF_A_LOG + int(name[16:24], 16)


def reach(base: BaseBackup, arrived: dict[int, float]) -> Reach:
    """Follow the WAL from a base backup to the first segment that is not there."""
    number, last = segment_number(base.wal_start), (base.stopped + timedelta(seconds=1)).timestamp()
    while number in arrived:
        last = max(last, arrived[number])
        number += 1
    broken = any(other > number for other in arrived)
    # The end is known to the second; a time within that second may lie before it.
    return Reach(base, base.stopped + timedelta(seconds=1), datetime.fromtimestamp(last, UTC), broken)


def _plain(backup: BaseBackup) -> dict[str, object]:
    times = {"started": backup.started.isoformat(), "stopped": backup.stopped.isoformat()}
    return {**asdict(backup), **times}


def _base(store: ObjectStore, key: str) -> BaseBackup:
    try:
        plain = json.loads(store.get_bytes(key))
        times = {name: datetime.fromisoformat(plain[name]) for name in ("started", "stopped")}
        return BaseBackup(**{**plain, **times})
    except (ValueError, TypeError, KeyError):
        raise RecordDamaged(
            "The record of a base backup is not readable.",
            where=store.where(key),
            meaning="Which times can be restored cannot be told; the base backup itself may be whole.",
            remedy="Delete this object and run base-backup: it writes the missing records again.",
        ) from None
