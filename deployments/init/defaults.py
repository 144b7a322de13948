"""Answers that init finds out by itself; an operator may still say otherwise."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from deployments.init.questions import Question

_KNOWN = {
    "debian 11": 13,
    "debian 12": 15,
    "debian 13": 17,
    "ubuntu 22.04": 14,
    "ubuntu 24.04": 16,
}
"""PostgreSQL as each release has it, for a node without apt's lists."""


def default_of(question: Question, known: Callable[[str], str]) -> str:
    """Give the default of a question; empty when there is none.

    Args:
        question: what is asked.
        known: gives the answer to another question by its path, empty when it is not known.
    """
    found: dict[str, Callable[[], str]] = {
        "harbor.sha256": lambda: checksum(known("harbor.installer")),
        "harbor.version": lambda: version_in(known("harbor.installer")),
        "backup.timezone": local_timezone,
    }
    if question.path in found:
        return found[question.path]()
    others = {path: known(path) for path in re.findall(r"\{([^}]+)\}", question.default)}
    if not all(others.values()):
        return ""
    return re.sub(r"\{([^}]+)\}", lambda name: others[name[1]], question.default)


def checksum(installer: str) -> str:
    """Give the checksum of an installer that is a file here; empty for any other."""
    path = Path(installer).expanduser()
    if not installer or not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_in(installer: str) -> str:
    """Read the version in an installer's name, as `harbor-offline-installer-v2.12.4.tgz`; empty without one."""
    found = re.search(r"-(v\d+\.\d+\.\d+(?:-rc\d+)?)", installer.rpartition("/")[2])
    return found[1] if found else ""


def local_timezone(etc: Path = Path("/etc")) -> str:
    """Name this machine's time zone; China's where it says none."""
    link = str((etc / "localtime").resolve()) if (etc / "localtime").is_symlink() else ""
    named = re.search(r"/zoneinfo/(?:posix/)?(.+)$", link)
    file = etc / "timezone"
    text = file.read_text().strip() if file.is_file() else ""
    return text or (named[1] if named else "Asia/Shanghai")


# Printed by a node: what apt would install, then which release it is.
ASK_POSTGRES = (
    "LC_ALL=C apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\\([0-9]*\\)$/apt \\1/p'; "
    '. /etc/os-release; echo "$ID $VERSION_ID"'
)


def postgres_major(answer: str) -> int | None:
    """Given what a node printed for ASK_POSTGRES, tell the PostgreSQL that its release has; None when unknown."""
    apt = re.search(r"^apt (\d+)$", answer, re.MULTILINE)
    return int(apt[1]) if apt else _KNOWN.get(answer.strip().rpartition("\n")[2])
