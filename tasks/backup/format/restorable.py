"""What of an archive is restored, and what is left out by name: decided alike by the night, the drill and the restore.

A restore runs without the rights of a superuser, on a PostgreSQL that has what the distribution's packages bring, and
the restored copy speaks with nobody. What needs more than that must be known before the day on which it is missing.
"""

import re
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass

from tasks.backup.format.contents import Entry, listed

# What PostgreSQL itself comes with, in every major since 13: a plain server can make these again.
PLAIN_EXTENSIONS = frozenset(
    listed("""
amcheck, autoinc, bloom, btree_gin, btree_gist, citext, cube, dblink, dict_int, dict_xsyn,
earthdistance, file_fdw, fuzzystrmatch, hstore, insert_username, intagg, intarray, isn, lo, ltree,
moddatetime, pageinspect, pg_buffercache, pg_freespacemap, pg_prewarm, pg_stat_statements, pg_trgm,
pg_visibility, pgcrypto, pgrowlocks, pgstattuple, plpgsql, postgres_fdw, refint, seg, sslinfo,
tablefunc, tcn, tsm_system_rows, tsm_system_time, unaccent, uuid-ossp, xml2
""")
)

_REPLICATION = "replication of a lost site is set up anew"
_ELSEWHERE = "a restored copy speaks with no other server"
_SUPERUSER = "only a superuser can make it"
_BY_KIND = {
    "PUBLICATION": _REPLICATION,
    "PUBLICATION TABLE": _REPLICATION,
    "PUBLICATION TABLES IN SCHEMA": _REPLICATION,
    "SUBSCRIPTION": _ELSEWHERE,
    "SUBSCRIPTION TABLE": _ELSEWHERE,
    "SERVER": _ELSEWHERE,
    "USER MAPPING": _ELSEWHERE,
    "FOREIGN TABLE": _ELSEWHERE,
    "FOREIGN DATA WRAPPER": _ELSEWHERE,
    "EVENT TRIGGER": _SUPERUSER,
    "PROCEDURAL LANGUAGE": _SUPERUSER,
    "ACCESS METHOD": _SUPERUSER,
    "OPERATOR CLASS": _SUPERUSER,
    "OPERATOR FAMILY": _SUPERUSER,
    "TEXT SEARCH PARSER": _SUPERUSER,
    "TEXT SEARCH TEMPLATE": _SUPERUSER,
    "SHELL TYPE": _SUPERUSER,
    "SECURITY LABEL": "its provider is a module that a plain server lacks",
    "DATABASE PROPERTIES": "settings of a database are made anew",
}
# pg_restore skips these by itself, or they say nothing that a human misses.
_SILENT = frozenset(("DATABASE", "ENCODING", "STDSTRINGS", "SEARCHPATH"))
_DETAILS = frozenset(
    listed("""
ACL, COMMENT, CONSTRAINT, CHECK CONSTRAINT, DEFAULT, INDEX ATTACH, ROW SECURITY, SECURITY LABEL,
SEQUENCE OWNED BY, SEQUENCE SET, TABLE ATTACH, TABLE DATA, MATERIALIZED VIEW DATA, FK CONSTRAINT
""")
)
# What a restore may fail to make without losing a row or a rule of Harbor's: it is named, and goes on.
OPTIONAL = frozenset(
    listed("""
ACL, AGGREGATE, CAST, COLLATION, COMMENT, CONVERSION, DEFAULT ACL, FUNCTION, MATERIALIZED VIEW,
MATERIALIZED VIEW DATA, OPERATOR, POLICY, PROCEDURE, RULE, STATISTICS, STATISTICS DATA, TEXT SEARCH
CONFIGURATION, TEXT SEARCH DICTIONARY, TRANSFORM, VIEW, ?
""")
) | frozenset(_BY_KIND)

_LANGUAGE = re.compile(r"^    LANGUAGE (\S+)(.*)$", re.MULTILINE)
_CLAUSES_OF_SUPERUSERS = re.compile(r" LEAKPROOF\b(?<!NOT LEAKPROOF)| SUPPORT ")
_EXTENSION = re.compile(
    r'CREATE EXTENSION IF NOT EXISTS (?P<name>"(?:[^"]|"")+"|[a-z_0-9]+) '
    r'WITH SCHEMA (?P<schema>"(?:[^"]|"")+"|[a-z_0-9]+);'
)


@dataclass(frozen=True)
class World:
    """What an archive is restored into.

    Attributes:
        owner: the role that owns the database and everything in it.
        extensions: those that the server has.
    """

    owner: str
    extensions: frozenset[str] = PLAIN_EXTENSIONS


