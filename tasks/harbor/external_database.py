"""The database of a Harbor on a server outside of it: how it is reached, what it is like, and the way to read it.

It is read and never written. Before anything is changed it is looked at by libpq from here, through a tunnel that
begins at the node, which has no PostgreSQL of its own yet; later by the site's own programs on the node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tasks.hosts.connection import Host
from tasks.postgres.layout import Layout

# The names of core's environment and those of harbor.yml, for the same things.
IN_CORE = {
    "POSTGRESQL_HOST": "host",
    "POSTGRESQL_PORT": "port",
    "POSTGRESQL_DATABASE": "db_name",
    "POSTGRESQL_USERNAME": "username",
    "POSTGRESQL_SSLMODE": "ssl_mode",
}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = ("verify-ca", "verify-full")
SERVICE = "harbor-old"
# Files of root's, beside the command that puts the old Harbor back, which needs them too.
FILES = ("database.service", "database.pass", "database-ca.pem")
CONNECT_S = 10
# What Harbor 2.3, the oldest that is taken over, was delivered with; pg_dump of every major that a site may have
# reads it.
OLDEST_SERVER = 90600
LOCK_WAIT = "60s"


@dataclass(frozen=True)
class ExternalDatabase:
    """What harbor.yml says of an external database.

    Attributes:
        host, port, name, user, ssl_mode: as Harbor uses them.
        password: a secret.
    """

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    ssl_mode: str

    @property
    def address(self) -> str:
        """Server and port in one."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ExternalSeen:
    """An external database as it was seen.

    Attributes:
        address, name, user, ssl_mode: of harbor.yml; not the password.
        incomplete: keys of harbor.yml without a value that can be used.
        differs: what core runs with and harbor.yml says otherwise.
        silent: why it could not be asked, in the words of libpq or of the node's system; empty when it answered.
        version_num: as PostgreSQL counts: 150004.
        bytes: of this database.
        standby: it is in recovery, and what it shows may be old.
        empty: it has no table of Harbor's.
        schemas: other than public, with tables.
        unreadable: tables and sequences that the role may not read whole.
        extensions: those that the dump would create.
        databases: of Notary, on the same server.
        others: addresses from which the role is logged in, beside the node's.
    """

    address: str = ""
    name: str = ""
    user: str = ""
    ssl_mode: str = ""
    incomplete: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    silent: str = ""
    version_num: int | None = None
    bytes: int | None = None
    standby: bool = False
    empty: bool = False
    schemas: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def major(self) -> int | None:
        """Its major version; None when it did not answer."""
        return None if self.version_num is None else self.version_num // 10000


def section_of(text: str | None) -> Mapping[str, Any]:
    """Take external_database.harbor out of a harbor.yml; empty where there is none or it cannot be read."""
    try:
        document = yaml.safe_load(text or "")
    except Exception:
        # What is wrong with it is told by the look at harbor.yml; a parser's message may hold passwords.
        return {}
    section = document.get("external_database") if isinstance(document, Mapping) else None
    harbor = section.get("harbor") if isinstance(section, Mapping) else None
    return harbor if isinstance(harbor, Mapping) else {}


def incomplete(section: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the keys of the section that cannot be used as they are."""
    wrong = [key for key in ("host", "db_name", "username", "password") if not _usable(section.get(key))]
    if not str(section.get("port", "")).isdigit() or not 0 < int(section["port"]) < 65536:
        wrong.append("port")
    if str(section.get("ssl_mode", "")) not in SSL_MODES:
        wrong.append("ssl_mode")
    return tuple(wrong)


def database_of(section: Mapping[str, Any]) -> ExternalDatabase:
    """Read the section, in which nothing is incomplete."""
    return ExternalDatabase(
        host=str(section["host"]),
        port=int(section["port"]),
        name=str(section["db_name"]),
        user=str(section["username"]),
        password=str(section["password"]),
        ssl_mode=str(section["ssl_mode"]),
    )


def differing(section: Mapping[str, Any], core: Mapping[str, str]) -> tuple[str, ...]:
    """List where the environment of the running core and its harbor.yml name different databases."""
    pairs = [(core[name], key) for name, key in IN_CORE.items() if name in core]
    return tuple(
        f"{key} is {running} in core and {section.get(key)} in harbor.yml"
        for running, key in pairs
        if running != str(section.get(key))
    )


def service_file(database: ExternalDatabase, directory: str) -> str:
    """Render libpq's service file: everything but the password, so that no command's arguments name any of it."""
    settings: dict[str, object] = {
        "host": database.host,
        "port": database.port,
        "dbname": database.name,
        "user": database.user,
        "sslmode": database.ssl_mode,
        "passfile": f"{directory}/{FILES[1]}",
        "connect_timeout": CONNECT_S,
        "application_name": "harbor-ha",
        "gssencmode": "disable",
    }
    if database.ssl_mode in VERIFYING:
        settings["sslrootcert"] = f"{directory}/{FILES[2]}"
    lines = [f"{name}={setting}" for name, setting in settings.items()]
    return "\n".join([f"[{SERVICE}]", *lines, ""])


def pass_file(database: ExternalDatabase) -> str:
    """Render libpq's pass file. A secret."""
    escaped = database.password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


def program(layout: Layout, directory: str, name: str, *arguments: str) -> list[str]:
    """The argument list of a client program of the site's own major version that reads the external database.

    That version is the one the dump is loaded into: pg_dump reads every older server, and a dump by an older pg_dump
    may hold what a newer server does not take.
    """
    return [
        "env",
        f"PGSERVICEFILE={directory}/{FILES[0]}",
        f"{layout.bin}/{name}",
        "-w",
        *arguments,
        "-d",
        f"service={SERVICE}",
    ]


def ask(host: Host, layout: Layout, directory: str, query: str, *, timeout: float = 300.0) -> list[str]:
    """Run a query on the external database from the node, in a session that cannot write; its lines."""
    limit_ms = max(1, int(timeout * 1000) - 500)
    safe = f"SET default_transaction_read_only = on; SET statement_timeout = {limit_ms};\n"
    argv = program(layout, directory, "psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-f", "-")
    return host.run(argv, stdin=f"{safe}{query};\n", timeout=timeout).stdout.splitlines()


def dump(layout: Layout, directory: str, *more: str) -> list[str]:
    """The argument list of pg_dump; a lock that somebody holds ends it instead of the night."""
    keep = ("--no-owner", "--no-privileges", f"--lock-wait-timeout={LOCK_WAIT}")
    return program(layout, directory, "pg_dump", *keep, *more)


def shortened(names: Sequence[str], most: int = 5) -> str:
    """List names, of many only the first."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _usable(value: Any) -> bool:
    text = "" if value is None else str(value)
    return bool(text) and text.isprintable() and text == text.strip()
