"""Runs on a node: can the NAS be mounted here? It is mounted somewhere else for a moment, and nothing stays."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from typing import Any, Dict

from tasks.hosts.on_node.nas_mount import mounted

NFS_PORT = 2049
LIMIT_S = 20


def try_nas(p: Dict[str, Any]) -> Dict[str, Any]:
    """Say what stands in the way of the NAS, if anything does."""
    if mounted(p["path"]):
        return {}
    if not p["source"]:
        return {"problem": "Nothing is mounted on %s." % p["path"]}
    if p["type"].startswith("nfs") and not shutil.which("mount.nfs"):
        return _door(p["source"].partition(":")[0])
    place = tempfile.mkdtemp(prefix="harbor-ha-nas-")
    try:
        limit = ["timeout", "--kill-after=2", str(LIMIT_S)]
        mount = ["mount", "-t", p["type"], "-o", p["options"], p["source"], place]
        done = subprocess.run(limit + mount, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode == 0:
            gone = subprocess.run(limit + ["umount", place]).returncode == 0
            return (
                {}
                if gone
                else {"problem": "%s was mounted on %s and does not go away." % (p["source"], place)}
            )
        late = "it was not mounted in %d s" % LIMIT_S
        said = done.stdout.decode("utf-8", "replace").strip()
        return {"problem": "%s cannot be mounted: %s" % (p["source"], said or late)}
    finally:
        # Fails while something is mounted there, and that is right.
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _door(server: str) -> Dict[str, Any]:
    """A bare machine has no NFS client yet: whether the server's door is open is all that can be seen."""
    try:
        socket.create_connection((server, NFS_PORT), timeout=5).close()
    except OSError as error:
        return {"problem": "%s does not answer on NFS's port %d: %s" % (server, NFS_PORT, error)}
    return {"seen": "%s answers on NFS's port" % server}


if __name__ == "__main__":
    print(json.dumps(try_nas(json.load(sys.stdin))))
