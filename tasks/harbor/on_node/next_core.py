"""The next core: one for another database, beside the core that serves, until it takes that one's place.

It has the core's names in Docker's network, as none can be added later, so whoever looks up `core` while it runs may
get either. nginx looks at its start and at a reload only, and there is none before one of the two is gone. What
jobservice reports may reach the next one, whose database is read-only until it is the primary: that is an error, and
jobservice reports it again. It asks core for its own database at its start: what started meanwhile may have asked
the wrong one, and is started again.
"""

import sys
from datetime import datetime, timezone
from typing import Any, Dict

from tasks.harbor.on_node.engine import EngineRefused, described, remove
from tasks.on_node.jobservice import TWO_CORES
from tasks.on_node.lib import record

# Fixed by Harbor's docker-compose.yml.
CORE = "harbor-core"
NEXT = ".next"


def drop_next_core() -> bool:
    """Remove the next core, running or not; whether there was one.

    Compose would take it for the service's container, and it must never serve beside a core with another database.

    Raises:
        EngineRefused: it may be there still.
    """
    left = described(CORE + NEXT)
    if left is None:
        return False
    remove(CORE + NEXT)
    core = described(CORE)
    if core is not None and has_run(left):
        note_cores(core["Id"], since=str(left["State"]["StartedAt"]), until=ended_at(left["State"]))
    return True


def require_no_next_core() -> None:
    """Remove the next core, or end the program: beside one that may be there nothing is started or stopped."""
    try:
        drop_next_core()
    except EngineRefused as error:
        sys.exit("The Docker engine does not say whether " + CORE + NEXT + " is there: " + str(error))


def has_run(description: Dict[str, Any]) -> bool:
    """Tell whether a container was ever started."""
    return not str(description["State"]["StartedAt"]).startswith("0001")


def ended_at(state: Dict[str, Any]) -> str:
    """Say until when a container ran: one that lost its power with its node had ended when that came back.

    Until it was found and removed, some seconds after the boot, jobservice had started, and was told of as older than
    core for ever.
    """
    return now_stamp() if state["Running"] else str(state["FinishedAt"])


def note_cores(core: str, **more: Any) -> None:
    """Keep for a core that is there from when until when another one had its name, and whether the proxy knows it."""
    record(TWO_CORES, dict(more, core=core))


def now_stamp() -> str:
    """Give the time as the engine writes it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
