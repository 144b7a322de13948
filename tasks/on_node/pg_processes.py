"""Part of node programs: which processes are the server of a data directory, and which cannot be told.

The working directory of another user's process is readable with CAP_SYS_PTRACE only; a container or a host with
hidepid withholds it, and "I cannot read it" was taken for "nothing runs": a hung server was reported stopped.
What cannot be read is judged by what else is known of it (postmaster.pid, its parent, its arguments, the shared
memory); what is still not known is unknown, and unknown is never "stopped".

Joined with the program that uses it by `tasks.node_program`; Python 3.6, standard library only.
"""

import os
from typing import Dict, List, Optional, Tuple


def server_processes(data: str) -> Tuple[List[int], List[int]]:
    """Look for the server processes of a data directory.

    A zombie has no working directory and is none; a shell that stands in the directory is none either.

    Args:
        data: the data directory.

    Returns:
        the processes that are its own, and those that run and may be its own (empty: it is known that there are
        no others).
    """
    directory = os.path.realpath(data)
    own: List[int] = []
    hidden: List[int] = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            cwd: Optional[str] = os.readlink("/proc/%d/cwd" % pid)
        except PermissionError:
            cwd = None
        except OSError:
            continue
        if cwd is not None and cwd != directory:
            continue
        name = proc_file(pid, "comm")
        # Of a zombie whose directory may not be read, only its state tells that it is none.
        if name is not None and name.startswith("postgres") and _stat_of(pid)[0] != "Z":
            (own if cwd else hidden).append(pid)
    main, segment = _postmaster_file(directory)
    if hidden:
        named, hidden = _by_what_else_is_known(hidden, main, directory)
        own = sorted(own + named)
    if not own and not hidden and main is not None and _lives_unseen(main, segment):
        hidden = [main]
    return own, sorted(hidden)


def proc_file(pid: int, name: str) -> Optional[str]:
    """Read a file of a process; None when it is gone or may not be read."""
    try:
        with open("/proc/%d/%s" % (pid, name), errors="replace") as source:
            return source.read()
    except OSError:
        return None


def _postmaster_file(directory: str) -> Tuple[Optional[int], str]:
    """Return the process id in postmaster.pid, and its line with key and id of the shared memory."""
    try:
        with open(directory + "/postmaster.pid", errors="replace") as source:
            lines = source.read().split("\n")
    except OSError:
        return None, ""
    first = lines[0].strip()
    return (int(first) if first.isdigit() else None), (lines[6] if len(lines) > 6 else "")


def _by_what_else_is_known(
    pids: List[int], main: Optional[int], directory: str
) -> Tuple[List[int], List[int]]:
    """Part processes with an unreadable directory into this server's and those that nothing is known of."""
    named: List[int] = []
    unknown: List[int] = []
    parents: Dict[int, int] = {pid: int(_stat_of(pid)[1]) for pid in pids}
    for pid in pids:
        if main is not None and main in (pid, parents[pid]):
            named.append(pid)
            continue
        # A backend does not name its directory; its postmaster does, unless that is dead.
        named_by = _directory_argument(pid) or _directory_argument(parents[pid])
        if named_by == directory:
            named.append(pid)
        elif named_by is None:
            unknown.append(pid)
    return named, unknown


def _stat_of(pid: int) -> List[str]:
    """Return state and parent of a process; `Z` and 0 of one that is gone."""
    fields = (proc_file(pid, "stat") or "").rpartition(")")[2].split()
    return fields[:2] if len(fields) > 1 else ["Z", "0"]


def _directory_argument(pid: int) -> Optional[str]:
    """Return the data directory that a postmaster was started with (`-D`), if it says one."""
    words = (proc_file(pid, "cmdline") or "").split("\0")
    for number, word in enumerate(words):
        if word == "-D" and number + 1 < len(words):
            return os.path.realpath(words[number + 1])
        if word.startswith("-D") and len(word) > 2:
            return os.path.realpath(word[2:])
    return None


def _lives_unseen(main: int, segment: str) -> bool:
    """Tell whether the server of a postmaster.pid may live although /proc shows no process of it (hidepid).

    Whoever lives holds the shared memory. Key and id must both match: an id alone is given out again after a
    reboot, as the process id is.
    """
    wanted = [int(word) for word in segment.split() if word.isdigit()]
    try:
        with open("/proc/sysvipc/shm", errors="replace") as source:
            rows = [line.split() for line in source.read().splitlines()[1:]]
    except OSError:
        rows = []
        wanted = []
    if len(wanted) != 2:
        return proc_file(main, "comm") is None and _exists(main)
    # The kernel prints the key with a sign.
    return any(
        [int(row[0]) & 0xFFFFFFFF, int(row[1])] == wanted and int(row[6]) > 0 for row in rows if len(row) > 6
    )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
