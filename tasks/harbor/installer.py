"""Harbor's installer: fetched, checked, unpacked and its images loaded, once on each node."""

import hashlib
from pathlib import Path

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.harbor.on_node import install as program
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_PROGRAM = node_program(program)

DOWNLOAD_DIR = "/var/cache/harbor-ha"
# An offline installer is about 700 MB; on a slow line that takes its time, and docker load takes minutes.
FETCH_TIMEOUT_S = 3600.0


class ChecksumMismatch(HarborHaError):
    """The installer is not the file whose checksum the site names; nothing was unpacked."""


def install(site: HarborSite, host: Host) -> Outcome:
    """Unpack the installer into `install_dir` and load its images.

    An existing harbor.yml, common/ and docker-compose.override.yml are kept as they are.

    Raises:
        ChecksumMismatch: the file is not the expected one.
        HarborHaError: the installer's file is not on the orchestrator.
    """
    harbor = site.harbor
    remote = harbor.installer.startswith(("https://", "http://"))
    given = {
        "install_dir": harbor.install_dir.rstrip("/"),
        "sha256": harbor.sha256.lower(),
        "url": harbor.installer if remote else None,
        "download_dir": DOWNLOAD_DIR,
    }
    source = _PROGRAM
    answer = host.python(source, given, timeout=FETCH_TIMEOUT_S)
    if answer["state"] == "wanted":
        package = _local_package(site)
        host.upload(package, answer["path"], mode=0o600, timeout=FETCH_TIMEOUT_S)
        answer = host.python(source, given, timeout=FETCH_TIMEOUT_S)
    if answer["state"] == "mismatch":
        raise _mismatch(harbor.installer, harbor.sha256, answer["found"], host.name)
    if answer["state"] == "unchanged":
        return unchanged(f"Harbor {harbor.version} is unpacked and its images are loaded")
    return changed(f"unpacked Harbor {harbor.version}, loaded {len(answer['images'])} images")


def _local_package(site: HarborSite) -> Path:
    package = Path(site.harbor.installer).expanduser()
    if not package.is_file():
        raise HarborHaError(
            f"{package} is not a file on the orchestrator.",
            where="harbor.installer",
            remedy="Put the offline installer there, or give its https:// address.",
        )
    with package.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    # Checked before the upload: 700 MB over a slow line is a long wait for a wrong file.
    if found != site.harbor.sha256.lower():
        raise _mismatch(str(package), site.harbor.sha256, found, "orchestrator")
    return package


def _mismatch(what: str, expected: str, found: str, where: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"{what} has the checksum {found}, not {expected.lower()}.",
        where=where,
        meaning="It is damaged, or another file than the site names; nothing was unpacked.",
        remedy="Fetch it again and compare with the publisher's checksum, or correct harbor.sha256.",
    )
