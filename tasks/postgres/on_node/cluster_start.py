"""Runs on a node: start the cluster, or bring a running one to the configuration on disk.

systemd's exit status proves nothing: Debian's unit hides a failed start. An answer to SQL does.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any, Dict, Optional, Tuple

from tasks.on_node.pg_log import log_since, log_size

PENDING = "SELECT count(*) FROM pg_settings WHERE pending_restart"
LOADED = "SELECT extract(epoch FROM pg_conf_load_time())"


def ask(p: Dict[str, Any], query: str) -> Optional[str]:
    """Return the one value of a query; None when the server does not answer."""
    argv = [
        "runuser",
        "-u",
        "postgres",
        "--",
        "psql",
        "-XAtq",
        "-p",
        p["port"],
        "-d",
        "postgres",
        "-c",
        query,
    ]
    env = dict(os.environ, PGCONNECT_TIMEOUT="3")
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, cwd="/", env=env)
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def systemctl(p: Dict[str, Any], *words: str) -> None:
    """Run systemctl on the cluster's unit; what it achieved is asked afterwards."""
    quiet = subprocess.DEVNULL
    subprocess.run(
        ["systemctl"] + list(words) + [p["unit"]], timeout=p["limit_s"], stdout=quiet, stderr=quiet
    )


def answers(p: Dict[str, Any]) -> bool:
    """Wait for the server to answer."""
    deadline = time.time() + p["limit_s"]
    while time.time() < deadline:
        if ask(p, "SELECT 1") == "1":
            return True
        time.sleep(0.1)
    return False


def start(p: Dict[str, Any]) -> Tuple[str, str]:
    """Return `running`, `started`, `reloaded`, `restarted` or `failed`, and what its log says on failure."""
    files = [p["conf"] + "/conf.d/10-harbor-ha.conf", p["conf"] + "/pg_hba.conf"]
    before = log_size(p["log"])
    newest = max(os.stat(path).st_mtime for path in files)
    loaded = ask(p, LOADED)
    if loaded is None:
        # Debian's pg_ctlcluster goes on polling for 2 s after the server answers; we ask it ourselves.
        systemctl(p, "start", "--no-block")
        return ("started", "") if answers(p) else ("failed", log_since(p["log"], before))
    if float(loaded) >= newest:
        return "running", ""
    systemctl(p, "reload")
    deadline = time.time() + 10
    while time.time() < deadline and float(ask(p, LOADED) or 0) < newest:
        time.sleep(0.05)
    if ask(p, PENDING) == "0":
        return "reloaded", ""
    systemctl(p, "restart")
    return ("restarted", "") if answers(p) else ("failed", log_since(p["log"], before))


if __name__ == "__main__":
    state, log = start(json.load(sys.stdin))
    print(json.dumps({"state": state, "log": log}))
