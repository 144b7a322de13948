"""Part of node programs: whether jobservice has asked the core that is there which database it uses."""

from typing import Any, Dict, Optional


def older_than_core(core: Optional[Dict[str, Any]], jobs: Optional[Dict[str, Any]]) -> bool:
    """Tell whether a running jobservice was started before core was made.

    It asks core for the database at its start only: of a core that was replaced since, it has another answer. Core's
    own start says nothing: whoever restarts core alone changes no database.

    Args:
        core, jobs: Docker's descriptions of the containers; None where there is none.
    """
    if core is None or jobs is None:
        return False
    return bool(jobs["State"]["Running"] and jobs["State"]["StartedAt"] < core["Created"])
