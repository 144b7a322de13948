"""Part of node programs: a standby that was told to promote itself says so to whoever asks it.

It still answers as a standby for as long as it replays, 40 s in the history that taught us this: the old primary was
switched on within them, asked, found nothing against it, and took clients' writes until the other one was a primary.
A request is not taken back but by a start of the server, so what is said names the start that it was made to.
"""

import json
import os
import signal
import time
from typing import Any, Dict

from tasks.on_node.authority import boot_id, state_of, uptime
from tasks.on_node.pg_disk import postmaster_of, remove_durably, text_of, write_durably
from tasks.on_node.pg_run import Failed, psql
from tasks.on_node.shared_copy import drop_shared, read_shared

_SETTING = "harbor_ha.told_to_promote"
_STARTED = "extract(epoch FROM pg_postmaster_start_time())::text"
# Compared for equality with what the server says of itself: no clock is judged, and a start forgets it.
TOLD = "coalesce(current_setting('%s', true) = %s, false)" % (_SETTING, _STARTED)
_TOLD_HEAD = "# Written by harbor-ha: the server that was started then was told to promote itself.\n"
# A reload takes some milliseconds. Whoever asks before sees what it saw before.
_RELOAD_S = 1.0


def told_path(p: Dict[str, Any]) -> str:
    """Return the path of our file; in conf.d, as the data directory's files travel to other nodes."""
    return str(p["conf"]) + "/conf.d/30-harbor-ha-told.conf"


def say_told(p: Dict[str, Any]) -> None:
    """Have this server say from now on that it was told to promote itself."""
    started = psql(p, "SELECT %s;" % _STARTED)
    write_durably(told_path(p), "%s%s = '%s'\n" % (_TOLD_HEAD, _SETTING, started), 0o644, "postgres")
    postmaster = postmaster_of(p["data"])
    if postmaster is not None:
        os.kill(postmaster, signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_S
    while time.monotonic() < deadline and not says_told(p):
        time.sleep(0.01)


def requested(p: Dict[str, Any], postmaster: int) -> bool:
    """Tell whether this very server was told to promote itself; a start forgets it."""
    note = state_of(p, "promotion")
    if note is None or note.get("void") or note.get("boot") != boot_id():
        return False
    return float(note["uptime"]) >= started(postmaster)


def started(pid: int) -> float:
    """Return when a process started, in seconds since the boot."""
    ticks = (text_of("/proc/%d/stat" % pid) or "").rpartition(")")[2].split()
    return float(ticks[19]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 19 else uptime()


def forget_request(p: Dict[str, Any]) -> None:
    """Take back a request that is void, here and on the NAS: whoever finds it there goes by it.

    While the NAS is away a void one stays here, and the guard comes back to it: left on the NAS, it would stop a sound
    primary as soon as its standby is lost.
    """
    path, note = p["state_dir"] + "/promotion.json", state_of(p, "promotion")
    if note is None:
        return
    if not note.get("void"):
        write_durably(path, json.dumps(dict(note, void=True), sort_keys=True) + "\n")
    if p.get("nas_path"):
        told = read_shared(p, "promotion")
        others = told is not None and told.get("node") != p["node"]
        if not others and not drop_shared(p, "promotion"):
            return
    remove_durably(path)


def says_told(p: Dict[str, Any]) -> bool:
    """Tell whether whoever asks this server is told so."""
    try:
        return psql(p, "SELECT %s;" % TOLD) == "t"
    except Failed:
        return False
