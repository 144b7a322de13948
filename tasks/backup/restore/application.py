"""PostgreSQL as Harbor itself reaches it: what stands in a restored database is run and read with Harbor's rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from blocks import HarborSite
from tasks.backup.restore.restore_database import private_directory
from tasks.backup.server import Server, server_of
from tasks.hosts.connection import Host
from tasks.postgres.layout import layout_of

# For the password, while somebody is logged in; owned by postgres and readable for nobody else.
DIRECTORY = "/var/lib/postgresql/harbor-ha-login"


@contextmanager
def as_application(site: HarborSite, host: Host) -> Iterator[Server]:
    """The site's server with Harbor's own role, by password, through the socket.

    A superuser who takes on Harbor's role is still one: a dump's statement, a trigger on a row that we change, or a
    function that fits a name better than the system's own takes the role off again. The password is the site file's;
    `postgres.set_passwords` must have been there before.

    Args:
        site: its role and password.
        host: the node, whose pg_hba.conf is ours.
    """
    server, application = server_of(layout_of(site)), site.postgres.application
    with private_directory(host, server.user, DIRECTORY) as directory:
        file = f"{directory}/password"
        line = ":".join(
            ["*"] * 3 + [_escaped(application.user), _escaped(application.password.get_secret_value())]
        )
        host.run(["sh", "-c", 'umask 077; exec cat > "$0"', file], stdin=f"{line}\n", user=server.user)
        yield replace(server, role=application.user, passfile=file)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
