"""List the blobs in Harbor's storage: digest, tab, size (or only the digest), sorted, one a line."""

import os
import sys
from typing import Iterator, TextIO


def directories(path: str) -> Iterator[str]:
    """Names in a directory, sorted; none when it is missing."""
    try:
        with os.scandir(path) as found:
            names = sorted(entry.name for entry in found)
    except FileNotFoundError:
        return
    yield from names


def digests(root: str) -> Iterator[str]:
    """The hexadecimal digests of all blob directories, sorted, without looking into them.

    Two levels of readdir: on NFS, a million opened directories are the difference between a minute and a night.
    """
    base = os.path.join(root, "blobs", "sha256")
    for prefix in directories(base):
        for name in directories(os.path.join(base, prefix)):
            if len(name) == 64 and name.startswith(prefix):
                yield name


def write(root: str, sizes: bool, target: TextIO) -> None:
    """Write the list."""
    base = os.path.join(root, "blobs", "sha256")
    for name in digests(root):
        if not sizes:
            target.write("sha256:" + name + "\n")
            continue
        try:
            size = os.stat(os.path.join(base, name[:2], name, "data")).st_size
        except FileNotFoundError:
            continue  # a directory without data is what garbage collection leaves for a moment
        target.write("sha256:" + name + "\t" + str(size) + "\n")


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2:] == ["--sizes"], sys.stdout)
