"""Runs on a node: name every blob of the registry, as raw digests, without opening one.

Two levels of directories are listed and nothing is looked into: on a NAS that is 256 requests where looking
at every blob would be a million. Output: for each of the 256 first bytes a count (four bytes, big endian)
and so many digests of 32 bytes, sorted; then a line of JSON.
"""

import binascii
import json
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import List, Tuple

THREADS = 8  # a NAS answers slowly but in parallel


def list_shard(root: str, shard: str) -> Tuple[List[bytes], List[str]]:
    """Return the digests below `<root>/<two hex digits>`, and the names that are none."""
    digests, strays = [], []
    try:
        names = [entry.name for entry in os.scandir(os.path.join(root, shard))]
    except FileNotFoundError:
        return [], []
    for name in names:
        try:
            digest = binascii.unhexlify(name)
        except ValueError:
            digest = b""
        if len(digest) == 32 and name[:2] == shard and name == name.lower():
            digests.append(digest)
        else:
            strays.append(shard + "/" + name)
    digests.sort()
    return digests, strays


def main() -> None:
    """Write the inventory to standard output."""
    given = json.load(sys.stdin)
    if not os.path.isdir(given["registry"]):
        sys.exit("%s is not there: is the NAS mounted?" % given["registry"])
    shards = ["%02x" % number for number in range(256)]
    above = os.listdir(given["blobs"]) if os.path.isdir(given["blobs"]) else []
    strays = sorted(set(above) - set(shards))
    out = sys.stdout.buffer
    with ThreadPoolExecutor(THREADS) as pool:
        for digests, others in pool.map(lambda shard: list_shard(given["blobs"], shard), shards):
            out.write(struct.pack(">I", len(digests)) + b"".join(digests))
            strays += others
    out.write(json.dumps({"strays": len(strays), "sample": strays[:20]}).encode() + b"\n")


if __name__ == "__main__":
    main()
