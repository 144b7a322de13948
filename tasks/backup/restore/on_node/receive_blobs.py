"""Take blobs from standard input into Harbor's storage: hashed, whole, under their final name or not at all.

Each comes as a line of JSON with digest and size, and that many bytes; each is answered by a line of JSON.
A truncated blob under its final name would never heal: the registry takes what is there for uploaded.
"""

import hashlib
import json
import os
import sys
from typing import IO, Any, BinaryIO, Dict, Iterator

from tasks.on_node.files import made_file, make_directories, opened_directory, put_in_place

# User and group that Harbor's containers run as.
HARBOR = (10000, 10000)
_TEMPORARY = "data.harbor-ha.tmp"
BLOCK = 1 << 20


def path_of(root: str, digest: str) -> str:
    """Where a blob lies below the storage's root."""
    name = digest[len("sha256:") :]
    if not digest.startswith("sha256:") or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise ValueError("not a digest: " + digest[:100])
    return os.path.join(root, "blobs", "sha256", name[:2], name, "data")


def receive(root: str, source: BinaryIO, digest: str, size: int) -> str:
    """Take one blob; returns an empty text, or what is wrong with it."""
    final = path_of(root, digest)
    make_directories(os.path.dirname(final), 0o755, HARBOR)
    with opened_directory(os.path.dirname(final)) as where:
        with made_file(where, _TEMPORARY, 0o644, HARBOR) as target:
            found = take(target, source, digest, size)
        if found != digest:
            os.unlink(_TEMPORARY, dir_fd=where)
            return "its content hashes to " + found
        put_in_place(where, _TEMPORARY, os.path.basename(final))
        return ""


def take(target: IO[bytes], source: BinaryIO, digest: str, size: int) -> str:
    """Write the next bytes of the stream into a file, and return the digest that they have."""
    hashed, left = hashlib.sha256(), size
    while left:
        block = source.read(min(BLOCK, left))
        if not block:
            raise EOFError("the stream ended in the middle of " + digest)
        hashed.update(block)
        target.write(block)
        left -= len(block)
    return "sha256:" + hashed.hexdigest()


def serve(root: str, source: BinaryIO) -> Iterator[Dict[str, Any]]:
    """Take blobs until the stream ends."""
    while True:
        line = source.readline()
        if not line:
            return
        given = json.loads(line.decode())
        yield {"digest": given["digest"], "problem": receive(root, source, given["digest"], given["size"])}


def main() -> None:
    """Serve; an error of the disk is one sentence."""
    try:
        for answer in serve(sys.argv[1], sys.stdin.buffer):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    except (OSError, EOFError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
