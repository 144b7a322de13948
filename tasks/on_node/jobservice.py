"""Part of node programs: whether jobservice has asked the core that is there which database it uses."""

from typing import Any, Dict, Optional

# What is known of the time in which two cores answered to one name, of which each had another database.
TWO_CORES = "harbor_two_cores.json"


def older_than_core(
    core: Optional[Dict[str, Any]], jobs: Optional[Dict[str, Any]], two_cores: Dict[str, Any]
) -> bool:
    """Tell whether a running jobservice may have asked another core than the one that is there.

    It asks core for the database at its start only: of a core that was replaced since, it has another answer. Core's
    own start says nothing: whoever restarts core alone changes no database. Nor does its creation say all: it may
    have waited beside the core before it.

    Args:
        core, jobs: Docker's descriptions of the containers; None where there is none.
        two_cores: the record of that name.
    """
    if core is None or jobs is None or not jobs["State"]["Running"]:
        return False
    started = str(jobs["State"]["StartedAt"])
    if started < core["Created"]:
        return True
    # Without an end it was killed before it could note that: "~" is behind every time.
    known = two_cores if two_cores.get("core") == core["Id"] else {"until": ""}
    return bool(known.get("since", "") <= started < known.get("until", "~"))
