"""Write the `repositories/` tree of Harbor's storage as a tar to standard output, without opening its files.

A link below a digest's directory says nothing but that digest, so it is written from its path; on NFS,
opening millions of them is most of a night. Only `tags/<tag>/current/link` is read: it can change.
"""

import json
import os
import re
import sys
from operator import attrgetter
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Set, Tuple

from tasks.on_node.files import Planted, opened_regular

LINK_BYTES = 71
NAMED_AT_MOST = 100
DERIVED = re.compile(
    r"(?:_layers|_manifests/revisions|_manifests/tags/[^/]+/index|_manifests/signatures)/.*?"
    r"(sha256)/([0-9a-f]{64})/link$"
)
LINK = re.compile(rb"sha(?:256|512):[0-9a-f]{64,128}$")
REPOSITORY = re.compile(r"/_(?:layers|manifests)/")

# Every link is a regular file 0644 of Harbor's user. tarfile needs 50 us for a header, which is most of an hour
# for a large registry; only name, size and checksum differ, so the rest is made once.
RECORD = 10240
BLOCK = 512
OWNED = b"0000644\0" + b"0023420\0" * 2
NOBODYS = b"0000000\0" * 3
FLUSH = 1 << 20

by_name = attrgetter("name")


def header(name: bytes, size: int, owned: bytes, kind: bytes) -> bytes:
    """One block of GNU tar for a name of at most 100 bytes."""
    front = name.ljust(100, b"\0") + owned + b"%011o\0" % size + b"%011o\0" % 0
    back = kind + bytes(100) + b"ustar  \0" + bytes(247)
    checksum = sum(front) + sum(back) + 8 * ord(" ")
    return front + b"%06o\0 " % checksum + back


class Archive:
    """A GNU tar, as tarfile writes it, for files that differ in name and content only."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._waiting = bytearray()
        self._written = 0
        self._fronts: Dict[int, Tuple[bytes, bytes, int, bytes]] = {}
        self._longs: Dict[int, Tuple[bytes, bytes]] = {}

    def add(self, path: str, data: bytes) -> None:
        """Write one file."""
        name = os.fsencode(path)
        front, back, checksum, padding = self._fronts.get(len(data)) or self._front(len(data))
        long_name: Tuple[bytes, ...] = ()
        if len(name) > 100:
            before, behind = self._longs.get(len(name)) or self._long(len(name))
            long_name, name = (before, name, behind), name[:100]
        checked = b"%06o\0 " % (checksum + sum(name))
        self._waiting += b"".join((*long_name, name.ljust(100, b"\0"), front, checked, back, data, padding))
        if len(self._waiting) > FLUSH:
            self._flush()

    def close(self) -> None:
        """Write the end."""
        self._waiting += bytes(2 * BLOCK)
        self._waiting += bytes(-(self._written + len(self._waiting)) % RECORD)
        self._flush()

    def _front(self, size: int) -> Tuple[bytes, bytes, int, bytes]:
        """What comes before and behind a header's checksum, that of no name, and what fills up the content."""
        made = header(b"", size, OWNED, b"0")
        self._fronts[size] = made[100:148], made[156:], int(made[148:154], 8), bytes(-size % BLOCK)
        return self._fronts[size]

    def _long(self, length: int) -> Tuple[bytes, bytes]:
        """What comes before and behind a name of more than 100 bytes."""
        size = length + 1
        self._longs[length] = header(b"././@LongLink", size, NOBODYS, b"L"), bytes(1 + -size % BLOCK)
        return self._longs[length]

    def _flush(self) -> None:
        self._target.write(self._waiting)
        self._written += len(self._waiting)
        self._waiting = bytearray()


def walk(top: str, start: str) -> "Iterator[Tuple[str, os.DirEntry[str]]]":
    """Yield (relative path, DirEntry) of all files below, directory by directory, without uploads in flight."""
    waiting = [start]
    while waiting:
        relative = waiting.pop()
        try:
            with os.scandir(top + "/" + relative) as found:
                entries = list(found)
        except FileNotFoundError:
            # No image was ever pushed, or a repository was deleted while we walk.
            continue
        if len(entries) > 1:  # below a digest there is one
            entries.sort(key=by_name)
        below = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "_uploads":
                    below.append(relative + "/" + entry.name)
            elif entry.is_file(follow_symlinks=False):
                yield relative + "/" + entry.name, entry
        below.reverse()
        waiting += below


def content_of(path: str, entry: "os.DirEntry[str]") -> Optional[bytes]:
    """The bytes of a link file; None when it is damaged."""
    derived = DERIVED.search(path)
    if derived and entry.stat(follow_symlinks=False).st_size == LINK_BYTES:
        return ("sha256:" + derived.group(2)).encode()
    try:
        with opened_regular(entry.path) as source:
            data = source.read(4096)
    except Planted:
        return None
    # An empty link is what a full disk or a power cut leaves; restored, it would hide the good blob for ever.
    return data if LINK.match(data) else None


def pack(root: str, target: BinaryIO) -> Dict[str, Any]:
    """Write the archive and return what was found."""
    files, damaged_count = 0, 0
    repositories: Set[str] = set()
    damaged: List[str] = []
    archive = Archive(target)
    for path, entry in walk(root, "repositories"):
        data = content_of(path, entry) if entry.name == "link" else None
        if data is None:
            damaged_count += 1
            if len(damaged) < NAMED_AT_MOST:
                damaged.append(path)
            continue
        archive.add(path, data)
        files += 1
        repositories.add(REPOSITORY.split(path, 1)[0])
    archive.close()
    return {
        "files": files,
        "repositories": len(repositories),
        "damaged": damaged,
        "damaged_count": damaged_count,
    }


if __name__ == "__main__":
    json.dump(pack(sys.argv[1], sys.stdout.buffer), sys.stderr)
    sys.stderr.write("\n")
