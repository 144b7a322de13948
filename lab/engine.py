"""Make sure that a Docker engine runs on this machine."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from lab import apt
from lab.shell import LabError, run, step, tail

_START_LIMIT_S = 60.0


def ensure_engine(logs: Path) -> None:
    """Use the running Docker engine; else start it; else install it and start it.

    Args:
        logs: directory for the output of apt and dockerd.

    Raises:
        LabError: there is no engine and this user cannot change that.
    """
    if answers():
        return
    if shutil.which("dockerd") is None:
        with step("Install the Docker engine"):
            # Debian 13 moved the client out of docker.io into a package of its own.
            apt.install(["docker.io", "iptables"], logs / "apt.log", where_known=["docker-cli"])
    if os.geteuid() != 0:
        raise LabError(
            "The Docker engine does not answer.",
            where="this machine",
            remedy="Start it, and add this user to the group `docker`; or run this as root.",
        )
    with step("Start the Docker engine"):
        _start(logs / "dockerd.log")


def answers() -> bool:
    """Whether a Docker engine answers this user."""
    if shutil.which("docker") is None:
        return False
    try:
        return run(["docker", "version"], check=False, timeout=15).returncode == 0
    except LabError:
        # A wedged engine is as good as none; starting it will say why.
        return False


def _start(log: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "enable", "--now", "docker"], timeout=_START_LIMIT_S)
        _wait(None, log)
        return
    # Installing the package may have started one by its init script; dockerd itself refuses to run twice.
    with log.open("ab") as sink:
        engine = subprocess.Popen(
            ["dockerd", "--pidfile", "/run/docker.pid"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # it must outlive this command, and Ctrl-C in this terminal
        )
    _wait(engine, log)


def _wait(engine: "subprocess.Popen[bytes] | None", log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not answers():
        dead = engine is not None and engine.poll() is not None
        if dead or time.monotonic() > deadline:
            said = tail(log) if log.exists() else ""
            raise LabError(
                f"The Docker engine did not start.\n{said}",
                where="this machine",
                remedy=f"Read {log}, or `journalctl -u docker`; the engine needs root, cgroups and iptables.",
            )
        time.sleep(0.2)
