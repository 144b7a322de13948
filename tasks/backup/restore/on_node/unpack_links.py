"""Runs on a node: unpack the links of Harbor's storage from standard input, as Harbor's user.

As root, tar would write wherever a link leads that a container has put into the storage. The directory is entered
first: containers need no right to the directories above it.
"""

import os
import sys

from tasks.on_node.files import make_directories, opened_directory, set_directory

# User and group that Harbor's containers run as.
HARBOR = (10000, 10000)


def unpack(registry: str, below: str) -> None:
    """Make the storage's root and become tar in it; does not return."""
    make_directories(registry, 0o755)
    path = registry
    for name in below.strip("/").split("/"):
        path += "/" + name
        set_directory(path, 0o755, HARBOR)
    with opened_directory(path) as where:
        os.fchdir(where)
        if os.geteuid() == 0:
            take_from_root(where)
    os.umask(0o022)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(HARBOR[1])
        os.setuid(HARBOR[0])
    os.execvp("tar", ["tar", "-x", "-f", "-", "--no-same-permissions"])


def take_from_root(where: int) -> None:
    """Give Harbor's user the directories that somebody has made as root: the registry could not write there either."""
    for _, _, _, directory in os.fwalk(".", dir_fd=where):
        if os.fstat(directory).st_uid == 0:
            os.fchown(directory, HARBOR[0], HARBOR[1])


if __name__ == "__main__":
    unpack(sys.argv[1], sys.argv[2])
