"""`apply` by root: root reads the site file and its secrets, the services' user saves the site.

Run as that user, `apply` could not read root's keys, nor `{env: NAME}` of root's environment; run as root, it would
leave a local copy that the services cannot read.
"""

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from blocks import HarborSite
from blocks.problems import Problem, SiteFileInvalid
from blocks.store import site_as_data
from deployments.orchestrator.environment import change, served_sites, with_site
from deployments.schedules import NOT_SERVED
from tasks.errors import HarborHaError

HANDED_ON = "-"
"""In the place of a site file: a whole site on the standard input."""

_RUNNER = "harbor-ha-runner"
_LIMIT_S = 300.0
# A flow that runs gets two minutes of it.
_RESTART_S = 180.0
_REMEDY = "scripts/install-orchestrator --check says what else is missing"


def services_user() -> str | None:
    """Name the user that saves sites here, when this is root, called by the command in the path; else None."""
    return os.environ.get("HARBOR_HA_USER") if os.geteuid() == 0 else None


def hand_on(site: HarborSite, user: str) -> int:
    """Have a site saved by another user, and served if it was saved; return the exit status.

    The site goes through a pipe. Nothing of it is in arguments, in the environment or in a file.

    Raises:
        HarborHaError: the user does not exist, or the end was not seen.
    """
    status = _saved_by(user, json.dumps(site_as_data(site)).encode())
    file = os.environ.get("HARBOR_HA_ENVIRONMENT")
    if status == 0 and file:
        for line in _serve(site.name, Path(file)):
            print(line)
    return status


def _saved_by(user: str, site: bytes) -> int:
    home = os.environ["HARBOR_HA_HOME"]
    try:
        account = pwd.getpwnam(user)
        return subprocess.run(
            [sys.executable, "-P", "-m", "deployments.cli", "apply", HANDED_ON],
            input=site,
            env={**os.environ, "HOME": home, "PREFECT_HOME": f"{home}/prefect"},
            cwd=home,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            timeout=_LIMIT_S,
        ).returncode
    except KeyError:
        raise HarborHaError(f"There is no user {user}.", remedy=_REMEDY) from None
    except subprocess.TimeoutExpired:
        # Without what it was given: that is the whole site, with its secrets.
        raise HarborHaError(
            f"Saving the site did not end in {_LIMIT_S:.0f} s.",
            meaning="It may be saved or not.",
            remedy="systemctl status prefect-server; then the same command again",
        ) from None


def handed_on(source: BinaryIO) -> HarborSite:
    """Read a site that root has read and checked.

    Raises:
        SiteFileInvalid: this user cannot read the installer, which is needed at bootstrap.
    """
    site = HarborSite.model_validate(json.load(source))
    installer = site.harbor.installer
    if not installer.startswith(("https://", "http://")) and not os.access(installer, os.R_OK):
        who = pwd.getpwuid(os.geteuid()).pw_name
        what = f"the user {who}, who runs the flows, cannot read {installer}"
        right = f"put it where {who} may read it, such as /var/lib/{who}, or give its https:// address"
        raise SiteFileInvalid("The site file", [Problem("harbor.installer", what, right)])
    return site


def without_what_follows(lines: Sequence[str], site: str) -> Iterator[str]:
    """Leave out the advice that is followed in the next moment."""
    return (line for line in lines if line != NOT_SERVED.format(site=site))


def _serve(name: str, file: Path) -> Iterator[str]:
    """Have the runner serve a site that it does not serve yet."""
    others = served_sites(file.read_text(encoding="utf-8"))
    if not change(file, lambda text: with_site(text, name)):
        return
    yield f"{name} is in HARBOR_HA_SITES of {file} now"
    if others:
        # It would end their flows.
        busy = ", ".join(others)
        yield f"systemctl restart {_RUNNER} begins its schedules and its watcher; not while a flow of {busy} runs"
        return
    if _restarted():
        yield f"{_RUNNER} was restarted: the schedules and the watcher of {name} run"
    else:
        yield f"{_RUNNER} was not restarted: systemctl status {_RUNNER}"


def _restarted() -> bool:
    argv = ["systemctl", "restart", _RUNNER]
    try:
        return subprocess.run(argv, capture_output=True, timeout=_RESTART_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
