"""Runs on a node: put the guard's files and services in place; touches only what differs."""

import json
import os
import sys
from typing import Any, Dict, List

from tasks.on_node.files import make_directories
from tasks.on_node.pg_disk import text_of, write_durably
from tasks.on_node.pg_run import systemctl


def install(p: Dict[str, Any]) -> Dict[str, List[str]]:
    """Return the files that were written and the services that were started or restarted."""
    written = []
    for path, (text, mode) in sorted(p["files"].items()):
        if text_of(path) != text or os.stat(path).st_mode & 0o777 != mode:
            make_directories(os.path.dirname(path), 0o755)
            write_durably(path, text, mode)
            written.append(path)
    units = [path for path in written if path.startswith("/etc/systemd/")]
    if units:
        systemctl("daemon-reload")
    started = []
    for service, program in sorted(p["services"].items()):
        if (
            systemctl("is-active", service) != "active"
            or program in written
            or any(service in u for u in units)
        ):
            systemctl("enable", service)
            systemctl("restart", service)
            started.append(service)
    return {"written": written, "started": started}


if __name__ == "__main__":
    json.dump(install(json.load(sys.stdin)), sys.stdout)
