"""A database server as somebody else runs it for their Harbor: on TCP, with passwords and TLS; for tests."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.live_prefect import free_port
from tests.unit.local_host import local_host
from tests.unit.local_postgres import running_postgres
from tests.unit.local_repository import certificate_for

PASSWORD = "a:b\\c 'd"
HBA = """local all all trust
hostnossl closed all 127.0.0.0/8 reject
hostnossl all all 127.0.0.0/8 scram-sha-256
hostssl all all 127.0.0.0/8 scram-sha-256
"""


@dataclass
class ElsewhereDatabase:
    """The server.

    Attributes:
        port: on TCP, and the name of its socket.
        sockets: the directory of its socket.
        roots: the authority's certificate, in PEM.
    """

    port: int
    sockets: str
    roots: str

    def sql(self, statement: str, database: str = "registry") -> str:
        """Run a statement as the superuser."""
        argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p", str(self.port)]
        return local_host().run([*argv, "-d", database], stdin=statement, user="postgres").stdout.strip()

    def section(self, **changes: Any) -> Mapping[str, Any]:
        """external_database.harbor of the harbor.yml of a Harbor that uses it."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "db_name": "registry",
            "username": "harbor",
            "password": PASSWORD,
            "ssl_mode": "disable",
        } | changes

    def content(self) -> str:
        """Everything in it: schema and rows."""
        argv = ["pg_dump", "-h", self.sockets, "-p", str(self.port), "-d", "registry"]
        lines = local_host().run(argv, user="postgres").stdout.splitlines()
        # Drawn anew for each dump.
        return "\n".join(line for line in lines if "restrict " not in line)


@contextmanager
def running_elsewhere(directory: Path) -> Iterator[ElsewhereDatabase]:
    """Start it on loopback, with the small Harbor database of `local_postgres`."""
    tls = certificate_for(directory, "localhost")
    with running_postgres(port=free_port(), listen="127.0.0.1") as server:
        data = Path(server.sockets) / "data"
        for source, name, mode in ((tls.certificate, "server.crt", 0o644), (tls.key, "server.key", 0o600)):
            place = data / name
            place.write_bytes(source.read_bytes())
            place.chmod(mode)
            if os.geteuid() == 0:
                shutil.chown(place, "postgres", "postgres")
        (data / "pg_hba.conf").write_text(HBA)
        found = ElsewhereDatabase(server.port, server.sockets, tls.certificate.read_text())
        quoted = PASSWORD.replace("'", "''")
        found.sql(f"ALTER ROLE harbor PASSWORD '{quoted}'; CREATE DATABASE closed;")
        found.sql("ALTER SYSTEM SET ssl = on;")
        found.sql("SELECT pg_reload_conf();")
        yield found


@contextmanager
def connection_from(address: str, port: int) -> Iterator[int]:
    """Lend a port of loopback whose connections reach the server from another address, as another machine's do."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        # Either end may be gone at any moment.
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
            threading.Thread(target=carry, args=(client, server), daemon=True).start()
            carry(server, client)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
