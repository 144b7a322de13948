"""The distribution's packages on a node: what is there, what can be had, and how it is installed."""

import logging
import time
from collections.abc import Sequence

from tasks.errors import HarborHaError, RemoteCommandFailed
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.on_node import package_states

_PACKAGE_STATES = node_program(package_states)

logger = logging.getLogger(__name__)

# Ubuntu from 22.04 on restarts, after each installation and without a question, every service whose libraries have
# changed since it started: the database of a site that serves among them.
_ENV = ["env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"]
_APT = [*_ENV, "apt-get", "-y", "-qq", "-o", "Acquire::Retries=3"]
_DOWNLOAD_S = 900.0
# A machine of a cloud begins its life with updates of its own, which take minutes. apt's DPkg::Lock::Timeout is
# not for the lists, and not in Ubuntu 18.04.
_LOCKED = "Could not get lock"
_LOCKED_S = 600.0
_POLL_S = 2.0
# What apt says, in C's language, after dpkg was killed: a power cut during an installation.
_INTERRUPTED = "dpkg --configure -a"
# Likewise, when a mirror does not answer, breaks off, or is just being renewed.
_MIRROR_AWAY = ("Failed to fetch", "Temporary failure resolving", "Unable to fetch", "Could not connect")


class NotPackaged(HarborHaError):
    """No package repository that the node reaches has what is needed."""


class AptBusy(HarborHaError):
    """Another installation on the node held one of apt's locks for too long."""


def lacking(host: Host, names: Sequence[str]) -> list[str]:
    """List those of the packages that are not installed on the node, or not to the end."""
    if not names:
        return []
    missing: list[str] = host.python(_PACKAGE_STATES, list(names))
    return missing


def refresh(host: Host) -> None:
    """Fetch apt's lists anew: old ones name versions that the mirror has no more, which end with a 404.

    Raises:
        AptBusy: another installation held apt's lock for 600 s.
        RemoteCommandFailed: apt failed.
    """
    _apt(host, ["update"])


def has_candidate(host: Host, package: str) -> bool:
    """Tell whether apt could install a package, by the lists that it has."""
    done = host.run(["apt-cache", "policy", package])
    candidates = [line.split(":", 1)[1].strip() for line in done.stdout.splitlines() if "Candidate:" in line]
    return any(candidate != "(none)" for candidate in candidates)


def install(host: Host, names: Sequence[str]) -> None:
    """Install packages, or finish what was begun; another installation on the node is waited for.

    Raises:
        AptBusy: another installation held apt's lock for 600 s.
        RemoteCommandFailed: apt failed; its last lines are in the message.
    """
    # Without the recommendations: a container runtime's second choice, a mail server, a file system's tools.
    wanted = ["--no-install-recommends", "install", *names]
    try:
        _apt(host, wanted)
    except RemoteCommandFailed as failed:
        if _INTERRUPTED not in failed.stderr:
            raise
        host.run(
            [*_ENV, "dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], timeout=_DOWNLOAD_S
        )
        _apt(host, wanted)


def mirror_away(failed: RemoteCommandFailed) -> bool:
    """Tell whether apt failed because it could not fetch, which may be over in a minute."""
    return any(said in failed.stderr for said in _MIRROR_AWAY)


def _apt(host: Host, words: Sequence[str]) -> None:
    """Run apt-get as soon as no other one is at work; what it refuses for the lock, it has not begun."""
    deadline = time.monotonic() + _LOCKED_S
    while True:
        try:
            host.run([*_APT, *words], timeout=_DOWNLOAD_S)
            return
        except RemoteCommandFailed as failed:
            if _LOCKED not in failed.stderr:
                raise
            if time.monotonic() > deadline:
                raise _busy(host, failed) from None
        logger.info("%s: another installation is at work there; waiting for it", host.name)
        time.sleep(_POLL_S)


def _busy(host: Host, failed: RemoteCommandFailed) -> AptBusy:
    line = next(line for line in failed.stderr.splitlines() if _LOCKED in line)
    return AptBusy(
        f"Another installation did not end in {_LOCKED_S:.0f} s: {line}",
        where=host.name,
        meaning="apt did not begin; what was installed before stays.",
        remedy=f"Let the process that apt names on {host.name} end, or end it; then run the flow again.",
    )
