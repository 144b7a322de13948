"""Part of node programs: which of two records of an accepted primary is the later one."""

from typing import Any, Dict, Tuple


def newer(known: Dict[str, Any], given: Dict[str, Any]) -> bool:
    """Tell whether an acceptance is of a later promotion of the same database."""
    if known.get("system_identifier") != given["system_identifier"]:
        return False
    if known.get("primary") == given["primary"] and known.get("timeline") == given["timeline"]:
        return False
    return rank(known) > rank(given)


def rank(claim: Dict[str, Any]) -> Tuple[int, int]:
    """Give what the acceptances of one database are ordered by: timeline and term."""
    return int(claim.get("timeline") or 0), int(claim.get("term") or 0)
