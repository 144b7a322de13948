"""The distribution's packages on a node: what is there, what can be had, and how it is installed."""

from collections.abc import Sequence

from tasks.errors import HarborHaError, RemoteCommandFailed
from tasks.hosts.connection import Host
from tasks.node_source import source_of
from tasks.remote import package_states

_ENV = ["env", "DEBIAN_FRONTEND=noninteractive"]
# The lock: a machine of a cloud begins its life with updates of its own, which take minutes.
# Without the recommendations: a container runtime's second choice, a mail server, a file system's tools.
_APT = ["apt-get", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
_INSTALL = [*_ENV, *_APT, "--no-install-recommends", "install"]
_DOWNLOAD_S = 900.0
# What apt says, in C's language, after dpkg was killed: a power cut during an installation.
_INTERRUPTED = "dpkg --configure -a"


class NotPackaged(HarborHaError):
    """No package repository that the node reaches has what is needed."""


def lacking(host: Host, names: Sequence[str]) -> list[str]:
    """List those of the packages that are not installed on the node, or not to the end."""
    if not names:
        return []
    missing: list[str] = host.python(source_of(package_states), list(names))
    return missing


def refresh(host: Host) -> None:
    """Fetch apt's lists anew: old ones name versions that the mirror has no more, which end with a 404."""
    host.run([*_ENV, *_APT, "update"], timeout=_DOWNLOAD_S)


def has_candidate(host: Host, package: str) -> bool:
    """Tell whether apt could install a package, by the lists that it has."""
    done = host.run(["apt-cache", "policy", package])
    candidates = [line.split(":", 1)[1].strip() for line in done.stdout.splitlines() if "Candidate:" in line]
    return any(candidate != "(none)" for candidate in candidates)


def install(host: Host, names: Sequence[str]) -> None:
    """Install packages, or finish what was begun; waits for another installation on the node to end.

    Raises:
        RemoteCommandFailed: apt failed; its last lines are in the message.
    """
    try:
        host.run([*_INSTALL, *names], timeout=_DOWNLOAD_S)
    except RemoteCommandFailed as failed:
        if _INTERRUPTED not in failed.stderr:
            raise
        host.run(
            [*_ENV, "dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], timeout=_DOWNLOAD_S
        )
        host.run([*_INSTALL, *names], timeout=_DOWNLOAD_S)
