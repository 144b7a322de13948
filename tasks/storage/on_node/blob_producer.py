"""Runs on a node: send the content of many blobs over one channel.

Input: a line of JSON with the directory, then raw digests of 32 bytes until the end. Output: for each blob
its digest, its size (eight bytes, big endian) and its content; a size of NO_BLOB means that there is none,
UNREADABLE that it could not be opened (then four bytes and a reason follow). A file that becomes shorter
while it is read is filled up with zeros: its hash says that it is wrong, and the frame stays in step.
"""

import binascii
import json
import os
import struct
import sys
from contextlib import ExitStack, suppress
from typing import BinaryIO

from tasks.on_node.files import opened_regular

NO_BLOB = 2**64 - 1
UNREADABLE = 2**64 - 2
BLOCK = 1 << 20
# The kernel takes no more at a time.
MOST = 1 << 30


def send(root: str, digest: bytes, out: BinaryIO) -> None:
    """Write one frame."""
    name = binascii.hexlify(digest).decode()
    path = os.path.join(root, name[:2], name, "data")
    with ExitStack() as stack:
        try:
            # The storage is Harbor's user's: behind a link that he has put there may be any file of root's.
            source = stack.enter_context(opened_regular(path))
        except FileNotFoundError:
            out.write(digest + struct.pack(">Q", NO_BLOB))
            return
        except OSError as error:
            reason = str(error.strerror or "it is a link, or no regular file").encode()
            out.write(digest + struct.pack(">QI", UNREADABLE, len(reason)) + reason)
            return
        left = os.fstat(source.fileno()).st_size
        out.write(digest + struct.pack(">Q", left))
        if left >= BLOCK:
            out.flush()
            left -= straight(source.fileno(), out.fileno(), left)
        while left > 0:
            try:
                block = source.read(min(BLOCK, left))
            except OSError:
                block = b""
            if not block:
                block = bytes(min(BLOCK, left))
            out.write(block)
            left -= len(block)


def straight(source: int, target: int, size: int) -> int:
    """Let the kernel pass content on without copying it twice; returns how much it did, the rest is to be copied."""
    done = 0
    with suppress(
        OSError
    ):  # it cannot between these two, or the file cannot be read on, which its next read will say
        while done < size:
            sent = os.sendfile(target, source, done, min(MOST, size - done))
            if not sent:
                break
            done += sent
    os.lseek(source, done, os.SEEK_SET)
    return done


def main() -> None:
    """Serve one batch."""
    given = json.loads(sys.stdin.buffer.readline().decode())
    digests = sys.stdin.buffer.read()
    out = sys.stdout.buffer
    for start in range(0, len(digests), 32):
        send(given["blobs"], digests[start : start + 32], out)
    out.flush()


if __name__ == "__main__":
    main()
