"""Directories on a node that belong to one of its users."""

from tasks.hosts.connection import PUT, Host


def make_directory(host: Host, path: str, *, mode: int, owner: str) -> None:
    """Make a directory on the node, or give the one that is there this owner and mode.

    `install -d` and `chown` follow a link in the last place: the user of the directory above could have root give
    away any directory of the machine.

    Args:
        host: the node.
        path: the directory; what is missing above it is made for root.
        mode: its mode.
        owner: the user, whose group of the same name it gets.

    Raises:
        RemoteCommandFailed: a link or a file has its name.
    """
    host.python(PUT, {"path": path, "data": None, "mode": mode, "owner": f"{owner}:{owner}"})
