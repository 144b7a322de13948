"""SQL on a node, through psql on its own socket: no password on the wire, the server's own client."""

import json
import re
from typing import Any

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.postgres.layout import layout_of

_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def execute(
    site: HarborSite,
    host: Host,
    statements: str,
    *,
    database: str = "postgres",
    timeout: float = 30.0,
    **variables: str,
) -> list[list[str]]:
    """Run statements as the superuser and return the rows of their output.

    Args:
        site: whose cluster.
        host: the node; its own server is asked, primary or standby.
        statements: SQL, with psql's `:'name'` and `:"name"` for the variables.
        database: where to run them.
        timeout: seconds for all of it.
        variables: values that psql quotes; they travel on standard input, so secrets are fine.

    Raises:
        RemoteCommandFailed: the server refused; its message is in `stderr`.
    """
    layout = layout_of(site)
    limit_ms = max(1, int(timeout * 1000) - 500)
    lines = [
        # The statements may carry password hashes, which must not reach the server's log.
        "SET log_statement = 'none'; SET log_min_duration_statement = -1;",
        "SET log_min_error_statement = 'panic';",
        f"SET statement_timeout = {limit_ms};",
        *(f"\\set {_name(name)} {_quoted(value)}" for name, value in variables.items()),
        statements,
    ]
    argv = [
        "psql",
        "-XAtq",
        "-F",
        "\t",
        "-v",
        "ON_ERROR_STOP=1",
        "-p",
        str(layout.port),
        "-d",
        database,
        "-f",
        "-",
    ]
    done = host.run(argv, stdin="\n".join(lines) + "\n", user="postgres", timeout=timeout)
    return [line.split("\t") for line in done.stdout.splitlines()]


def value(site: HarborSite, host: Host, query: str, **options: Any) -> str:
    """Run a query that has one value and return it as text."""
    rows = execute(site, host, query, **options)
    return rows[0][0] if rows else ""


def document(site: HarborSite, host: Host, query: str, **options: Any) -> Any:
    """Run a query that has one JSON value and return it parsed."""
    return json.loads(value(site, host, query, **options))


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a psql variable: {name}")
    return name


def _quoted(text: str) -> str:
    # psql's \set reads C-style escapes inside single quotes.
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
