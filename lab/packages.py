"""`python -m lab.packages`: have the servers on this machine that the tests without a lab start for themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab import apt
from lab.shell import LabError, step

PACKAGES = {
    "postgresql": "/usr/lib/postgresql/*/bin/initdb",
    "age": "/usr/bin/age",
    "pgbackrest": "/usr/bin/pgbackrest",
    # Brought along by nothing else on a bare Debian 13.
    "zstd": "/usr/bin/zstd",
    # Forms and reports are looked at as a person does.
    "chromium": "/usr/bin/chromium",
    "chromium-driver": "/usr/bin/chromedriver",
}
# Ubuntu's package of that name brings a snap, which no container can run.
_DEBIANS_OWN = ("chromium", "chromium-driver")
_NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")


def missing() -> list[str]:
    """Name the packages whose program is not there, of those that this distribution has."""
    lacking = [
        name for name, program in PACKAGES.items() if not list(Path("/").glob(program.removeprefix("/")))
    ]
    if apt.this_distribution().id == "debian":
        return lacking
    return [name for name in lacking if name not in _DEBIANS_OWN]


def main() -> int:
    """Install what is missing, as root; for another user say what will be skipped.

    Returns:
        the exit status: 0, or 1 when an installation failed.
    """
    try:
        names = missing()
        if names and os.geteuid() != 0:
            print(f"Tests that need {', '.join(names)} are skipped; root can install that with apt-get.")
            return 0
        if names:
            with step(f"Install {', '.join(names)}"):
                _install(names)
    except (LabError, subprocess.SubprocessError) as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    return 0


def _install(names: list[str]) -> None:
    logs = Path(".lab")
    logs.mkdir(exist_ok=True)
    if "postgresql" in names and shutil.which("pg_createcluster") is None:
        # Debian starts a server on 5432 with the package; nobody asked for one here.
        _NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        _NO_CLUSTER.write_text("create_main_cluster = false\n")
    apt.install(names, logs / "apt.log")


if __name__ == "__main__":
    sys.exit(main())
