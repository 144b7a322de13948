"""pgBackRest on a node: package, configuration, and the site's stanza in the bucket."""

from blocks import HarborSite
from tasks.hosts import packages
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.pitr.repository import pgbackrest, repository_state
from tasks.pitr.settings import PATHS, bucket_of, configuration, stanza_of
from tasks.postgres.sql import value

PACKAGE = "pgbackrest"
_STANZA_S = 180.0
_OWNER = "postgres:postgres"
_SYSTEM_IDENTIFIER = "SELECT system_identifier FROM pg_control_system()"


def install(site: HarborSite, host: Host) -> Outcome:
    """Install pgBackRest and write its configuration, which holds the AccessKey and the passphrase.

    Raises:
        NotPackaged: no package repository has it.
        Refused: the site keeps no WAL in a bucket.
    """
    done = []
    if packages.lacking(host, [PACKAGE]):
        packages.refresh(host)
        if not packages.has_candidate(host, PACKAGE):
            raise packages.NotPackaged(
                f"The package {PACKAGE} is in no package repository that this machine reaches.",
                where=host.name,
                meaning="WAL cannot be shipped to the bucket.",
                remedy="Make the distribution's or PostgreSQL's repository reachable, or set wal_archive: disk.",
            )
        packages.install(host, [PACKAGE])
        done.append(f"installed {PACKAGE}")
    authority = bucket_of(site).s3_ca
    if authority and host.put(PATHS.ca, authority, mode=0o644):
        done.append("wrote the S3 endpoint's authority")
    if host.put(PATHS.config, configuration(site), mode=0o600, owner=_OWNER):
        done.append("wrote its configuration")
    return changed("; ".join(done)) if done else unchanged("pgBackRest is there, as configured")


def forget(site: HarborSite, host: Host) -> Outcome:
    """Remove what leads into the bucket, AccessKey and passphrase, from a node that has it and needs it no more.

    What is in the bucket stays.
    """
    host.run(["rm", "-f", PATHS.config, PATHS.ca])
    return changed("removed the bucket's AccessKey and the passphrase of the WAL; the bucket stays as it is")


def create_stanza(site: HarborSite, primary: Host) -> Outcome:
    """Make the site's database known to the repository, and prove that a WAL segment arrives there.

    A restore from a dump makes another database of the same site: the repository then keeps both.

    Raises:
        RepositoryError, StorageError: the repository cannot be used; one sentence says why.
    """
    identifier = value(site, primary, _SYSTEM_IDENTIFIER)
    known = repository_state(site, primary).system_identifiers
    if known and known[-1] == identifier:
        return unchanged(f"the repository knows the database {identifier}")
    pgbackrest(site, primary, "stanza-upgrade" if known else "stanza-create", timeout=_STANZA_S)
    pgbackrest(site, primary, "check", timeout=_STANZA_S)
    return changed(
        f"stanza {stanza_of(site)} for the database {identifier}; a WAL segment arrived in it; "
        "run base-backup now"
    )
