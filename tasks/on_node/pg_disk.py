"""Part of node programs: a cluster's data directory, its processes and the files that decide its role.

Joined with the program that uses it by `tasks.node_source`; Python 3.6, standard library only.
"""

import os
import pwd
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from tasks.on_node.files import make_directories, regular_bytes, write_file
from tasks.on_node.pg_control import control_text
from tasks.on_node.pg_processes import server_processes

ENGLISH = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
SHUT_DOWN = "shut down"


def write_durably(path: str, text: str, mode: int = 0o600, owner: str = "root") -> None:
    """Write a file so that a crash, also of the machine, leaves the old content or the new one."""
    make_directories(os.path.dirname(path), 0o700)
    write_file(path, text.encode("utf-8", "surrogateescape"), mode, ids_of(owner))


def ids_of(name: str) -> Tuple[int, int]:
    """Return a user's number and its group's."""
    user = pwd.getpwnam(name)
    return user.pw_uid, user.pw_gid


def text_to_change(path: str) -> str:
    """Return what a file holds that will be written again with some lines changed; empty when there is none.

    Through a link it would be the content of any file of the machine that its maker then owns.
    """
    return (regular_bytes(path) or b"").decode("utf-8", "surrogateescape")


def remove_durably(path: str) -> bool:
    """Remove a file if it is there; tell whether it was."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync_directory(os.path.dirname(path))
    return True


def sync_directory(path: str) -> None:
    """Bring a directory's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def text_of(path: str) -> Optional[str]:
    """Return the content of a small file; None when there is none."""
    try:
        with open(path, errors="replace") as source:
            return source.read()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None


def control(p: Dict[str, Any], limit: float = 20) -> Dict[str, str]:
    """Read the control file as pg_controldata prints it, key by key; empty when there is none to be believed."""
    text = control_text(p["bin"], p["data"], limit)
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}


def seen(p: Dict[str, Any], limit: float = 20) -> Dict[str, Any]:
    """Summarise the control file for the answer of a program."""
    facts = control(p, limit)
    return {
        "cluster_state": facts.get("Database cluster state", "unreadable"),
        "sysid": facts.get("Database system identifier"),
        "checkpoint": facts.get("Latest checkpoint location"),
        "timeline": int(facts.get("Latest checkpoint's TimeLineID", "0")),
    }


def servers_in(data: str) -> List[int]:
    """List the server processes of a data directory; see `unknown_servers` for what this cannot tell."""
    return server_processes(data)[0]


def unknown_servers(data: str) -> str:
    """Say why it cannot be told that no server runs in a data directory; empty when it can.

    Whoever is about to write there, or to call it stopped, asks this too. A signal is for `servers_in` only: what
    is not known may be another cluster's.
    """
    unknown = server_processes(data)[1]
    if not unknown:
        return ""
    pids = ", ".join(map(str, unknown))
    return "process %s may be its server: its directory may not be read here (CAP_SYS_PTRACE, hidepid)" % pids


def postmaster_of(data: str) -> Optional[int]:
    """Return the postmaster's process id if postmaster.pid names a living server of this directory."""
    first = (text_of(data + "/postmaster.pid") or "").split("\n")[0].strip()
    return int(first) if first.isdigit() and int(first) in servers_in(data) else None


def postmaster_in(data: str) -> Optional[int]:
    """Find the postmaster among the processes alone: postmaster.pid may be on a disk that does not answer.

    Its children have a title of their own, `postgres: …`; an orphan of a dead postmaster is none.
    """
    for pid in servers_in(data):
        title = text_of("/proc/%d/cmdline" % pid) or ""
        if title and not title.startswith("postgres: "):
            return pid
    return None


def single_user(data: str) -> bool:
    """Tell whether a server works in the directory, and only one that recovers it and lets nobody in."""
    pids = servers_in(data)
    words = [(text_of("/proc/%d/cmdline" % pid) or "").split("\0") for pid in pids]
    return bool(pids) and all("--single" in each for each in words)


def up_s() -> float:
    """Return the seconds since the machine started; no setting of a clock moves them."""
    return float((text_of("/proc/uptime") or "").split()[0])


def age_of(pid: int) -> float:
    """Return for how many seconds a process has run, whatever the wall clock was set to meanwhile."""
    # The name, in parentheses, may hold spaces; the start is the 22nd field, in ticks since the machine's start.
    fields = (text_of("/proc/%d/stat" % pid) or "").rpartition(")")[2].split()
    return max(0.0, up_s() - int(fields[19]) / float(os.sysconf("SC_CLK_TCK")))


def attempt(against: List[str], what: str, act: Callable[[], Any]) -> bool:
    """Do what must not keep the rest from being done; when it fails, say so in `against`. Tell what it told.

    A full or read-only disk made the fence fail at its first file, before it had stopped anything.
    """
    try:
        return bool(act())
    except Exception as error:
        against.append("%s: %s" % (what, error))
        return False


def signal_all(pids: List[int], number: int) -> None:
    """Send a signal to processes of which some may be gone already."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def wait_gone(data: str, limit: float) -> bool:
    """Wait until no server process works in the directory; False when time is up."""
    deadline = time.monotonic() + limit
    while servers_in(data):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def set_start_conf(p: Dict[str, Any], word: str) -> bool:
    """Set Debian's start.conf (`auto`: started at boot, `manual`: not); comments stay. Tell if it changed.

    `systemctl disable` would not do: a generator makes the link again at each boot.
    """
    path = p["conf"] + "/start.conf"
    lines = text_to_change(path).splitlines()
    comments = [line for line in lines if not line.strip() or line.lstrip().startswith("#")]
    if [line.split()[0] for line in lines if line not in comments] == [word]:
        return False
    write_durably(path, "\n".join(comments + [word]) + "\n", 0o644, "postgres")
    return True


def set_standby_signal(p: Dict[str, Any]) -> bool:
    """Make whatever starts this directory start it as a standby; tell if that is new."""
    path = p["data"] + "/standby.signal"
    if os.path.exists(path):
        return False
    write_durably(path, "", 0o600, "postgres")
    return True
