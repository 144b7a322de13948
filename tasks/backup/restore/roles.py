"""The roles that a dump's rights and policies name, out of the backup's own list: names, and nothing else of them."""

import re

from tasks.backup.format.manifest import Manifest
from tasks.backup.restore.fetch import Origin, opened, whole
from tasks.backup.server import Server, query
from tasks.errors import RemoteCommandFailed
from tasks.hosts.connection import Host

# As pg_dumpall writes it, one a line; a quoted name may hold anything.
_CREATE = re.compile(r'^CREATE ROLE (?:"((?:[^"]|"")+)"|([a-z_][a-z0-9_$]*));$', re.MULTILINE)

_MAKE = r"""
SELECT format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', :'v0')
WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = :'v0')
\gexec
"""


def role_names(globals_sql: str) -> list[str]:
    """The roles that `pg_dumpall --globals-only` lists."""
    found = ((match[1] or "").replace('""', '"') or match[2] for match in _CREATE.finditer(globals_sql))
    return list(dict.fromkeys(found))


def make_roles(host: Host, server: Server, origin: Origin, manifest: Manifest) -> list[str]:
    """Make the backup's roles where they are missing: none of them can log in, or may do anything.

    Passwords, memberships and attributes are not taken over: a restore is no reason to let somebody in again.

    Returns:
        those that could not be made, such as names that a newer PostgreSQL reserves.
    """
    artifact = manifest.artifact("globals")

    def read() -> bytes:
        with opened(origin, artifact) as source:
            return source.read()

    refused = []
    for name in role_names(whole(origin, read).decode("utf-8", "replace")):
        try:
            query(host, server, "postgres", _MAKE, values=[name])
        except RemoteCommandFailed:
            refused.append(name)
    return refused
