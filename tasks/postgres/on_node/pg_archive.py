"""Part of node programs: the node's own WAL archive, and whose WAL it holds.

It lies on the node's own disk and is no backup. What it is good for: a former primary has dropped WAL from pg_wal
that a rewind, or the list of what only it had, still needs.
"""

import os
import re
import struct
import time
from typing import Any, Dict, List, Optional

from tasks.on_node.files import move, new_directory, opened_regular
from tasks.on_node.pg_disk import control, text_of
from tasks.postgres.on_node.pg_wal import forks_of, segment_name, segment_size

_SEGMENT = re.compile(r"^[0-9A-F]{24}(\.partial)?$")
# Of the header of a segment's first page: the system identifier stands behind the 24 bytes of a page's header.
_IDENTIFIER_AT = 24


def archived_segments(archive: str) -> List[str]:
    """Name the segments in the archive, oldest first of each timeline; empty when there is no archive."""
    try:
        return sorted(name for name in os.listdir(archive) if _SEGMENT.match(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def segment_owner(path: str) -> Optional[str]:
    """Return the system identifier of the database that wrote a segment; None when it does not say."""
    try:
        with opened_regular(path) as source:
            head = source.read(_IDENTIFIER_AT + 8)
    except OSError:
        return None
    return str(struct.unpack("=Q", head[_IDENTIFIER_AT:])[0]) if len(head) == _IDENTIFIER_AT + 8 else None


def set_archive_aside(archive: str, sysid: Optional[str]) -> Optional[str]:
    """Move an archive aside that holds another database's WAL; return where it is kept now.

    Whoever moves a data directory aside and begins anew leaves the archive where it is: the new database's first
    segment has the name of the old one's, is never written over it, and archiving fails for ever.

    Args:
        archive: the directory.
        sysid: system identifier of the database that archives there from now on.
    """
    owners = {segment_owner(archive + "/" + name) for name in archived_segments(archive)}
    if sysid is None or not owners - {None, sysid}:
        return None
    info = os.stat(archive)
    kept = "%s.kept.%s" % (archive, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    move(archive, kept)
    new_directory(archive, 0o700, (info.st_uid, info.st_gid))
    return kept


def archive_has_line(p: Dict[str, Any], timeline: int) -> bool:
    """Tell whether the archive's WAL of a timeline is the one that this data directory is on.

    A node that was promoted, lost and cloned since may have archived another timeline of the same number.
    """
    if timeline <= 1:
        return True
    name = "%08X.history" % timeline
    archived, own = text_of(p["archive"] + "/" + name), text_of(p["data"] + "/pg_wal/" + name)
    if archived is None or own is None:
        return False
    return forks_of(archived, timeline) == forks_of(own, timeline)


def only_archived(p: Dict[str, Any], timeline: int, lsn: int) -> List[str]:
    """Name the segments of a timeline from a position on that pg_wal has dropped and the archive has, whole ones."""
    if not archive_has_line(p, timeline):
        return []
    first, sysid = segment_name(timeline, lsn, segment_size(p)), control(p).get("Database system identifier")
    names = [name for name in archived_segments(p["archive"]) if len(name) == 24]
    return [
        name
        for name in names
        if name[:8] == first[:8]
        and name >= first
        and not os.path.exists("%s/pg_wal/%s" % (p["data"], name))
        and segment_owner("%s/%s" % (p["archive"], name)) == sysid
    ]
