"""Part of node programs: what a node sees of its own cluster and of its peers."""

import glob
import hashlib
import json
import os
import socket
import threading
from typing import Any, Dict, List, Optional

from tasks.guard.on_node.guard_rules import (
    DOWN,
    PRIMARY,
    PROMOTED,
    SILENT,
    STANDBY,
    STARTING,
    TOLD_TO_PROMOTE,
    Local,
    Peer,
)
from tasks.on_node.pg_disk import control, text_of
from tasks.on_node.pg_run import Failed, as_postgres, run
from tasks.on_node.pg_told import TOLD

CONFIG = "/etc/harbor-ha/node.json"
# What a server says: whether it is in recovery, and whether it was told to promote itself since its start.
_ROLES = {"t|f": STANDBY, "t|t": TOLD_TO_PROMOTE, "f|f": PRIMARY, "f|t": PROMOTED}


def local(p: Dict[str, Any]) -> Optional[Local]:
    """Look at this node's cluster on disk; None when there is none.

    The control file names an old timeline until the first checkpoint after a promotion; a history file of
    its own shows the new one.
    """
    facts = control(p)
    if not facts:
        return None
    found = [int(facts.get("Latest checkpoint's TimeLineID", "0"))]
    found += [int(os.path.basename(f)[:8], 16) for f in glob.glob(p["data"] + "/pg_wal/????????.history")]
    signal = os.path.exists(p["data"] + "/standby.signal")
    return Local(p["node"], facts.get("Database system identifier", ""), max(found), signal)


def accepted(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Read which primary was accepted last; raises ValueError when that cannot be read."""
    return record_in(p["state_dir"] + "/accepted.json")


def shared_claim(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Read the NAS's copy of it, which a node finds that was off when the primary changed.

    May hang with the NAS: ask in a `Question`. Raises ValueError when it is damaged, OSError when unreadable.
    """
    return record_in(p["nas_accepted"]) if p.get("nas_accepted") else None


def gone_back(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Read what a restore to a point in time on this node went back behind; ValueError when that cannot be read."""
    return note_in(p["state_dir"] + "/restored.json")


def restored_site(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Read on the NAS which database the site was restored as; may hang with the NAS, like `shared_claim`."""
    return note_in(os.path.dirname(p["nas_accepted"]) + "/restored.json") if p.get("nas_accepted") else None


def pending_promotion(p: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Read on the NAS which node was told to promote itself last; may hang, and raises ValueError like the others."""
    if not p.get("nas_accepted"):
        return None
    found = note_in(os.path.dirname(p["nas_accepted"]) + "/promotion.json")
    if found is not None and not all(isinstance(found.get(key), int) for key in ("term", "from_timeline")):
        raise ValueError("promotion.json on the NAS has no term or timeline")
    return found


def note_in(path: str) -> Optional[Dict[str, Any]]:
    """Read a note; None when there is none. Raises ValueError when it is none of ours."""
    found = json.loads(text_of(path) or "null")
    if found is not None and not isinstance(found, dict):
        raise ValueError("%s holds no object" % path)
    return found


def record_in(path: str) -> Optional[Dict[str, Any]]:
    """Read a record of an acceptance; None when there is none. Raises ValueError when it is none of ours."""
    text = text_of(path)
    if text is None:
        return None
    found = json.loads(text)
    names = isinstance(found, dict) and isinstance(found.get("primary"), str)
    if not names or not isinstance(found.get("timeline"), int):
        raise ValueError("%s names no primary with its timeline" % path)
    record: Dict[str, Any] = found
    return record


def ask(p: Dict[str, Any], name: str, address: str, port: int) -> Peer:
    """Ask a peer's server what it is, over the network, as the replication role."""
    seen = reaches(address, port)
    if seen != "open":
        return Peer(name, DOWN if seen == "refused" else SILENT)
    words = "host=%s port=%d user=%s" % (address, port, p["replication_user"])
    conninfo = words + " dbname=postgres replication=database sslmode=require connect_timeout=2"
    argv = as_postgres([p["bin"] + "/psql", "-XAtqw", "-d", conninfo, "-f", "-"])
    try:
        # A replication session: it alone tells a standby's true timeline.
        asked = "IDENTIFY_SYSTEM;\nSELECT pg_is_in_recovery(), %s;\n" % TOLD
        lines = run(argv, 4, asked, {"PGPASSFILE": p["passfile"]}).splitlines()
        sysid, timeline = lines[0].split("|")[:2]
        return Peer(name, _ROLES[lines[1]], sysid, int(timeline))
    except (Failed, IndexError, KeyError, ValueError):
        return Peer(name, STARTING)


def ask_all(p: Dict[str, Any]) -> List[Peer]:
    """Ask every peer."""
    return [ask(p, name, address, port) for name, address, port in p["peers"]]


def in_touch(p: Dict[str, Any]) -> bool:
    """Ask all witnesses at once; one that answers is enough. A refusal comes from a living machine too."""
    seen: List[str] = []
    asked = [
        threading.Thread(target=lambda a=address, n=port: seen.append(reaches(a, n)), daemon=True)
        for _, address, port in p["peers"] + p["witnesses"]
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(2.0)
    return not asked or "open" in seen or "refused" in seen


def reaches(address: str, port: int) -> str:
    """Try a TCP connection: `open`, `refused` (the machine lives, the service does not) or `silent`."""
    try:
        socket.create_connection((address, port), timeout=1.0).close()
        return "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"


def read_config(path: str) -> Dict[str, Any]:
    """Read what the node needs to know; raises ValueError when it is not there or not whole."""
    found = json.loads(text_of(path) or "null")
    names = ("node", "data", "conf", "unit", "state_dir", "peers", "witnesses", "self_fence_s")
    if not isinstance(found, dict) or any(name not in found for name in names):
        raise ValueError("%s is not there or lacks something" % path)
    return found


def version_of(path: str) -> Optional[str]:
    """Hash this program's text; the orchestrator compares it with what it would install."""
    try:
        with open(path, "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()[:16]
    except OSError:
        return None
