"""Part of node programs: small files on the NAS that every node can read, also one that is cut off from the others.

A dead NFS server blocks whoever touches it, in the kernel and for good. So each access is a process of its own
with a time limit, and what it does not say in time is not known. The NAS is a witness more, never a condition.
"""

import json
import subprocess
import sys
from typing import Any, Dict, Optional

SHARED_LIMIT_S = 2.0
# The mount point without its NAS is a directory of the node: what is written there nobody else sees.
_WRITE = """
import os, sys
volume, directory, name = sys.argv[1:4]
if not os.path.ismount(volume):
    sys.exit(1)
os.makedirs(directory, 0o700, exist_ok=True)
temporary = os.path.join(directory, ".%s.%d" % (name, os.getpid()))
handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
with os.fdopen(handle, "w") as target:
    target.write(sys.stdin.read())
    target.flush()
    os.fsync(target.fileno())
os.replace(temporary, os.path.join(directory, name))
"""
_DROP = """
import os, sys
volume, path = sys.argv[1:3]
if not os.path.ismount(volume):
    sys.exit(1)
if os.path.lexists(path):
    os.unlink(path)
"""
_ANSWERS = """
import os, sys
if not os.path.ismount(sys.argv[1]):
    sys.exit(1)
os.listdir(sys.argv[1])
"""
_READ = """
import os, sys
handle = os.open(sys.argv[1], os.O_RDONLY | os.O_NOFOLLOW)
with os.fdopen(handle) as source:
    sys.stdout.write(source.read(65536))
"""


def keep_shared(p: Dict[str, Any], name: str, text: str) -> bool:
    """Write `<name>.json` on the NAS; tell whether that worked. Without a NAS nothing is done."""
    if not p.get("nas_path"):
        return False
    return _limited(_WRITE, [p["nas_path"], directory_of(p), name + ".json"], text) is not None


def drop_shared(p: Dict[str, Any], name: str) -> bool:
    """Remove `<name>.json` from the NAS; tell whether it is gone."""
    path = "%s/%s.json" % (directory_of(p), name)
    return _limited(_DROP, [p["nas_path"], path], "") is not None


def read_shared(p: Dict[str, Any], name: str) -> Optional[Dict[str, Any]]:
    """Read `<name>.json` from the NAS; None when there is none, or it cannot be read in time."""
    if not p.get("nas_path"):
        return None
    text = _limited(_READ, ["%s/%s.json" % (directory_of(p), name)], "")
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def on_nas(p: Dict[str, Any], name: str) -> Optional[Dict[str, Any]]:
    """Return the NAS's copy of a file; None for one whose numbers are none: the NAS is a witness, and ends nothing."""
    found = read_shared(p, name)
    numbers = [] if found is None else [found.get(key) or 0 for key in ("term", "timeline")]
    return found if all(isinstance(number, int) for number in numbers) else None


def shared_answers(p: Dict[str, Any]) -> bool:
    """Tell whether a NAS is mounted and answers in time."""
    return bool(p.get("nas_path")) and _limited(_ANSWERS, [p["nas_path"]], "") is not None


def directory_of(p: Dict[str, Any]) -> str:
    """Return where the site keeps its own files on the NAS."""
    return "%s/.harbor-ha/%s" % (p["nas_path"], p["site"])


def _limited(program: str, words: Any, text: str) -> Optional[str]:
    process = subprocess.Popen(
        [sys.executable or "/usr/bin/python3", "-c", program] + list(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        out, _ = process.communicate(text.encode(), timeout=SHARED_LIMIT_S)
    except subprocess.TimeoutExpired:
        # Not waited for: a process that hangs in the kernel does not die before its file server answers.
        process.kill()
        return None
    return out.decode("utf-8", "replace") if process.returncode == 0 else None
