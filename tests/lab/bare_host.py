"""A bare host with a checkout on it: what somebody has who is about to make it the orchestrator.

Its packages of Python come from this machine's own places, as those of the lab's images do: they are fetched here, by
the lock, and brought to the host.
"""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lab.shell import docker
from lab.site_lab import Lab
from lab.topology import REPOSITORY

NODE = "node-c"
CHECKOUT = "/root/harbor-ha"
WHEELS = "/root/wheels"
_PARTS = ("blocks", "tasks", "flows", "deployments", "docs", "scripts", "lab", "tests")
_FILES = ("Makefile", "README.md", "README.zh.md", "pyproject.toml", "requirements.lock")


class Machine:
    """The bare host, by the engine: nobody has logged in to it yet."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, script: str, *, status: int = 0, timeout: float = 60.0) -> str:
        """Run a script as root; return what it wrote to both of its streams."""
        done = self.lab.exec(NODE, ["bash", "-c", f"exec 2>&1; {script}"], check=False, timeout=timeout)
        assert done.returncode == status, f"{script}: {done.returncode}: {done.stdout[-3000:]}"
        return done.stdout

    def copy(self, source: Path, target: str) -> None:
        """Bring a file or a directory to it."""
        docker("cp", str(source), f"{self.lab.topology.container(NODE)}:{target}", timeout=300)

    def fetch(self, source: str, target: Path) -> None:
        """Bring a file or a directory from it."""
        docker("cp", f"{self.lab.topology.container(NODE)}:{source}", str(target), timeout=300)

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file of root's on it."""
        self.lab.exec(NODE, ["tee", path], stdin=text)
        self.run(f"chmod {mode} {path}")


def bring_checkout(lab: Lab, scratch: Path) -> Machine:
    """Bring a checkout and the lock's packages to a host that is bare; skip the test where its Python is another.

    Args:
        lab: with the host.
        scratch: a directory for what is brought.
    """
    made = Machine(lab)
    version = made.run(
        "apt-cache policy python3 >/dev/null; python3 -c 'import sys; print(*sys.version_info[:2])'"
    )
    if version.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(
            f"the host has Python {version.strip()}, and the packages here are those of {sys.version}"
        )
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    # The host's Python is another patch release: what is only for older ones of it is brought as well.
    lock = (REPOSITORY / "requirements.lock").read_text()
    (scratch / "lock").write_text(re.sub(r" ; python_full_version < '3\.11\.\d+'", "", lock))
    wheels = ["--requirement", str(scratch / "lock"), "--dest", str(scratch / "wheels")]
    subprocess.run([*pip, *wheels], check=True, timeout=900)
    with tarfile.open(scratch / "checkout.tar", "w") as archive:
        for part in (*_PARTS, *_FILES):
            archive.add(REPOSITORY / part, part, filter=_without_caches)
    made.copy(scratch / "wheels", WHEELS)
    made.copy(scratch / "checkout.tar", "/root/checkout.tar")
    made.run(f"mkdir {CHECKOUT} && tar -C {CHECKOUT} -xf /root/checkout.tar")
    return made


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member
