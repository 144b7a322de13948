"""Part of node programs: what a node knows of the database that it had before is no word about the next one.

A cluster that was created or restored on the site's own machine was never started: the node's record named another
primary, or a higher timeline, of the database that had been moved away; the mask of its fence stayed as well.
"""

import os
from typing import Any, Dict, Iterator, List

from tasks.on_node.authority import state_lock
from tasks.on_node.files import make_directories, move
from tasks.on_node.pg_disk import sync_directory, text_of
from tasks.on_node.pg_run import systemctl, unmask

# Of one database and its timelines. Term, lock, pause and who sees whom are the site's, and stay.
OF_ONE_DATABASE = (
    "accepted",
    "operation",
    "promotion",
    "last_primary",
    "heard",
    "durability",
    "rewind",
    "self_fence",
)


def set_former_aside(p: Dict[str, Any]) -> List[str]:
    """Set aside what belongs to the database before, and let systemd start a server again; return what was there.

    Before the next database has its record: whoever is killed in between comes here again.
    """
    with state_lock(p):
        found = list(_former(p))
        for number in range(1000):
            aside = "%s/former.%d" % (p["state_dir"], number)
            if not os.path.exists(aside):
                break
        for path in found:
            make_directories(aside, 0o700)
            move(path, "%s/%s" % (aside, os.path.basename(path)))
        if found:
            sync_directory(p["state_dir"])
        if unmask(p):
            found.append(str(p["unit"]))
            systemctl("daemon-reload")
        return found


def _former(p: Dict[str, Any]) -> Iterator[str]:
    for name in OF_ONE_DATABASE:
        path = "%s/%s.json" % (p["state_dir"], name)
        if text_of(path) is not None:
            yield path
