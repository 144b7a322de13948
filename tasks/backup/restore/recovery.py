"""The steps of a restore after a disaster, each on the node that becomes Harbor again."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from blocks import HarborSite
from tasks.backup.format.catalogue import read_manifest
from tasks.backup.format.layout import parse_backup_id
from tasks.backup.format.manifest import Manifest
from tasks.backup.night.links import REGISTRY_ROOT
from tasks.backup.restore.application import as_application
from tasks.backup.restore.done import LINKED, STARTED, done, note
from tasks.backup.restore.fetch import Origin
from tasks.backup.restore.links import make_missing_links
from tasks.backup.restore.restore_blobs import bring_blobs, fetch_index, restore_links
from tasks.backup.restore.restore_config import put_back_secrets, read_configuration
from tasks.backup.restore.restore_database import restore_database
from tasks.backup.restore.restore_settings import put_back_settings
from tasks.backup.restore.revive import harbor_runs
from tasks.backup.restore.roles import make_roles
from tasks.backup.restore.whole import images_of
from tasks.backup.server import server_of
from tasks.backup.settings import origin_of
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of

_NAMED_AT_MOST = 20
_IMAGES_AT_MOST = 1000
_JOBS_AT_MOST = 8
_TIMEOUT_S = 48 * 3600.0


class ImagesMissing(HarborHaError):
    """The NAS does not hold the images that the database refers to."""


def restore_databases(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    identity_file: str | None = None,
    accept_unsigned: bool = False,
) -> Outcome:
    """Load every database of the backup, with as many connections as the node has cores, and compare all row counts."""
    origin, manifest = _backup(site, backup, identity_file, accept_unsigned)
    server = server_of(layout_of(site))
    # Nothing else is to be served meanwhile.
    jobs = max(2, min(_JOBS_AT_MOST, int(host.run(["nproc"]).stdout)))
    homeless = make_roles(host, server, origin, manifest)
    with as_application(site, host) as loader:
        restored = [
            restore_database(
                host,
                server,
                origin,
                manifest,
                database.name,
                owner=loader.role,
                loader=loader,
                jobs=jobs,
                timeout=_TIMEOUT_S,
            )
            for database in manifest.databases
        ]
    left_out = [f"{each.name}: {line}" for each in restored for line in each.left_out]
    left_out += [f"the role {name}" for name in homeless]
    rows, tables = sum(r.rows for r in restored), sum(r.tables for r in restored)
    detail = f"{rows:,} rows in {tables} tables of {len(restored)} databases, all as in the manifest"
    detail += f"; left out: {'; '.join(left_out[:_NAMED_AT_MOST])}" if left_out else ""
    return (changed if any(r.changed for r in restored) else unchanged)(detail, rows=rows, left_out=left_out)


def restore_secrets(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    identity_file: str | None = None,
    accept_unsigned: bool = False,
) -> Outcome:
    """Put secretkey and the token keys back, before anything could make new ones."""
    origin, manifest = _backup(site, backup, identity_file, accept_unsigned)
    return put_back_secrets(site, host, read_configuration(origin, manifest))


def restore_settings(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    identity_file: str | None = None,
    accept_unsigned: bool = False,
) -> Outcome:
    """Put the operator's own settings back, before the site's are written into them."""
    if accept_unsigned:
        return unchanged(
            "not taken from a backup that nobody vouches for: they are as good as root on the node"
        )
    origin, manifest = _backup(site, backup, identity_file, accept_unsigned)
    return put_back_settings(site, host, read_configuration(origin, manifest))


def restore_image_links(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    of: str,
    identity_file: str | None = None,
    accept_unsigned: bool = False,
) -> Outcome:
    """Unpack the links of the backup. Where this restore's Harbor has served they are newer: the missing are made.

    Args:
        of: which restore, as `done` knows it.
    """
    so_far = done(site, host, of)
    if LINKED in so_far:
        # Of what the database refers to, the lost site itself may have lacked some.
        return unchanged("they were restored by an earlier run of this restore")
    if harbor_runs(host) or STARTED in so_far:
        return make_missing_links(site, host)
    origin, manifest = _backup(site, backup, identity_file, accept_unsigned)
    restore_links(host, origin, manifest, site.nas.registry)
    note(site, host, of, LINKED)
    links = manifest.links
    return changed(f"{links.files} links of {links.repositories} repositories" if links else "none")


def restore_images(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    identity_file: str | None = None,
    accept_unsigned: bool = False,
    progress: Callable[[int, int, int, int], None] = lambda done, total, size, of: None,
) -> Outcome:
    """Verify the blobs on the NAS against the backup's index, and copy from the bucket what is not there.

    Returns:
        data: `lost`, the images that lack a blob, by tag or digest, as many as are named; `lost_count` and
        `archived_count`, of blobs; `missing_at_source`, how many of them no storage had at the backup.
    """
    origin, manifest = _backup(site, backup, identity_file, accept_unsigned)
    assert manifest.blobs is not None
    total, size = manifest.blobs.referenced, manifest.blobs.referenced_bytes
    with tempfile.TemporaryDirectory(prefix="harbor-ha-restore-") as work:
        index = fetch_index(origin, manifest, Path(work) / "index.zst")
        result = bring_blobs(
            site,
            host,
            origin.store,
            index,
            timeout=_TIMEOUT_S,
            progress=lambda so_far: progress(*so_far.of(total, size)),
        )
    detail = (
        f"{result.present:,} blobs were there, {result.restored:,} restored, {result.restored_bytes:,} bytes"
    )
    missing = manifest.blobs.missing_at_source_count
    detail += f"; {missing} were missing already at the backup" if missing else ""
    lacking = [*result.digests, *manifest.blobs.missing_at_source]
    with as_application(site, host) as server:
        names = images_of(host, server, site.postgres.database, lacking)
    return (changed if result.restored else unchanged)(
        detail + result.trouble,
        restored=result.restored,
        present=result.present,
        lost=names[:_IMAGES_AT_MOST],
        lost_count=result.damaged_count + missing,
        archived_count=result.archived_count,
        missing_at_source=missing,
    )


def require_links(site: HarborSite, host: Host) -> Outcome:
    """Make sure that the NAS still has Harbor's storage; blobs without links serve no image.

    Raises:
        ImagesMissing: it has not.
    """
    path = f"{site.nas.registry}/{REGISTRY_ROOT}/repositories"
    if host.run(["test", "-d", path], check=False).exit_status != 0:
        raise ImagesMissing(
            f"There is no {path}.",
            where=host.name,
            meaning="The NAS does not hold the images of this site.",
            remedy="Run the restore with images=oss.",
        )
    return unchanged("the NAS holds Harbor's storage")


def _backup(
    site: HarborSite, backup: str, identity_file: str | None, accept_unsigned: bool
) -> tuple[Origin, Manifest]:
    origin = origin_of(site, parse_backup_id(backup), identity_file, accept_unsigned=accept_unsigned)
    return origin, read_manifest(origin.store, origin.backup, origin.trust)
