"""Runs on a former primary, stopped: list the commits behind the point where the new primary left its history."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Set

from tasks.on_node.files import make_directories, remove_tree
from tasks.on_node.pg_disk import (
    ENGLISH,
    control,
    remove_durably,
    servers_in,
    text_of,
    unknown_servers,
    write_durably,
)
from tasks.postgres.on_node.pg_archive import only_archived
from tasks.postgres.on_node.pg_wal import (
    first_gap,
    lsn_of,
    own_timeline,
    same_line,
    segment_size,
    segments_from,
    switchpoint,
)

_RECORD = re.compile(r"^rmgr: (\w+)\s.*?\btx:\s*(\d+), lsn: ([0-9A-F]+/[0-9A-F]+),.*?desc: (.*)$")
_COMMIT = re.compile(r"^COMMIT(?:_PREPARED (\d+):)? (\d{4}-\S+ \S+ \w+)")
_SUBXACTS = re.compile(r"subxacts: ([\d ]+)")
_RELATION = re.compile(r"blkref #\d+: rel (\d+/\d+/\d+)")
# Relations of the catalog have lower numbers; every DDL touches a dozen of them.
_FIRST_USER_OBJECT = 16384
KEPT = 1000


def lost(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the commits, or why they cannot be known, and in `earlier` what rejoins before this one have not told."""
    result = own(p)
    return dict(result, earlier=earlier(p, result))


