"""What existed only on the old primary: commits behind the point where the new primary left its history."""

from typing import Any

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.on_node import pg_lost_commits
from tasks.postgres.rejoin import history_of
from tasks.postgres.run_on_node import run_on_node
from tasks.postgres.sql import execute

_PG_LOST_COMMITS = node_program(pg_lost_commits)

_LIMIT_S = 120.0


def lost_commits(
    site: HarborSite,
    node: Host,
    primary: Host,
    *,
    operation: str,
    kept_only: bool = False,
    interrupted: bool = True,
) -> Outcome:
    """List the commits that only the stopped former primary has. Before the rewind or clone, which remove them.

    A second call of the same operation returns the first one's list: after the rewind or clone nothing else can
    tell it (`kept_only`). What earlier rejoins of the node found, and no report has told, is in it too. Not every
    commit in it was acknowledged: with synchronous replication the last ones were still waiting.

    Args:
        interrupted: with `kept_only`, that this operation has kept no list means that nothing can be known; otherwise
            it had none to make.

    Returns:
        data: `known`; `why` when it is not; `none`, there was nothing to look into; `total`; `commits`, at most 1,000
        of each rejoin, each `at` (UTC), `xid` and `relations` (`database.name`, or the file's number where the primary
        knows no name).
    """
    answer = run_on_node(
        site,
        node,
        _PG_LOST_COMMITS,
        limit=_LIMIT_S + 10,
        operation=operation,
        kept_only=kept_only,
        limit_s=_LIMIT_S,
        **history_of(site, primary),
    )
    answer = _all_of_it(answer, interrupted=interrupted)
    if answer["none"]:
        return unchanged("no rejoin of it has left a list", **answer)
    if not answer["known"]:
        return unchanged(f"what was lost cannot be known: {answer['why']}", **answer)
    if not answer["commits"]:
        return unchanged("nothing was lost: no commit exists only on the old primary", **answer)
    names = _names(site, primary, {rel for commit in answer["commits"] for rel in commit["relations"]})
    for commit in answer["commits"]:
        commit["relations"] = sorted({names.get(rel, rel) for rel in commit["relations"]})
    first, last = answer["commits"][0]["at"], answer["commits"][-1]["at"]
    return unchanged(f"{answer['total']} commits exist only on {node.name}, from {first} to {last}", **answer)


def note_told(site: HarborSite, node: Host) -> Outcome:
    """Note on the node that a report has told of all that rejoins found there; `check` asks for one until then."""
    told = run_on_node(site, node, _PG_LOST_COMMITS, limit=_LIMIT_S, told=True)["told"]
    return changed("noted") if told else unchanged("nothing is left to tell")


def _all_of_it(answer: dict[str, Any], *, interrupted: bool) -> dict[str, Any]:
    """Put what this rejoin found and what earlier ones left into one answer."""
    left_out = answer.get("kept") is False and not interrupted
    lists = [*([] if left_out else [answer]), *answer["earlier"]]
    why = [one["why"] for one in lists if not one["known"]]
    return {
        "none": not lists,
        "known": not why,
        "why": "; ".join(why),
        "commits": [commit for one in lists for commit in one["commits"]],
        "total": sum(one["total"] for one in lists),
    }


def _names(site: HarborSite, primary: Host, relations: set[str]) -> dict[str, str]:
    """Name relations (`tablespace/database/file`) as the primary knows them; a name is a comfort, not a must."""
    by_database: dict[str, list[str]] = {}
    for relation in relations:
        by_database.setdefault(relation.split("/")[1], []).append(relation)
    names: dict[str, str] = {}
    try:
        databases = dict(_pairs(execute(site, primary, "SELECT oid, datname FROM pg_database")))
        for oid, listed in by_database.items():
            if oid in databases:
                files = ",".join(relation.split("/")[2] for relation in listed)
                rows = execute(site, primary, _FILES, database=databases[oid], files=files)
                found = dict(_pairs(rows))
                for relation in listed:
                    name = found.get(relation.split("/")[2])
                    names[relation] = f"{databases[oid]}.{name or relation.split('/')[2]}"
    except HarborHaError:
        return names
    return names


def _pairs(rows: list[list[Any]]) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in rows]


# A toast table is named by what it belongs to; a table of another tablespace has another first number.
_FILES = """
SELECT f, coalesce(owner.oid, c.oid)::regclass
  FROM unnest(string_to_array(:'files', ',')::oid[]) AS f
  JOIN pg_class c ON pg_relation_filenode(c.oid) = f
  LEFT JOIN pg_class owner ON owner.reltoastrelid = c.oid
"""
