"""Part of node programs: WAL segments of one timeline, and which of them hold what diverged."""

import glob
import os
import re
from typing import Any, Dict, List, Optional, Tuple

from tasks.on_node.pg_disk import control, text_of

_CHECKPOINT_TIMELINE = "Latest checkpoint's TimeLineID"


def lsn_of(text: str) -> int:
    """Read a position as PostgreSQL prints it."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def segment_name(timeline: int, lsn: int, size: int) -> str:
    """Name the segment file that holds a position."""
    number, per_id = lsn // size, 0x100000000 // size
    return "%08X%08X%08X" % (timeline, number // per_id, number % per_id)


def own_timeline(p: Dict[str, Any]) -> int:
    """Return the timeline that a stopped cluster was last on.

    The control file names the one of the last checkpoint; a primary that crashed right after its own promotion
    shows the newer one by its history file only. A standby has files of timelines that it has only heard of.
    """
    facts = control(p)
    found = [int(facts.get(key, "0")) for key in (_CHECKPOINT_TIMELINE, "Min recovery ending loc's timeline")]
    was_standby = facts.get("Database cluster state", "") in ("shut down in recovery", "in archive recovery")
    for path in glob.glob(p["data"] + "/pg_wal/????????.history"):
        number = int(os.path.basename(path)[:8], 16)
        if number < p["primary_timeline"] or not was_standby:
            found.append(number)
    return max(found) if facts else 0


def switchpoint(p: Dict[str, Any], timeline: int) -> Optional[str]:
    """Return where the primary's history left a timeline; None when that is no ancestor of it."""
    for line in p["history"].splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0] == str(timeline):
            return str(fields[1])
    return None


def forks_of(history: str, below: int) -> List[Tuple[int, int]]:
    """List timelines below a number and where each was left, out of the text of a history file."""
    rows = [line.split() for line in history.splitlines()]
    found = [(int(row[0]), lsn_of(row[1])) for row in rows if len(row) >= 2 and row[0].isdigit()]
    return [fork for fork in found if fork[0] < below]


def same_line(p: Dict[str, Any], timeline: int) -> Optional[bool]:
    """Tell whether a timeline of this node is the one of that number in the primary's history.

    Two nodes that were promoted apart give their timelines the same number, and nothing but the histories tells
    them apart: 25 rows that only one of them had were "nothing was lost". None: the node's own history is not there.
    """
    if timeline <= 1:
        return True
    own = text_of("%s/pg_wal/%08X.history" % (p["data"], timeline))
    return None if own is None else forks_of(own, timeline) == forks_of(p["history"], timeline)


def segments_from(directory: str, timeline: int, lsn: int, size: int) -> List[str]:
    """List the segments of a timeline from a position on, oldest first."""
    first = segment_name(timeline, lsn, size)
    names = [name for name in os.listdir(directory) if re.match("^[0-9A-F]{24}(.partial)?$", name)]
    return sorted(name for name in names if name[:8] == first[:8] and name[:24] >= first)


def first_gap(names: List[str], timeline: int, lsn: int, size: int) -> Optional[str]:
    """Name the first segment that is missing between a position and the last of the segments; None: none is."""
    for number, name in enumerate(sorted({name[:24] for name in names}), lsn // size):
        expected = segment_name(timeline, number * size, size)
        if name != expected:
            return expected
    return None


def segment_size(p: Dict[str, Any]) -> int:
    """Return the bytes of a WAL segment."""
    return int(control(p).get("Bytes per WAL segment", str(16 << 20)))
