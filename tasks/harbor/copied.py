"""A copy of Harbor's databases in the pair beside the original: is it one, is it an old one, are they two by now?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from blocks import HarborSite
from tasks.errors import Refused
from tasks.hosts.connection import Host
from tasks.postgres.sql import execute

Counts = Mapping[str, int]
_SQL_S = 60.0
# Nobody of Harbor's is connected any more; a monitor, which would keep the name, may be.
_RENAME = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :'name' AND pid <> pg_backend_pid();
ALTER DATABASE :"name" RENAME TO :"aside";
"""
_USERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = :'name' AND usename = :'role'"


class Standing(Enum):
    """What a database in the pair is to its original."""

    ABSENT = "there is nothing in the pair"
    WHOLE = "the pair has all of it"
    OUTDATED = "the original was written to since, the copy was not"
    APART = "both were written to, or nobody knows how it came there"


@dataclass(frozen=True)
class Sides:
    """Row counts by table.

    Attributes:
        original: of the database that is copied, now.
        present: of the one in the pair, now; empty where there is none.
        noted: of both, when it was copied; None where nothing was noted.
        in_use: somebody is logged in to the one in the pair as Harbor.
    """

    original: Counts
    present: Counts
    noted: Counts | None
    in_use: bool = False


def standing_of(sides: Sides) -> Standing:
    """Decide what is to be done about a copy; a pure function.

    A note alone was believed once: the old Harbor had come back after the copy and had taken pushes, which were lost.
    """
    if not sides.present:
        return Standing.ABSENT
    if sides.original in (sides.noted, sides.present):
        return Standing.WHOLE
    if sides.noted is not None and sides.present == sides.noted and not sides.in_use:
        return Standing.OUTDATED
    return Standing.APART


def differing(original: Counts, copy: Counts) -> list[str]:
    """List the tables whose row counts differ, each with both counts; None stands for no such table."""
    names = sorted(set(original) | set(copy))
    return [
        f"{name}: {original.get(name)} rows here, {copy.get(name)} in the pair"
        for name in names
        if original.get(name) != copy.get(name)
    ]


def refuse_apart(sides: Sides, name: str, source: str, called: str) -> Refused:
    """Say that a database in the pair is not the original's copy, and what can be done; nothing was changed."""
    differences = differing(sides.original, sides.present)
    if sides.noted is None:
        rename = (
            "-> nothing is loaded into them; rename it if it may go, and run this again, which copies anew"
        )
        return Refused(f"The pair's database {name} already has tables of its own.", [*differences, rename])
    return Refused(
        f"{called} on {source} took writes after it was copied into the pair, and the pair's {name} is in use or was "
        "written to as well. Nothing was changed.",
        [
            *differences,
            f"to keep what {source} has -> stop Harbor on the other nodes, rename the pair's database (ALTER DATABASE "
            f'"{name}" RENAME TO "{name}_aside") and run this again, which copies anew',
            f"to keep what the pair has -> push again what only {source} has, stop the Harbor there, move the "
            "directory of its database away, and run this again",
        ],
    )


def note_of(source: Host, record: str) -> dict[str, Counts] | None:
    """Read what was noted at the copy: row counts by the original's name; None where none was made.

    A note of before there were counts in it has none.
    """
    text = source.read(record)
    if text is None:
        return None
    try:
        rows = json.loads(text).get("rows") or {}
    except (ValueError, AttributeError):
        return {}
    return {str(name): dict(counts) for name, counts in rows.items()}


def write_note(source: Host, record: str, target: str, rows: Mapping[str, Counts]) -> None:
    """Note that the databases are in the pair, and how many rows they had then."""
    note = {"target": target, "rows": {name: dict(counts) for name, counts in rows.items()}}
    source.put(record, json.dumps(note) + "\n", mode=0o600)


def in_use(site: HarborSite, target: Host, name: str) -> bool:
    """Whether somebody is logged in to a database of the pair as Harbor."""
    role = site.postgres.application.user
    return execute(site, target, _USERS, name=name, role=role) != [["0"]]


def rename_aside(site: HarborSite, target: Host, name: str) -> str:
    """Rename a database of the pair, which is never removed; the name that it has now."""
    aside = f"{name[:40]}_aside_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    execute(site, target, _RENAME, timeout=_SQL_S, name=name, aside=aside)
    return aside
