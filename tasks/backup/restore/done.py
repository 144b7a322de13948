"""What a restore has done on its node, so that the next run neither repeats it nor takes it for done.

"A core runs" was once taken for a sign that an earlier run had come that far. It says nothing: the core may be one of
before the restore, on caches of the lost site, and the links may never have been restored.
"""

import json

from blocks import HarborSite
from tasks.backup.server import query, server_of
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import STATE_DIR, layout_of

NOTE = f"{STATE_DIR}/disaster_restore.json"
# What was true only at the time of the dump is settled; the links are there; Harbor was started, on empty caches.
SETTLED, LINKED, STARTED = "settled", "linked", "started"
# Another load of the same backup is another database, and so is one in another cluster.
_DATABASE = """
SELECT system_identifier || '/' || coalesce((SELECT oid::text FROM pg_database WHERE datname = :'v0'), '')
FROM pg_control_system();
"""


def done(site: HarborSite, host: Host, of: str) -> frozenset[str]:
    """Read what a restore has done to the database that is there; nothing while that cannot be asked.

    Args:
        of: which restore, by its backup or its moment.
    """
    try:
        known = json.loads(host.read(NOTE) or b"{}")
    except ValueError:
        known = {}
    database = _database(site, host)
    if not database or (known.get("of"), known.get("database")) != (of, database):
        return frozenset()
    return frozenset(known["done"])


def note(site: HarborSite, host: Host, of: str, what: str) -> None:
    """Note that something is done."""
    every = sorted(done(site, host, of) | {what})
    text = json.dumps({"of": of, "database": _database(site, host), "done": every})
    host.put(NOTE, text + "\n", mode=0o600)


def note_started(site: HarborSite, host: Host, *, of: str) -> Outcome:
    """Note that the Harbor which runs is the one of this restore: it serves, and what it writes is newer."""
    if STARTED in done(site, host, of):
        return unchanged("noted before")
    note(site, host, of, STARTED)
    return changed("the Harbor that runs is this restore's")


def forget(host: Host) -> None:
    """Forget what was done: another database is about to be made."""
    host.run(["rm", "-f", "--", NOTE])


def _database(site: HarborSite, host: Host) -> str:
    try:
        rows = query(host, server_of(layout_of(site)), "postgres", _DATABASE, values=[site.postgres.database])
    except HarborHaError:
        # No server, or none that answers: then nothing is known of what it holds.
        return ""
    return rows[0][0]
