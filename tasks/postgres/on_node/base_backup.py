"""Runs on a node: base backup beside the data directory, verified, swapped in; nothing is removed before."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from tasks.on_node.authority import begun, still_mine
from tasks.on_node.files import lock_file, make_directories, move, new_directory, remove_tree, write_file
from tasks.on_node.pg_disk import ids_of, servers_in, unknown_servers, wait_gone, write_durably
from tasks.postgres.on_node.pg_archive import set_archive_aside


def as_postgres(argv: List[str], limit: float) -> "subprocess.CompletedProcess[bytes]":
    """Run a program of PostgreSQL as its user."""
    return subprocess.run(
        ["runuser", "-u", "postgres", "--"] + argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=limit,
        cwd="/",
    )


def problem(text: str, remedy: str) -> Dict[str, Any]:
    """Say what went wrong; nothing was swapped."""
    return {"problem": text, "remedy": remedy}


def backup(p: Dict[str, Any]) -> Dict[str, Any]:
    """Copy, verify, swap."""
    data, new = p["data"], p["data"] + ".new"
    against = in_use(data)
    if against:
        # Before the copy, which takes hours; and by its processes: a power cut leaves a postmaster.pid behind.
        return problem(against, "Stop the server of %s, then run again." % data)
    if os.path.ismount(data):
        # "Device or resource busy", after the whole copy.
        return problem(
            "%s is a mount point, and cannot be replaced by the copy." % data,
            "Mount the disk above it: stop the server, move the files into a directory on the disk, mount that.",
        )
    parent = os.path.dirname(data)
    make_directories(parent, 0o755)
    remove_tree(new)
    free = shutil.disk_usage(parent).free
    if free < p["needed_bytes"]:
        return problem(
            "%s has %d MB free and the copy needs %d MB." % (parent, free >> 20, p["needed_bytes"] >> 20),
            "Make room; a copy beside the old directory is what makes this step safe.",
        )
    postgres = ids_of("postgres")
    new_directory(new, 0o700, postgres)
    # host= given again wins over the one in the string: the copy comes from the primary that was observed.
    argv = [
        p["bin"] + "/pg_basebackup",
        "-D",
        new,
        "-d",
        "%s host=%s port=%s" % (p["conninfo"], p["primary"], p["port"]),
    ]
    argv += ["-w", "-X", "stream", "-S", p["slot"], "--checkpoint=fast"]
    done = as_postgres(argv, p["limit_s"])
    if done.returncode != 0:
        return problem(
            "pg_basebackup failed: " + done.stdout.decode("utf-8", "replace")[-1500:].strip(),
            "Read the message; run again.",
        )
    done = as_postgres([p["bin"] + "/pg_verifybackup", "-q", new], p["limit_s"])
    if done.returncode != 0:
        return problem(
            "The copy is not whole: " + done.stdout.decode("utf-8", "replace")[-1500:].strip(), "Run again."
        )
    why = still_mine(p)
    if why:
        return {"outdated": why}
    return swap(p, new, postgres)


def in_use(data: str) -> Optional[str]:
    """Say that a server runs, or may run, in the data directory; None when none does."""
    running = servers_in(data)
    if running:
        return "A server runs in %s (process %s)." % (data, ", ".join(map(str, running)))
    unknown = unknown_servers(data)
    return "It cannot be told that no server runs in %s: %s." % (data, unknown) if unknown else None


def swap(p: Dict[str, Any], new: str, owner: Tuple[int, int]) -> Dict[str, Any]:
    """Make the copy a standby and the data directory; return where the old one is kept."""
    data = p["data"]
    # ALTER SYSTEM of the primary would override the node's own conninfo and slot.
    for name in ("postgresql.auto.conf", "standby.signal"):
        write_file(os.path.join(new, name), b"", 0o600, owner)
    subprocess.run(["sync", "-f", new], timeout=600, check=True)
    kept = None
    if os.path.exists(data):
        subprocess.run(["systemctl", "stop", p["unit"]], timeout=120)
        wait_gone(data, 5.0)
        against = in_use(data)
        if against:
            return problem(
                against + " It was started during the copy.", "Find out who started it, then run again."
            )
        if os.listdir(data):
            kept = "%s.kept.%s" % (data, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
            move(data, kept)
        else:
            os.rmdir(data)
    # The record first: a directory without one would be taken for a foreign database after a crash here.
    write_durably(p["record"], p["record_text"])
    move(new, data)
    return {"kept": kept, "archive_kept": set_archive_aside(p["archive"], p["sysid"])}


def alone(p: Dict[str, Any]) -> Dict[str, Any]:
    """Keep a second copy and a rewind out, which write to the same directories."""
    with lock_file(p["state_dir"] + "/.rewind.lock") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return problem("Another copy or rewind is running on it.", "Wait for it, then run again.")
        return backup(p)


if __name__ == "__main__":
    print(json.dumps(begun(json.load(sys.stdin), alone)))
