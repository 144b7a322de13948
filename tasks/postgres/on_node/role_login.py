"""Runs on a node: try every role's password over TCP, list the roles whose password is refused."""

import json
import os
import subprocess
import sys
from typing import Any, Dict, List


def refused(p: Dict[str, Any]) -> List[str]:
    """Return the names of the roles that the server does not let in."""
    names = []
    for user, password, database in p["roles"]:
        argv = ["psql", "-XAtq", "-w", "-h", p["host"], "-p", p["port"], "-U", user, "-d", database]
        done = subprocess.run(
            argv + ["-c", "SELECT 1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=15,
            env=dict(os.environ, PGPASSWORD=password, PGCONNECT_TIMEOUT="5"),
        )
        if done.returncode != 0 and b"authentication failed" in done.stderr:
            names.append(user)
        elif done.returncode != 0:
            sys.exit(done.stderr.decode("utf-8", "replace"))
    return names


if __name__ == "__main__":
    print(json.dumps(refused(json.load(sys.stdin))))
