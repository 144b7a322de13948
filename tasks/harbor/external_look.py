"""Look at the external database of a Harbor that is to be adopted, as the node reaches it. Changes nothing."""

import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from tasks.harbor.external_database import (
    CONNECT_S,
    OLDEST_SERVER,
    VERIFYING,
    ExternalDatabase,
    ExternalSeen,
    database_of,
    differing,
    incomplete,
)
from tasks.hosts.connection import Host
from tasks.hosts.tunnel import Tunnel, tunnel

_TIMEOUT_S = 60.0
_STATEMENT_S = 20
_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
# What an extension has brought is no table of Harbor's, and no dump holds it.
_OWN = "NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')"
_VERSION = "SELECT current_setting('server_version_num')::int"
_QUERIES = {
    "bytes": "SELECT pg_database_size(current_database())",
    "standby": "SELECT pg_is_in_recovery()",
    "empty": "SELECT to_regclass('public.schema_migrations') IS NULL",
    "schemas": "SELECT DISTINCT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    f" WHERE c.relkind IN ('r', 'p', 'm', 'S') AND {_OURS} AND {_OWN} AND n.nspname <> 'public' ORDER BY 1",
    # Where row security applies to the role, a dump of it would be a part; pg_dump refuses that.
    "unreadable": "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n"
    f" ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm', 'S') AND {_OURS} AND {_OWN} AND"
    " (NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')"
    " OR row_security_active(c.oid)) ORDER BY 1",
    "extensions": "SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1",
    "databases": "SELECT datname::text FROM pg_database WHERE datname IN ('notaryserver', 'notarysigner') ORDER BY 1",
    # Of other roles' sessions the server tells no address; another Harbor on this database uses this role.
    "others": "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE datname = current_database()"
    " AND usename = current_user AND pid <> pg_backend_pid() AND client_addr <> inet_client_addr() ORDER BY 1",
}
_LISTS = ("schemas", "unreadable", "extensions", "databases", "others")


def look_at(host: Host, section: Mapping[str, Any], core: Mapping[str, str], roots: str) -> ExternalSeen:
    """Look at the database that a harbor.yml names.

    Args:
        host: the node of the Harbor; the server is reached from there.
        section: external_database.harbor.
        core: of the environment of its running core.
        roots: certificates that a server's is verified by, in PEM.
    """
    known = {name: str(section.get(key, "")) for name, key in _TOLD.items()}
    told: dict[str, Any] = {
        **known,
        "address": f"{section.get('host', '?')}:{section.get('port', '?')}",
        "incomplete": incomplete(section),
        "differs": differing(section, core),
    }
    if told["incomplete"] or told["differs"]:
        return ExternalSeen(**told)
    return ExternalSeen(**told, **_asked(host, database_of(section), roots))


_TOLD = {"name": "db_name", "user": "username", "ssl_mode": "ssl_mode"}


def _asked(host: Host, database: ExternalDatabase, roots: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="harbor-ha-") as directory:
        bundle = Path(directory) / "roots.pem"
        bundle.write_text(roots)
        try:
            with tunnel(host, database.host, database.port, timeout=_TIMEOUT_S) as lent:
                return _answers(database, lent, str(bundle))
        except psycopg2.Error as error:
            # With the context the tunnel has ended: by now it knows whether the node reached the server.
            said = lent.failures[0] if lent.failures else _in_words(error, database)
            return {"silent": said}


def _answers(database: ExternalDatabase, lent: Tunnel, bundle: str) -> dict[str, Any]:
    verified: dict[str, Any] = {"sslrootcert": bundle} if database.ssl_mode in VERIFYING else {}
    with closing(
        psycopg2.connect(
            # Its name is what a certificate is compared with; the address is the tunnel's.
            host=database.host,
            hostaddr="127.0.0.1",
            port=lent.port,
            dbname=database.name,
            user=database.user,
            password=database.password,
            sslmode=database.ssl_mode,
            connect_timeout=CONNECT_S,
            gssencmode="disable",
            application_name="harbor-ha",
            client_encoding="UTF8",
            **verified,
        )
    ) as session:
        session.set_session(readonly=True)
        with session.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = %s", (f"{_STATEMENT_S}s",))
            version = _answer(cursor, "version_num", _VERSION)
            if version < OLDEST_SERVER:
                # What is asked next it may not know, and it is refused for its age.
                return {"version_num": version}
            answers = {name: _answer(cursor, name, query) for name, query in _QUERIES.items()}
            return {"version_num": version, **answers}


def _answer(cursor: Any, name: str, query: str) -> Any:
    cursor.execute(query)
    rows = [row[0] for row in cursor.fetchall()]
    return tuple(rows) if name in _LISTS else rows[0]


def _in_words(error: psycopg2.Error, database: ExternalDatabase) -> str:
    """Give what libpq said, on one line and without the address, which is the tunnel's, and without the password."""
    said = " ".join(str(error).split())
    said = said.partition("failed: ")[2] or said
    return said.replace(database.password, "...")[:300]
