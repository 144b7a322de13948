"""Part of the probe: read small files and run programs, neither of which may keep it waiting."""

import os
import signal
import subprocess
from typing import Dict, List, Optional

from tasks.on_node.pg_control import untrustworthy

ENGLISH = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
STATE_FILE_LIMIT = 64 * 1024


def text_of(path: str) -> Optional[str]:
    """Return the content of a small file; None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(STATE_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None


def output_of(argv: List[str], limit: float, stdin: str = "", more: Optional[Dict[str, str]] = None) -> str:
    """Run a program; raise RuntimeError when it fails or is late. Never waits for what cannot be killed."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(ENGLISH, **(more or {})),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=limit)
    except subprocess.TimeoutExpired:
        # A process in uninterruptible sleep ignores even this; waiting for it would hang us as well.
        os.killpg(process.pid, signal.SIGKILL)
        raise RuntimeError("%s did not answer within %.0f s" % (os.path.basename(argv[0]), limit))
    if process.returncode != 0:
        raise RuntimeError((err or out).strip()[-500:] or "exit status %d" % process.returncode)
    if untrustworthy(out + err):
        raise RuntimeError("%s says that its results are untrustworthy" % os.path.basename(argv[0]))
    return out