def left_out(contents: Sequence[Entry], world: World) -> dict[int, str]:
    """Say which entries are not restored, each with its reason; all that needs one of them is among them."""
    known = {entry.number for entry in contents}
    reasons: dict[int, str] = {}
    for entry in contents:
        if reason := _own_reason(entry, known, world):
            reasons[entry.number] = reason
    names = {entry.number: entry.says for entry in contents}
    grew = True
    while grew:
        grew = False
        for entry in contents:
            if entry.number in reasons or entry.kind in _SILENT:
                continue
            if missing := sorted(entry.needs & reasons.keys()):
                reasons[entry.number] = f"it needs {names[missing[0]]}"
                grew = True
    return reasons


def told(contents: Sequence[Entry], reasons: dict[int, str]) -> list[str]:
    """Tell what is left out, one sentence each; rights and comments go with the thing that they are of."""
    lines = []
    for entry in contents:
        reason = reasons.get(entry.number)
        if reason is None or (entry.kind in _DETAILS and entry.needs & reasons.keys()):
            continue
        if entry.kind == "COMMENT" or (entry.kind == "TABLE DATA" and not entry.name):
            continue
        rows = " with its rows" if entry.kind == "TABLE" else ""
        lines.append(f"{entry.says}{rows}: {reason}")
    return lines


def foreign_owners(contents: Sequence[Entry], owner: str) -> list[str]:
    """Owners whose things will belong to the database's owner; extensions and comments have none."""
    kinds = frozenset(
        ("TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FUNCTION", "PROCEDURE", "SCHEMA", "TYPE")
    )
    found = {entry.owner for entry in contents if entry.kind in kinds and entry.owner not in ("", "-", owner)}
    return sorted(found - {"pg_database_owner"})


def tables_left_out(contents: Sequence[Entry], reasons: Collection[int]) -> set[str]:
    """`schema.table` of the tables that are not restored, as the manifest counts them."""
    tables = (entry for entry in contents if entry.kind == "TABLE" and entry.number in reasons)
    return {entry.name.replace("\t", " ") for entry in tables}


def extension_of(entry: Entry) -> tuple[str, str] | None:
    """Name and schema of an extension; None where its statement is not the one that pg_dump writes."""
    match = _EXTENSION.fullmatch(entry.statement.strip().partition("\n")[0])
    return (_unquoted(match["name"]), _unquoted(match["schema"])) if match else None


def _unquoted(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier


def _own_reason(entry: Entry, known: Set[int], world: World) -> str:
    """Why an entry cannot be restored whatever the others are; empty when it can."""
    kind, statement = entry.kind, entry.statement
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    if kind == "EXTENSION":
        extension = extension_of(entry)
        return "" if extension and extension[0] in world.extensions else "a plain server does not have it"
    if kind == "COMMENT":
        # An extension belongs to the superuser who made it again; the comment is its own.
        return "extensions bring their own" if " ON EXTENSION " in statement[:200] else ""
    if kind == "ACL":
        return _reason_of_rights(entry, known)
    if kind == "DEFAULT ACL":
        return "" if entry.owner == world.owner else "they are those of another role"
    if kind in ("TABLE DATA", "SEQUENCE SET"):
        return "" if not entry.needs or entry.needs & known else "an extension fills its own tables"
    if kind in ("FUNCTION", "PROCEDURE"):
        return _reason_of_function(statement)
    if kind == "AGGREGATE":
        return _SUPERUSER if "STYPE = internal" in statement else ""
    if kind == "CAST":
        return _SUPERUSER if "WITHOUT FUNCTION" in statement else ""
    return ""


def _reason_of_rights(entry: Entry, known: Set[int]) -> str:
    if entry.title.startswith("- DATABASE "):
        return "rights on a database are granted anew"
    if "SET SESSION AUTHORIZATION " in entry.statement:
        return "another role than the owner granted them"
    if entry.needs and not entry.needs & known and not entry.title.startswith("- SCHEMA public "):
        return "they are on something that PostgreSQL or an extension brings"
    return ""


def _reason_of_function(statement: str) -> str:
    match = _LANGUAGE.search(statement)
    if match is None:
        return ""
    language = match[1].strip('"')
    untrusted = language in ("c", "internal") or language.endswith("u")
    return _SUPERUSER if untrusted or _CLAUSES_OF_SUPERUSERS.search(match[2]) else ""
