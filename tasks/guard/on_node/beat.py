"""Part of the durability service: the primary tells on the NAS that it lives.

For who rebuilds the site elsewhere, from a place that is cut off from both nodes: it can see that what it takes for
lost is alive.
"""

import json
import os
import threading
import time
from typing import Any, Dict, Optional

from tasks.on_node.files import make_directories, write_file
from tasks.on_node.pg_disk import postmaster_of, up_s

BEAT_S = 10.0


class Beat:
    """Writes beside the service's own work: a NAS that hangs keeps one thread, and nothing else."""

    def __init__(self) -> None:
        self.thread: Optional[threading.Thread] = None
        self.told_at: Optional[float] = None

    def pulse(self, p: Dict[str, Any]) -> None:
        """Tell it, if that is due and the last time has come to its end."""
        due = self.told_at is None or time.monotonic() - self.told_at >= BEAT_S
        if not due or not p.get("nas_path") or (self.thread is not None and self.thread.is_alive()):
            return
        if postmaster_of(p["data"]) is None or os.path.exists(p["data"] + "/standby.signal"):
            return
        self.told_at = time.monotonic()
        self.thread = threading.Thread(target=tell, args=(p,), daemon=True)
        self.thread.start()


def tell(p: Dict[str, Any]) -> None:
    """Write the sign of life, if the NAS is mounted; what keeps it from being written troubles nobody."""
    directory = "%s/.harbor-ha/%s" % (p["nas_path"], p["site"])
    text = json.dumps({"node": p["node"], "up_s": up_s()}, sort_keys=True) + "\n"
    try:
        if os.path.ismount(p["nas_path"]):
            make_directories(directory, 0o700)
            write_file(directory + "/alive.json", text.encode(), 0o600)
    except OSError as error:
        print("no sign of life on the NAS: %s" % error, flush=True)
