"""PostgreSQL's packages: the distribution's, else the PostgreSQL project's own repository."""

from blocks import HarborSite
from tasks.hosts import packages
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of

# The package would create and start a cluster `main` of its own in the default place.
_NO_MAIN = "/etc/postgresql-common/createcluster.d/harbor-ha.conf"
_REPOSITORY = "/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh"
_DOWNLOAD_S = 900.0


def server_package(site: HarborSite) -> str:
    """Name the package of the configured major's server, which brings its client."""
    return f"postgresql-{layout_of(site).major}"


def packages_of(site: HarborSite) -> tuple[str, ...]:
    """Name what a database node needs: the server, and zstd for the dumps of the nightly backup."""
    return (server_package(site), "zstd")


def install(site: HarborSite, host: Host) -> Outcome:
    """Install the configured major without the package's own cluster.

    Raises:
        NotPackaged: neither the distribution nor the PostgreSQL repository has it.
        AptBusy, RemoteCommandFailed: apt did not begin, or failed.
    """
    lacking = packages.lacking(host, packages_of(site))
    if not lacking:
        return unchanged(f"PostgreSQL {layout_of(site).major} is installed")
    host.put(_NO_MAIN, "create_main_cluster = false\n")
    packages.refresh(host)
    if not packages.has_candidate(host, server_package(site)):
        _add_repository(site, host)
    packages.install(host, lacking)
    return changed(f"installed {', '.join(lacking)}")


def _add_repository(site: HarborSite, host: Host) -> None:
    packages.install(host, ["postgresql-common", "ca-certificates"])
    added = host.run([_REPOSITORY, "-y"], timeout=_DOWNLOAD_S, check=False)
    if added.exit_status != 0 or not packages.has_candidate(host, server_package(site)):
        raise packages.NotPackaged(
            f"{server_package(site)} is in no package repository that this machine reaches.",
            where=host.name,
            meaning="PostgreSQL was not installed.",
            remedy=f"Set postgres.major to a version that `apt-cache search ^postgresql-[0-9]` shows, "
            f"or make the PostgreSQL apt repository reachable (tried {_REPOSITORY}).",
        )
