"""The base backup on the primary, and its record in the bucket."""

from blocks import HarborSite
from tasks.backup.settings import store_of
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed
from tasks.pitr.catalogue import reach_of, record_bases
from tasks.pitr.errors import RepositoryError
from tasks.pitr.repository import pgbackrest, repository_state
from tasks.pitr.settings import stanza_of

# A base backup of 1 TB at 50 MB/s, twice over; this only bounds a node that hangs.
_BACKUP_S = 12 * 3600.0


def base_backup(site: HarborSite, primary: Host) -> Outcome:
    """Make a full base backup; pgBackRest then removes what is past `keep_base_backups`, with its WAL.

    Returns:
        data: `label`, `bytes` and `reach`, lines that say what can be restored.

    Raises:
        RepositoryError, StorageError: with one sentence that says why; a part counts for nothing.
    """
    # `backup` itself takes a missing bucket for a missing stanza; this look says which it is.
    if not repository_state(site, primary).system_identifiers:
        raise RepositoryError(
            "The repository does not know this database yet.", where=primary.name, remedy="Run bootstrap."
        )
    pgbackrest(site, primary, "backup", "--type=full", timeout=_BACKUP_S)
    state, store = repository_state(site, primary), store_of(site)
    record_bases(store, stanza_of(site), state.backups)
    newest = state.backups[-1]
    lines = [
        f"{each.base.label}: {each.first:%Y-%m-%d %H:%M:%S} to {each.last:%Y-%m-%d %H:%M:%S} UTC"
        + (" (WAL behind it is missing)" if each.broken else "")
        for each in reach_of(store, stanza_of(site))
    ]
    return changed(
        f"{newest.label}, {newest.size:,} bytes of database; {len(state.backups)} are kept",
        label=newest.label,
        bytes=newest.size,
        reach=lines,
    )
