"""Keep a watcher running beside the process that serves the flows; it ends with it."""

import subprocess
import sys
import threading
from collections.abc import Sequence

RESTART_S = 2.0


def watch_beside(sites: Sequence[str], port: int) -> None:
    """Run `harbor-ha watch` for as long as this process lives, and start it again when it ends.

    A process of its own: what the runner is busy with must not make the watcher late.

    Args:
        sites: names of saved sites.
        port: where `/metrics` listens on loopback.
    """
    argv = [sys.executable, "-m", "deployments.cli", "watch", "--with-input", "--port", str(port)]
    for site in sites:
        argv += ["--site", site]
    threading.Thread(target=_keep_running, args=(argv, threading.Event()), daemon=True, name="watch").start()


def _keep_running(argv: Sequence[str], ended: threading.Event) -> None:
    while not ended.is_set():
        # Its input is a pipe of ours: the kernel closes it when we are gone, whatever killed us.
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
            process.wait()
        ended.wait(RESTART_S)
