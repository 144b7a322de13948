"""PostgreSQL's packages: the distribution's, else the PostgreSQL project's own repository."""

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of

APT = ["apt-get", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
_ENV = ["env", "DEBIAN_FRONTEND=noninteractive"]
# The package would create and start a cluster `main` of its own in the default place.
_NO_MAIN = "/etc/postgresql-common/createcluster.d/harbor-ha.conf"
_REPOSITORY = "/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh"
_DOWNLOAD_S = 900.0


class MajorNotAvailable(HarborHaError):
    """No repository of the node has the configured PostgreSQL major."""


def install(site: HarborSite, host: Host) -> Outcome:
    """Install the configured major without the package's own cluster.

    Raises:
        MajorNotAvailable: neither the distribution nor the PostgreSQL repository has it.
    """
    layout = layout_of(site)
    if host.run(["test", "-x", f"{layout.bin}/postgres"], check=False).exit_status == 0:
        return unchanged(f"PostgreSQL {layout.major} is installed")
    package = f"postgresql-{layout.major}"
    host.put(_NO_MAIN, "create_main_cluster = false\n")
    if not available(host, package):
        _add_repository(site, host, package)
    host.run(
        [*_ENV, *APT, "install", package, f"postgresql-client-{layout.major}", "zstd"], timeout=_DOWNLOAD_S
    )
    return changed(f"installed {package}")


def available(host: Host, package: str) -> bool:
    """Refresh apt's lists and tell whether it has a candidate for the package.

    Old lists name versions that the mirror has no more: the installation would end with a 404.
    """
    host.run([*_ENV, "apt-get", "-qq", "update"], timeout=_DOWNLOAD_S)
    return _has_candidate(host, package)


def _has_candidate(host: Host, package: str) -> bool:
    done = host.run(["apt-cache", "policy", package])
    candidates = [line.split(":", 1)[1].strip() for line in done.stdout.splitlines() if "Candidate:" in line]
    return any(candidate != "(none)" for candidate in candidates)


def _add_repository(site: HarborSite, host: Host, package: str) -> None:
    host.run([*_ENV, *APT, "install", "postgresql-common", "ca-certificates"], timeout=_DOWNLOAD_S)
    added = host.run([_REPOSITORY, "-y"], timeout=_DOWNLOAD_S, check=False)
    if added.exit_status != 0 or not _has_candidate(host, package):
        raise MajorNotAvailable(
            f"{package} is in no package repository that this machine reaches.",
            where=host.name,
            meaning="PostgreSQL was not installed.",
            remedy=f"Set postgres.major to a version that `apt-cache search ^postgresql-[0-9]` shows, "
            f"or make the PostgreSQL apt repository reachable (tried {_REPOSITORY}).",
        )
