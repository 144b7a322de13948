"""What the programs on a node share: every command has a time limit, every wait a condition."""

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from tasks.on_node.files import lock_file, make_directories, write_file

STATE_DIR = "/var/lib/harbor-ha"


def payload() -> Any:
    """Read what the orchestrator sent."""
    return json.load(sys.stdin)


def reply(answer: Any) -> None:
    """Send the program's answer to the orchestrator."""
    json.dump(answer, sys.stdout)


def clean_environment() -> Dict[str, str]:
    """Give the environment that Harbor's scripts are safe in.

    A variable `host` rewrites the hostname in harbor.yml, HARBOR_BUNDLE_DIR moves prepare's directories, and
    tput aborts without a TERM.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    kept.update({"TERM": "dumb", "LC_ALL": "C"})
    for name, value in os.environ.items():
        if name.lower() in ("http_proxy", "https_proxy", "no_proxy"):
            kept[name] = value
    return kept


def run(argv: List[str], timeout: float, cwd: Optional[str] = None) -> Tuple[int, str, str]:
    """Run a command; status, output, error output. 127: there is no such command; 124: it was late."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            cwd=cwd,
            env=clean_environment(),
        )
    except FileNotFoundError as error:
        return 127, "", str(error)
    except subprocess.TimeoutExpired:
        return 124, "", f"not ended after {timeout:.0f} s"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def must(argv: List[str], timeout: float, cwd: Optional[str] = None) -> str:
    """Run a command that must succeed; its output. Ends the program when it fails."""
    status, out, err = run(argv, timeout, cwd)
    if status != 0:
        sys.exit(f"`{' '.join(argv)}` ended with status {status}: {last_words(out + err)}")
    return out


def last_words(said: str) -> str:
    """Give what a program said at its end; of a traceback (docker-compose is Python) only what it was raised for."""
    _, traceback, frames = said.rpartition("Traceback (most recent call last):")
    if traceback:
        said = "\n".join(line for line in frames.splitlines() if not line.startswith(" "))
    return said.strip()[-3000:]


def poll(condition: Callable[[], Any], timeout: float, interval: float = 0.05) -> Any:
    """Ask until the condition holds; its value, or None when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            return None
        time.sleep(interval)


def read(path: str) -> Optional[bytes]:
    """Read a file; None when there is none."""
    try:
        with open(path, "rb") as source:
            return source.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: str, data: bytes, mode: int, like: Optional[str] = None) -> bool:
    """Write a file atomically if it differs; whether it did. `like`: whose owner and mode it keeps."""
    if read(path) == data:
        return False
    info = os.stat(like) if like and os.path.exists(like) else None
    parent = os.path.dirname(path)
    make_directories(parent, 0o700 if parent == STATE_DIR else 0o755)
    owner = (info.st_uid, info.st_gid) if info else None
    write_file(path, data, info.st_mode & 0o7777 if info else mode, owner)
    return True


def fingerprint(*parts: Optional[bytes]) -> str:
    """Hash contents in order; a file that is missing differs from an empty one."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"-" if part is None else str(len(part)).encode() + b":" + part)
    return digest.hexdigest()


def state(name: str) -> Dict[str, Any]:
    """Read one of our own records on this node; empty when there is none."""
    try:
        found = json.loads((read(os.path.join(STATE_DIR, name)) or b"{}").decode("utf-8", "replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def record(name: str, content: Dict[str, Any]) -> None:
    """Write one of our own records on this node."""
    write(os.path.join(STATE_DIR, name), json.dumps(content, sort_keys=True).encode(), 0o600)


@contextlib.contextmanager
def alone(name: str, timeout: float) -> Iterator[None]:
    """Keep out, while the body runs, whoever asks for the same name on this node; ends the program when it is late.

    The kernel gives the lock back with the process that has it.
    """
    with lock_file(os.path.join(STATE_DIR, name)) as guard:
        if not poll(lambda: _locked(guard), timeout, 0.02):
            sys.exit(f"Another step works on this node's Harbor for more than {timeout:.0f} s.")
        yield


def _locked(guard: int) -> bool:
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def compose_command() -> List[str]:
    """Find compose: the plugin when the engine has it, as Harbor's own install.sh prefers since 2.5."""
    if run(["docker", "compose", "version"], 20)[0] == 0:
        return ["docker", "compose"]
    if run(["docker-compose", "version", "--short"], 20)[0] == 0:
        return ["docker-compose"]
    return sys.exit("There is neither `docker compose` nor `docker-compose` on this node.")
