"""The PostgreSQL server that a backup reads from, or that a restore writes to, as programs reach it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.hosts.connection import Host
from tasks.postgres.layout import Layout

SOCKETS = "/var/run/postgresql"


@dataclass(frozen=True)
class Server:
    """One PostgreSQL server on a node, reached through its socket: no password, its own client programs.

    Attributes:
        programs: the directory of psql, pg_dump… of the server's own major version.
        port: the port in its socket's name.
        sockets: the directory of its socket.
        user: the operating system user that the programs run as.
        role: whom they connect as; empty: the role of the user's name.
        passfile: of that role, where it needs a password.
    """

    programs: str
    port: int
    sockets: str = SOCKETS
    user: str = "postgres"
    role: str = ""
    passfile: str = ""

    def command(self, program: str, *arguments: str) -> list[str]:
        """The argument list of a client program that connects to this server and never asks for a password."""
        role = ["-U", self.role] if self.role else []
        password = ["env", f"PGPASSFILE={self.passfile}"] if self.passfile else []
        return [
            *password,
            f"{self.programs}/{program}",
            "-h",
            self.sockets,
            "-p",
            str(self.port),
            *role,
            "-w",
            *arguments,
        ]

    def psql(self, database: str, *arguments: str) -> list[str]:
        """psql for programs: no start-up file, bare tab-separated rows in UTF-8, the first error ends it."""
        bare = ["-X", "-A", "-t", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", database]
        # Without it the answer comes in the database's encoding, and a name in Latin-1 ends the night.
        return ["env", "PGCLIENTENCODING=UTF8", *self.command("psql", *bare, *arguments)]


def server_of(layout: Layout) -> Server:
    """The site's own cluster on a node."""
    return Server(layout.bin, layout.port)


def query(
    host: Host, server: Server, database: str, sql: str, *, timeout: float = 60.0, values: Sequence[str] = ()
) -> list[list[str]]:
    """Run SQL and return its rows as text.

    Args:
        host: the node.
        server: which server on it.
        database: where to run it.
        sql: statements; psql's `:'v0'`, `:"v1"`… stand for the values.
        timeout: seconds.
        values: bound by psql's own quoting, so that no name or text is ever pasted into SQL.

    Raises:
        RemoteCommandFailed: the server refused; nothing after the failed statement was run.
    """
    settings = [f"\\set v{number} {_quoted(value)}" for number, value in enumerate(values)]
    script = "\n".join([*settings, sql, ""])
    done = host.run(server.psql(database, "-f", "-"), stdin=script, user=server.user, timeout=timeout)
    return [line.split("\t") for line in done.stdout.splitlines()]


def _quoted(text: str) -> str:
    # psql reads C-style escapes inside single quotes.
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
