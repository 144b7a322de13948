"""What pg_controldata says about a cluster on disk, running or not."""

from dataclasses import dataclass

from tasks.errors import HarborHaError
from tasks.on_node.pg_control import untrustworthy
from tasks.postgres.lsn import DEFAULT_SEGMENT, Lsn

SHUT_DOWN = "shut down"
SHUT_DOWN_IN_RECOVERY = "shut down in recovery"
IN_PRODUCTION = "in production"
IN_ARCHIVE_RECOVERY = "in archive recovery"


class ControlDataUnreadable(HarborHaError):
    """pg_controldata printed something else than a control file."""


@dataclass(frozen=True)
class ControlData:
    """The control file of a cluster.

    Attributes:
        system_identifier: drawn by initdb, equal on all copies of one cluster.
        state: `shut down`, `in production`, … as printed; a crash leaves the one before it.
        checkpoint: position of the latest checkpoint record.
        redo: where crash recovery would start.
        timeline: timeline of the latest checkpoint; stale after a promotion until the next checkpoint.
        min_recovery_end: how far a standby must replay before it is consistent; zero on a primary.
        min_recovery_timeline: the timeline of that position; zero on a primary.
        can_rewind: whether data checksums or wal_log_hints make pg_rewind possible.
        segment_size: bytes of a WAL segment.
    """

    system_identifier: str
    state: str
    checkpoint: Lsn
    redo: Lsn
    timeline: int
    min_recovery_end: Lsn
    min_recovery_timeline: int
    can_rewind: bool
    segment_size: int = DEFAULT_SEGMENT

    @property
    def shut_down_cleanly(self) -> bool:
        """Whether the server wrote its shutdown checkpoint as a primary."""
        return self.state == SHUT_DOWN

    @property
    def latest_timeline(self) -> int:
        """The highest timeline that the control file names."""
        return max(self.timeline, self.min_recovery_timeline)


def controldata(text: str) -> ControlData:
    """Parse what `LC_ALL=C pg_controldata` prints (PostgreSQL 13 to 18).

    Raises:
        ControlDataUnreadable: when a needed line is missing, naming all of them; or when the program itself says
            that what it prints cannot be trusted, which it does with status 0: timeline 254 was once taken for a fact.
    """
    if untrustworthy(text):
        raise ControlDataUnreadable(
            "pg_controldata says that its results are untrustworthy: the control file is damaged.",
            meaning="It is not known what this cluster is; nothing is decided by it.",
            remedy="Look at the disk; `rejoin` clones a standby anew, `disaster-restore` brings back a site.",
        )
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            # `Current wal_log_hints setting` was `wal_log_hints setting` in other versions.
            values[key.strip().removeprefix("Current ")] = value.strip()
    missing = [key for key in _NEEDED if key not in values]
    if missing:
        raise ControlDataUnreadable(
            f"pg_controldata did not print {', '.join(missing)}.",
            meaning="The control file is damaged, or the output is not in English.",
            remedy="Run pg_controldata on the node with LC_ALL=C and look at what it says.",
        )
    try:
        return _from_values(values)
    except ValueError as error:
        raise ControlDataUnreadable(
            f"pg_controldata printed a value that cannot be read: {str(error)[:100]}.",
            meaning="The control file is damaged, or another program answers by this name.",
            remedy="Run pg_controldata on the node with LC_ALL=C and look at what it says.",
        ) from error


_NEEDED = (
    "Database system identifier",
    "Database cluster state",
    "Latest checkpoint location",
    "Latest checkpoint's REDO location",
    "Latest checkpoint's TimeLineID",
    "Minimum recovery ending location",
    "Min recovery ending loc's timeline",
)


def _from_values(values: dict[str, str]) -> ControlData:
    segment = int(values.get("Bytes per WAL segment", str(DEFAULT_SEGMENT)))
    if segment <= 0 or segment & (segment - 1):
        # It divides positions: a zero was a ZeroDivisionError in the middle of a look.
        raise ValueError(f"a WAL segment of {segment} bytes")
    hints = values.get("wal_log_hints setting") == "on"
    checksums = values.get("Data page checksum version", "0") != "0"
    return ControlData(
        system_identifier=values["Database system identifier"],
        state=values["Database cluster state"],
        checkpoint=Lsn.parse(values["Latest checkpoint location"]),
        redo=Lsn.parse(values["Latest checkpoint's REDO location"]),
        timeline=int(values["Latest checkpoint's TimeLineID"]),
        min_recovery_end=Lsn.parse(values["Minimum recovery ending location"]),
        min_recovery_timeline=int(values["Min recovery ending loc's timeline"]),
        can_rewind=hints or checksums,
        segment_size=segment,
    )
