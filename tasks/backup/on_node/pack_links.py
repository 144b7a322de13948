"""Write the `repositories/` tree of Harbor's storage as a tar to standard output, without opening its files.

A link below a digest's directory says nothing but that digest, so it is written from its path; on NFS,
opening millions of them is most of a night. Only `tags/<tag>/current/link` is read: it can change.
"""

# ruff: noqa: UP006, UP035, UP045 - Python 3.6

import io
import json
import os
import re
import sys
import tarfile
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Set, Tuple

LINK_BYTES = 71
NAMED_AT_MOST = 100
DERIVED = re.compile(
    r"(?:_layers|_manifests/revisions|_manifests/tags/[^/]+/index|_manifests/signatures)/.*?"
    r"(sha256)/([0-9a-f]{64})/link$"
)


def walk(top: str, relative: str = "") -> "Iterator[Tuple[str, os.DirEntry[str]]]":
    """Yield (relative path, DirEntry) of all files below, sorted, uploads in flight left out."""
    try:
        with os.scandir(os.path.join(top, relative)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        # No image was ever pushed, or a repository was deleted while we walk.
        return
    for entry in entries:
        path = os.path.join(relative, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if entry.name != "_uploads":
                yield from walk(top, path)
        elif entry.is_file(follow_symlinks=False):
            yield path, entry


def content_of(path: str, entry: "os.DirEntry[str]") -> Optional[bytes]:
    """The bytes of a link file; None when it is damaged."""
    derived = DERIVED.search(path)
    if derived and entry.stat(follow_symlinks=False).st_size == LINK_BYTES:
        return ("sha256:" + derived.group(2)).encode()
    with open(entry.path, "rb") as source:
        data = source.read(4096)
    # An empty link is what a full disk or a power cut leaves; restored, it would hide the good blob for ever.
    return data if re.match(rb"sha(256|512):[0-9a-f]{64,128}$", data) else None


def pack(root: str, target: BinaryIO) -> Dict[str, Any]:
    """Write the archive and return what was found."""
    files, damaged_count = 0, 0
    repositories: Set[str] = set()
    damaged: List[str] = []
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for path, entry in walk(root, "repositories"):
            data = content_of(path, entry) if entry.name == "link" else None
            if data is None:
                damaged_count += 1
                if len(damaged) < NAMED_AT_MOST:
                    damaged.append(path)
                continue
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.uid, info.gid = len(data), 0o644, 10000, 10000
            archive.addfile(info, io.BytesIO(data))
            files += 1
            repositories.add(re.split(r"/_(?:layers|manifests)/", path)[0])
    return {
        "files": files,
        "repositories": len(repositories),
        "damaged": damaged,
        "damaged_count": damaged_count,
    }


if __name__ == "__main__":
    json.dump(pack(sys.argv[1], sys.stdout.buffer), sys.stderr)
    sys.stderr.write("\n")
