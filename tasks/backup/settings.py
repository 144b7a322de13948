"""What a backup needs of the site's settings, checked before anything is done."""

from pathlib import Path
from typing import Any

from blocks import HarborSite
from tasks.backup.format.encryption import identities_of, parse_identities, recipients_of
from tasks.backup.format.layout import BackupId
from tasks.backup.format.signature import Trust, parse_signing_secret
from tasks.backup.night.stored import Destination
from tasks.backup.restore.fetch import Origin
from tasks.errors import HarborHaError, Refused
from tasks.storage.bandwidth import UNLIMITED, Bandwidth
from tasks.storage.errors import EndpointUnreachable, ServiceFailed, Throttled
from tasks.storage.facts import preflight
from tasks.storage.store import ObjectStore, open_store

# Connections at a time: twelve small blobs, and the parts of three large ones.
_THREADS = 24


class NoIdentity(HarborHaError):
    """Nothing can be decrypted: there is no age identity."""


def store_of(site: HarborSite) -> ObjectStore:
    """Open the site's bucket with the site's bandwidth limit; nothing is sent yet.

    Raises:
        Refused: the site has no bucket.
    """
    if site.oss is None:
        raise Refused(f"The site {site.name} has no bucket.", ["Set `oss` in the site file and apply it."])
    limit = site.backup.traffic_limit_bytes_s
    bandwidth = Bandwidth(float(limit)) if limit else UNLIMITED
    return open_store(site.oss, site.name, threads=_THREADS, bandwidth=bandwidth)


def require_backup_settings(site: HarborSite) -> ObjectStore:
    """Check everything that a backup needs before it begins: recipients, and a bucket that takes and gives.

    Raises:
        Refused: with all reasons at once.
        EndpointUnreachable, ServiceFailed, Throttled: OSS does not answer, which may pass.
    """
    store, problems = store_of(site), []
    try:
        recipients_of(site.backup.age_recipients, "every backup")
    except Refused as refused:
        problems += refused.reasons
    except HarborHaError as error:
        problems.append(str(error))
    try:
        problems += preflight(store)
    except (EndpointUnreachable, ServiceFailed, Throttled) as error:
        # Alone, it is worth another attempt; beside what a human must put right, it is one more line.
        if not problems:
            raise
        problems.append(str(error))
    if problems:
        raise Refused(f"The site {site.name} cannot be backed up as it is.", problems)
    return store


def destination_of(site: HarborSite, backup: BackupId) -> Destination:
    """Where the objects of a new backup go."""
    return Destination(store_of(site), backup, recipients_of(site.backup.age_recipients, "the backup"))


def trust_of(site: HarborSite, *, accept_unsigned: bool = False) -> Trust:
    """Whose backups are believed: those that the site's own keys signed; others when an operator says so."""
    secret = site.backup.signing_secret
    keys = parse_signing_secret(secret.get_secret_value()) if secret is not None else ()
    return Trust(keys, accept_unsigned)


def origin_of(
    site: HarborSite, backup: BackupId, identity_file: str | None = None, *, accept_unsigned: bool = False
) -> Origin:
    """Where the objects of a backup come from.

    Args:
        site: its bucket and, unless a file is named, its identity for drills.
        backup: which one.
        identity_file: path of a 0600 file on the orchestrator.
        accept_unsigned: see `Trust`.

    Raises:
        NoIdentity: neither of the two.
        IdentityUnusable: with the reason.
    """
    trust = trust_of(site, accept_unsigned=accept_unsigned)
    return Origin(store_of(site), backup, identities(site, identity_file), trust)


def identities_or_none(site: HarborSite, identity_file: str | None = None) -> list[Any]:
    """Load the identities, or none where the site keeps them offline and no file was named."""
    return identities(site, identity_file) if identity_file or site.backup.age_identity is not None else []


def identities(site: HarborSite, identity_file: str | None = None) -> list[Any]:
    """Load the identities that decrypt the site's backups; see `origin_of`."""
    if identity_file:
        return identities_of(Path(identity_file))
    if site.backup.age_identity is not None:
        return parse_identities(site.backup.age_identity.get_secret_value(), "backup.age_identity")
    raise NoIdentity(
        "There is no age identity to decrypt the backup with.",
        remedy="Give `identity_file`, the path of the 0600 file that was kept offline, or set backup.age_identity.",
    )
