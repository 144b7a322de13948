"""Runs on a node before PostgreSQL starts: a former primary must not come back as a second one.

Exit status 0 lets the start go on; 1 makes systemd skip it, without calling it a failure.
"""

import json
import os
import sys
import time

from tasks.guard.on_node.guard_look import CONFIG, accepted, ask_all, local
from tasks.guard.on_node.guard_rules import SILENT, STARTING, may_start
from tasks.on_node.pg_disk import text_of

# A peer that boots at the same time is given this long to say what it is.
PATIENCE_S = 8.0


def judge(instance: str) -> int:
    """Decide for one instance of postgresql@.service and say why, for the journal."""
    text = text_of(CONFIG)
    if text is None:
        print("not a node of a site: no %s" % CONFIG)
        return 0
    p = json.loads(text)
    if p["unit"] != "postgresql@%s.service" % instance:
        return 0
    if os.path.exists(p["data"] + "/standby.signal"):
        return 0
    here = local(p)
    if here is None:
        return 0
    try:
        known = accepted(p)
    except ValueError as error:
        print("refused: accepted.json cannot be read: %s" % error)
        return 1
    deadline = time.monotonic() + PATIENCE_S
    peers = ask_all(p)
    while any(peer.state in (SILENT, STARTING) for peer in peers) and time.monotonic() < deadline:
        time.sleep(0.5)
        peers = ask_all(p)
    allowed, why = may_start(here, known, peers)
    print("%s: %s" % ("allowed" if allowed else "refused", why))
    return 0 if allowed else 1


if __name__ == "__main__":
    sys.exit(judge(sys.argv[1]))
