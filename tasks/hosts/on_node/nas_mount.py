"""Runs on a node: make sure that the NAS is mounted, now and after a reboot."""

import json
import subprocess
import sys
from typing import Any, Dict

from tasks.on_node.files import make_directories, write_file


def mounted(path: str) -> bool:
    """Whether something is mounted exactly there."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as source:
        return any(line.split()[4] == path for line in source)


def mount(p: Dict[str, Any]) -> Dict[str, Any]:
    """Add the fstab entry if it is missing and mount."""
    path = p["path"]
    if not p["source"]:
        if mounted(path):
            return {"changed": False}
        return {"problem": "Nothing is mounted on %s and nas.source is not set." % path}
    changed = False
    entry = "%s %s %s %s,_netdev 0 0" % (p["source"], path, p["type"], p["options"])
    with open("/etc/fstab", encoding="utf-8", errors="surrogateescape") as source:
        table = source.read()
    others = [line for line in table.splitlines() if line.split()[1:2] == [path] and not line.startswith("#")]
    if others and others != [entry]:
        # Its options may hold a password.
        return {
            "problem": "/etc/fstab has another entry for %s: %s" % (path, " ".join(others[0].split()[:3]))
        }
    if not others:
        write_file(
            "/etc/fstab", (table.rstrip("\n") + "\n" + entry + "\n").encode("utf-8", "surrogateescape"), 0o644
        )
        changed = True
    if not mounted(path):
        make_directories(path, 0o755)
        done = subprocess.run(["mount", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        if done.returncode != 0 or not mounted(path):
            return {"problem": "mount %s failed: %s" % (path, done.stdout.decode("utf-8", "replace").strip())}
        changed = True
    return {"changed": changed}


if __name__ == "__main__":
    print(json.dumps(mount(json.load(sys.stdin))))
