"""A PostgreSQL for an hour: initdb in a private directory, a socket nobody else can reach, gone afterwards."""

import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.backup.server import Server
from tasks.hosts.connection import Host
from tasks.hosts.directories import make_directory

# Not the home of any cluster of Debian's, and on the disk that has room for a database.
DIRECTORY = "/var/lib/postgresql/harbor-ha-drill"
USER = "harbor-ha-drill"
# Names the socket only; nothing listens on TCP.
_PORT = 5999
_OPTIONS = (
    "listen_addresses=''",
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "archive_mode=off",
    "autovacuum=off",
    "shared_buffers=128MB",
    "maintenance_work_mem=128MB",
    "max_wal_size=2GB",
    f"port={_PORT}",
)


@contextmanager
def scratch_server(
    host: Host, programs: str, *, directory: str = DIRECTORY, user: str = "postgres"
) -> Iterator[Server]:
    """Start an empty server, and remove every trace of it afterwards.

    What a killed run left behind is stopped and removed first. It has no address to listen on and, where the kernel
    allows it, no network at all: a dump may hold anything.

    Args:
        host: where; the live cluster of that node is not touched.
        programs: directory of initdb, pg_ctl and postgres.
        directory: created for it alone.
        user: whom it runs as.

    Raises:
        RemoteCommandFailed: it could not be created or started.
    """
    # A name of its own: the backup's owner may be called postgres, and must not be the superuser here.
    superuser = f"scratch_{secrets.token_hex(4)}"
    server = Server(programs, _PORT, directory, user, superuser)
    data = posixpath.join(directory, "data")
    _remove(host, server, data)
    try:
        make_directory(host, directory, mode=0o700, owner=user)
        create = [
            f"{programs}/initdb",
            "-D",
            data,
            "-U",
            superuser,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        ]
        host.run(create, user=user, timeout=120)
        settings = " ".join(f"-c {option}" for option in (*_OPTIONS, f"unix_socket_directories={directory}"))
        # Its output goes to a file: a daemon that kept our channel open would keep us waiting for ever.
        start = [
            f"{programs}/pg_ctl",
            "-D",
            data,
            "-w",
            "-t",
            "60",
            "-l",
            f"{directory}/log",
            "-o",
            settings,
            "start",
        ]
        if has_namespaces(host):
            cut_off = ["unshare", "--net", "--", "runuser", "-u", user, "--"]
            host.run([*cut_off, "nice", "-n", "10", *start], timeout=90)
        else:
            host.run(["nice", "-n", "10", *start], user=user, timeout=90)
        yield server
    finally:
        _remove(host, server, data)


def has_namespaces(host: Host) -> bool:
    """Whether a program can be started without any network; a container may not be allowed to."""
    return host.run(["unshare", "--net", "--", "true"], check=False).exit_status == 0


def make_user(host: Host, name: str = USER) -> str:
    """Make the user that scratch servers run as, who owns nothing else; returns its name.

    As postgres, an error of PostgreSQL that lets a dump out of the server would end in the live data beside it.
    """
    script = (
        'id -u "$0" >/dev/null 2>&1 || '
        'exec useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$0"'
    )
    host.run(["sh", "-c", script, name])
    return name


def _remove(host: Host, server: Server, data: str) -> None:
    stop = [f"{server.programs}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"]
    host.run(stop, user=server.user, timeout=90, check=False)
    host.run(["rm", "-rf", "--", server.sockets], timeout=300)
