"""Runs on a node: wait for a rewind or a copy that an orchestrator's killed process left running.

What it is about to write would land in whatever directory stands under the cluster's path by then.
"""

import fcntl
import json
import sys
import time
from typing import Any, Dict

from tasks.on_node.files import lock_file


def wait(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the seconds waited, and whether it still runs."""
    begun = time.monotonic()
    with lock_file(p["state_dir"] + "/.rewind.lock") as guard:
        while True:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return {"waited_s": time.monotonic() - begun, "busy": False}
            except BlockingIOError:
                if time.monotonic() - begun > p["limit_s"]:
                    return {"waited_s": p["limit_s"], "busy": True}
                time.sleep(0.1)


if __name__ == "__main__":
    json.dump(wait(json.load(sys.stdin)), sys.stdout)
