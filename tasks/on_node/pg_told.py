"""Part of node programs: a standby that was told to promote itself says so to whoever asks it.

It still answers as a standby for as long as it replays, 40 s in the history that taught us this: the old primary was
switched on within them, asked, found nothing against it, and took clients' writes until the other one was a primary.
A request is not taken back but by a start of the server, so what is said names the start that it was made to.
"""

import os
import signal
import time
from typing import Any, Dict

from tasks.on_node.pg_disk import postmaster_of, write_durably
from tasks.on_node.pg_run import Failed, psql

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


def says_told(p: Dict[str, Any]) -> bool:
    """Tell whether whoever asks this server is told so."""
    try:
        return psql(p, "SELECT %s;" % TOLD) == "t"
    except Failed:
        return False
