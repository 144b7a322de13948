"""Where a node keeps what a second orchestrator must find: JSON files of root's, mode 0600."""

from tasks.postgres.layout import STATE_DIR

# Names of the files in there without `.json`; the probe returns all of them by these names.
OPERATION = "operation"  # the open or last operation: OperationRecord in record.py
TERM = "term"  # {"term", "op_id"}: the highest term that this node knows
LOCK = "lock"  # who works on the site right now: Lock in record.py
ACCEPTED = "accepted"  # {"primary", "timeline", "system_identifier", "term"}: the accepted primary, for the boot guard
PROMOTION = "promotion"  # {"boot", "uptime", "operation"}: when this server was told to promote itself
ALIVE = "alive"  # on the NAS only: {"node", "up_s"}, told by the primary every 10 s
PAUSED = "paused"  # {"reason", "since", "by"}: nothing that an alert starts may act
LAST_PRIMARY = "last_primary"  # the last position seen by `check`: LastPrimary in record.py
WITNESSED = (
    "witnessed"  # {"at", "nodes": {…}}: who could see each node when it was last in service: sightings.py
)
HEARD = (
    "heard"  # {"silent", "at", "lsn", "server"}: when this standby last heard its primary, while it is silent
)
DURABILITY = "durability"  # {"state": "SYNC"|"ASYNC"|"ASYNC_DEGRADED", "lsn", "at"}
REWIND = (
    "rewind"  # {"operation", "state": "begun"|"done", "evidence"}: a rewind whose server was not started yet
)
UNTOLD = (
    "untold"  # {"operations": {rejoin: commits}}: losses that a rejoin has found here, and no report told yet
)
VERDICT = "verdict"  # {"verdict", "since"}: the last verdict of `check`


def shared_path(nas_path: str, site: str, name: str) -> str:
    """Return the path of the NAS's copy of a state file: for whoever was off when it was written on the nodes."""
    return f"{nas_path.rstrip('/')}/.harbor-ha/{site}/{name}.json"


def path_of(name: str) -> str:
    """Return the path of a state file on a node."""
    return f"{STATE_DIR}/{name}.json"