def own(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return what this operation found; its first answer is kept, and counts. `kept` is false where there is none."""
    kept = text_of(result_path(p))
    if kept is not None:
        return dict(json.loads(kept), stored=True)
    if p["kept_only"]:
        return dict(unknown("the rejoin that was interrupted kept no list"), kept=False)
    if servers_in(p["data"]):
        return unknown("a server runs on it")
    if unknown_servers(p["data"]):
        return unknown(unknown_servers(p["data"]))
    result = found(p)
    write_durably(result_path(p), json.dumps(result) + "\n")
    if result["total"] or not result["known"]:
        note_untold(p, result["total"])
    return result


def earlier(p: Dict[str, Any], result: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Return what other rejoins of this node found and no report has told.

    One that was killed after its rewind, and whose record another operation took over, left its list, and nobody read
    it: the next rejoin said that nothing was lost. What can be found once more is in `result`.
    """
    lists = []
    for operation in sorted(set(untold(p)) - {p["operation"]}):
        kept = kept_by(p, operation)
        same = (kept.get("timeline"), kept.get("from")) == (result.get("timeline"), result.get("from"))
        again = same and result["known"] and kept["known"] and kept["total"] <= result["total"]
        if not again:
            lists.append(kept)
    return lists


def untold(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the rejoins of which no report is known to have told, with the number of commits that each found."""
    try:
        noted = json.loads(text_of(untold_path(p)) or "{}")
    except ValueError:
        return {}
    listed = noted.get("operations") if isinstance(noted, dict) else None
    return listed if isinstance(listed, dict) else {}


def note_untold(p: Dict[str, Any], total: int) -> None:
    """Note that a report has to tell of this list; before the rewind, after which nothing else knows of it."""
    operations = dict(untold(p), **{p["operation"]: total})
    write_durably(untold_path(p), json.dumps({"operations": operations}) + "\n")


def untold_path(p: Dict[str, Any]) -> str:
    """Return the state file that every look at the node sees."""
    return "%s/untold.json" % p["state_dir"]


def kept_by(p: Dict[str, Any], operation: str) -> Dict[str, Any]:
    """Read what a rejoin found; what cannot be read cannot be known."""
    path = result_path(dict(p, operation=operation))
    try:
        kept = json.loads(text_of(path) or "")
        return kept if isinstance(kept, dict) else unknown("%s holds no object" % path)
    except ValueError:
        return unknown("%s cannot be read" % path)


def found(p: Dict[str, Any]) -> Dict[str, Any]:
    """Look into the data directory of a server that does not run."""
    timeline = own_timeline(p)
    if not timeline:
        return unknown("it has no database to look into")
    if timeline == p["primary_timeline"]:
        return on_the_primarys_timeline(p, timeline)
    fork = switchpoint(p, timeline)
    if fork is None:
        return unknown("its timeline %d is no ancestor of the primary's" % timeline)
    if not same_line(p, timeline):
        return unknown("its timeline %d is not the one that the primary's history names" % timeline)
    wal, size = p["data"] + "/pg_wal", segment_size(p)
    archived = only_archived(p, timeline, lsn_of(fork))
    names = sorted(segments_from(wal, timeline, lsn_of(fork), size) + archived)
    if not names:
        # A clean stop before the segment of the switchpoint was begun leaves nothing behind it.
        return unknown("its WAL from %s on is not there any more" % fork)
    gap = first_gap(names, timeline, lsn_of(fork), size)
    if gap is not None:
        # pg_waldump reads nothing at all then, and nothing found is not nothing lost.
        return unknown("its WAL segment %s is not there any more" % gap)
    with together(p, wal, archived) as directory:
        result = collect(p, directory, timeline, fork)
    written = last_checkpoint(p, timeline)
    if result["known"] and lsn_of(result["to"]) < lsn_of(written):
        why = "its WAL cannot be read beyond %s, and it wrote up to %s at the least" % (result["to"], written)
        return dict(unknown(why), commits=result["commits"], total=result["total"])
    return result


def on_the_primarys_timeline(p: Dict[str, Any], timeline: int) -> Dict[str, Any]:
    """Say that nothing was lost only of a standby of this very timeline that is not beyond the primary."""
    facts = control(p)
    if not same_line(p, timeline):
        return unknown("both are on a timeline %d, and they are two" % timeline)
    if facts.get("Database cluster state") not in ("shut down in recovery", "in archive recovery"):
        return unknown("both were primaries on timeline %d" % timeline)
    end = facts.get("Minimum recovery ending location", "0/0")
    if lsn_of(end) > lsn_of(p["primary_lsn"]):
        return unknown("its WAL reaches to %s, beyond the primary's %s" % (end, p["primary_lsn"]))
    return {"known": True, "commits": [], "total": 0, "timeline": timeline, "from": None, "to": None}


@contextlib.contextmanager
def together(p: Dict[str, Any], wal: str, archived: List[str]) -> Iterator[str]:
    """Give one directory with all of the WAL, as pg_waldump wants it: links, where the archive has some of it."""
    if not archived:
        yield wal
        return
    linked = "%s/diverged/%s.wal" % (p["state_dir"], p["operation"])
    remove_tree(linked)
    make_directories(linked, 0o700)
    try:
        for directory, names in ((wal, os.listdir(wal)), (p["archive"], archived)):
            for name in names:
                os.symlink(directory + "/" + name, linked + "/" + name)
        yield linked
    finally:
        remove_tree(linked)


def last_checkpoint(p: Dict[str, Any], timeline: int) -> str:
    """Return the position of the last checkpoint, if it was on the timeline; a server wrote that far at the least."""
    facts = control(p)
    same = facts.get("Latest checkpoint's TimeLineID") == str(timeline)
    return facts.get("Latest checkpoint location", "0/0") if same else "0/0"


def result_path(p: Dict[str, Any]) -> str:
    """Return the file in which the answer outlives the rewind or clone, which removes what it comes from."""
    return "%s/diverged/%s.commits.json" % (p["state_dir"], p["operation"])


def unknown(why: str) -> Dict[str, Any]:
    """Say plainly that it cannot be known."""
    return {"known": False, "why": why, "commits": [], "total": 0}


def collect(p: Dict[str, Any], wal: str, timeline: int, fork: str) -> Dict[str, Any]:
    """Read the WAL record by record; transactions that did not commit lost nothing that was acknowledged."""
    touched: Dict[str, Set[str]] = {}
    commits: List[Dict[str, Any]] = []
    total, last, deadline = 0, fork, time.monotonic() + p["limit_s"]
    for line in waldump(p, wal, timeline, fork):
        record = _RECORD.match(line)
        if record is None:
            continue
        manager, xid, last, description = record.groups()
        if manager in ("Heap", "Heap2") and xid != "0":
            rels = touched.setdefault(xid, set())
            rels.update(r for r in _RELATION.findall(line) if int(r.split("/")[2]) >= _FIRST_USER_OBJECT)
        commit = _COMMIT.match(description) if manager == "Transaction" else None
        if commit is not None:
            total += 1
            if len(commits) < KEPT:
                commits.append(described(commit, xid, description, touched))
        if time.monotonic() > deadline:
            return dict(unknown("reading the WAL took too long"), commits=commits, total=total)
    return {
        "known": True,
        "commits": commits,
        "total": total,
        "timeline": timeline,
        "from": fork,
        "to": last,
    }


def described(commit: Any, xid: str, description: str, touched: Dict[str, Set[str]]) -> Dict[str, Any]:
    """Describe one commit with all that it and its subtransactions touched."""
    main = commit.group(1) or xid
    subs: Optional[Any] = _SUBXACTS.search(description)
    relations: Set[str] = set()
    for number in [main] + (subs.group(1).split() if subs else []):
        relations |= touched.pop(number, set())
    return {"at": commit.group(2), "xid": int(main), "relations": sorted(relations)}


def waldump(p: Dict[str, Any], wal: str, timeline: int, fork: str) -> Iterator[str]:
    """Yield the records; the end of the log is an error to pg_waldump, so its status says nothing."""
    argv = [p["bin"] + "/pg_waldump", "-p", wal, "-t", str(timeline), "-s", fork]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENGLISH, cwd="/"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield line.decode("utf-8", "replace").rstrip("\n")
        finally:
            process.kill()


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump({"told": remove_durably(untold_path(given))} if given.get("told") else lost(given), sys.stdout)
