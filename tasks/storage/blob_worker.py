"""A process of its own that copies a share of the blobs; started by `blob_processes`.

Input: a line of JSON (where from, where to, how long; with the secrets, which is why it is the input), then raw
digests. Output: a line of JSON for each blob that arrived, and one at the end with the result or the error.
"""

import base64
import json
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO

from blocks import OssBucket, SshHost
from tasks.backup.format.blobs import KnownBlob
from tasks.hosts.connection import Host, connect
from tasks.storage.bandwidth import Bandwidth
from tasks.storage.blob_plan import share_of_plan
from tasks.storage.blobs import THREADS, Lanes, copy_blobs
from tasks.storage.store import open_store


def serve(source: BinaryIO, target: BinaryIO, reach: Callable[[SshHost], Host] = connect) -> None:
    """Copy what the input asks for; an error is part of the output."""
    order = json.loads(source.readline())
    packed = source.read()

    def say(line: dict[str, Any]) -> None:
        # When the parent was killed this fails, which ends the copy.
        target.write(json.dumps(line).encode() + b"\n")
        target.flush()

    def stored(blob: KnownBlob) -> None:
        say({"blob": blob._asdict()})

    budget = order["budget_s"]
    try:
        result = copy_blobs(
            reach(SshHost(**order["node"])),
            order["blob_root"],
            open_store(
                OssBucket(**order["oss"]),
                order["site"],
                threads=THREADS,
                bandwidth=Bandwidth(order["bytes_per_s"]),
            ),
            share_of_plan(packed),
            on_stored=stored,
            deadline=None if budget is None else time.monotonic() + budget,
            lanes=Lanes(**order["lanes"]),
        )
    except Exception as error:
        say({"error": base64.b64encode(pickle.dumps(error)).decode()})
    else:
        say({"result": asdict(result)})


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
