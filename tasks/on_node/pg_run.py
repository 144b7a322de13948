"""Part of node programs: run programs, psql and systemctl; start the cluster and wait for its answer.

Joined with the program that uses it by `tasks.node_source`; Python 3.6, standard library only.
"""

import os
import pwd
import subprocess
import time
from typing import Any, Dict, List, Optional, Pattern

from tasks.on_node.pg_disk import ENGLISH, remove_durably, servers_in
from tasks.on_node.pg_log import log_since, log_size


class Failed(Exception):
    """A program failed; the text is what it said."""


def as_postgres(argv: List[str]) -> List[str]:
    """Prefix a command so that it runs as postgres; runuser would write to the log of logins each time."""
    if os.geteuid() != 0:
        return argv
    user = pwd.getpwnam("postgres")
    return ["setpriv", "--reuid=%d" % user.pw_uid, "--regid=%d" % user.pw_gid, "--init-groups"] + argv


def run(argv: List[str], limit: float, stdin: str = "", more: Optional[Dict[str, str]] = None) -> str:
    """Run a program and return its output.

    Raises:
        Failed: it failed, with what it said last; or it did not end in time and was killed.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(ENGLISH, **(more or {})),
        cwd="/",
    )
    try:
        out, err = process.communicate(stdin.encode(), timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failed("%s did not end within %.0f s" % (os.path.basename(argv[0]), limit))
    if process.returncode != 0:
        said = (err or out).decode("utf-8", "replace").strip()
        raise Failed(said[-1500:] or "exit status %d" % process.returncode)
    return out.decode("utf-8", "replace")


def psql_argv(p: Dict[str, Any], database: str = "postgres") -> List[str]:
    """Build the command that runs SQL from its input on the node's own server."""
    argv = [p["bin"] + "/psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", p["socket_dir"]]
    return as_postgres(argv + ["-p", p["port"], "-d", database, "-f", "-"])


def psql(p: Dict[str, Any], sql: str, limit: float = 5.0, database: str = "postgres") -> str:
    """Run SQL on the node's own server; raises Failed."""
    more = {"PGCONNECT_TIMEOUT": "3", "PGOPTIONS": "-c statement_timeout=%d" % (limit * 1000)}
    return run(psql_argv(p, database), limit + 1, sql, more).strip()


def standby_timeline(p: Dict[str, Any]) -> int:
    """Return the true timeline of a standby; the control file names an old one, only a walsender knows."""
    return int(psql(p, "IDENTIFY_SYSTEM;", 5, "dbname=postgres replication=database").split("|")[1])


def systemctl(*words: str) -> str:
    """Run systemctl; what it achieved is looked at afterwards, so its status does not matter."""
    done = subprocess.run(
        ["systemctl"] + list(words), timeout=120, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout.decode("utf-8", "replace").strip()


def mask_path(p: Dict[str, Any]) -> str:
    """Return the link that masks the unit."""
    return "/etc/systemd/system/" + str(p["unit"])


def mask(p: Dict[str, Any]) -> bool:
    """Make systemd refuse to start the unit, now and after a reboot; tell if that is new."""
    link = mask_path(p)
    new = not os.path.islink(link)
    if new:
        os.symlink("/dev/null", link)
        # Without a reload systemd goes on with the unit as it has loaded it.
        systemctl("daemon-reload")
    return new


def unmask(p: Dict[str, Any]) -> bool:
    """Take the mask away; tell if there was one. The caller reloads systemd."""
    link = mask_path(p)
    if os.path.islink(link) and os.readlink(link) == "/dev/null":
        return remove_durably(link)
    return False


def ended(p: Dict[str, Any]) -> Optional[str]:
    """Say why a start will not succeed any more; None while it may."""
    shown = systemctl("show", "-p", "Result", "-p", "Job", "-p", "ActiveState", p["unit"])
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if state.get("Job", "") not in ("", "0") or state.get("ActiveState") not in ("failed", "inactive"):
        return None
    if state.get("Result") == "exec-condition":
        return "the boot guard refused the start; see journalctl -u " + str(p["unit"])
    return None if servers_in(p["data"]) else "it ended at once"


def start(p: Dict[str, Any], limit: float, hopeless: Optional[Pattern[str]] = None) -> Optional[str]:
    """Start the unit and wait until the server answers SQL; None when it does, else why not and what its log says.

    It is waited for no longer once its log says what `hopeless` finds.

    Debian's pg_ctlcluster sleeps for two seconds after the server is up, so it is not waited for. Nor does its
    exit status tell anything: the unit ignores it.
    """
    before = log_size(p["log"])
    # The two seconds of an earlier start, whose server has died meanwhile, swallow this one.
    swallowed = "inactive" not in systemctl("show", "-p", "ActiveState", p["unit"])
    systemctl("reset-failed", p["unit"])
    systemctl("start", "--no-block", p["unit"])
    deadline = time.monotonic() + limit
    reason = "it did not answer within %.0f s" % limit
    while time.monotonic() < deadline:
        try:
            psql(p, "SELECT 1", 3)
            return None
        except Failed:
            over = ended(p)
            if over and swallowed:
                swallowed = False
                systemctl("start", "--no-block", p["unit"])
            elif over:
                reason = over
                break
            if hopeless is not None and hopeless.search(log_since(p["log"], before)):
                reason = "it waits for what will not come"
                break
        time.sleep(0.05)
    return "%s: %s" % (reason, log_since(p["log"], before))
