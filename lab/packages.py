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
    "haproxy": "/usr/sbin/haproxy",
    "iproute2": "/bin/ip",
    "prometheus": "/usr/bin/prometheus",
    "redis-server": "/usr/bin/redis-server",
    "prometheus-alertmanager": "/usr/bin/prometheus-alertmanager",
    # Forms and reports are looked at as a person does.
    "chromium": "/usr/bin/chromium",
    "chromium-driver": "/usr/bin/chromedriver",
}
# Ubuntu's package of that name brings a snap, which no container can run.
_DEBIANS_OWN = ("chromium", "chromium-driver")
# Debian starts a service with these; nobody asked for one here.
_SERVICES = ("haproxy", "prometheus", "prometheus-alertmanager", "redis-server")
_UNITS = Path("/etc/systemd/system")
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
    for name in names:
        unit = _UNITS / f"{name}.service"
        if name in _SERVICES and _UNITS.is_dir() and not unit.is_symlink():
            unit.symlink_to("/dev/null")
            print(f"the service {name} is masked here; systemctl unmask {name} lets it run", flush=True)
    apt.install(names, logs / "apt.log")


if __name__ == "__main__":
    sys.exit(main())
