"""Copy blobs with several processes: one of them spends 1 ms of CPU on each small blob, under one GIL."""

import base64
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from pydantic import SecretStr

from blocks import OssBucket, SshHost
from tasks.backup.format.blobs import KnownBlob
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.storage.bandwidth import Bandwidth
from tasks.storage.blob_plan import BlobPlan, share_of_plan
from tasks.storage.blobs import THREADS, CopyResult, Lanes, copy_blobs
from tasks.storage.store import open_store

# Shares are dealt out in turns of so many, so that what comes first in the plan is copied first by all.
_TURN = 64
WORKER = (sys.executable, "-m", "tasks.storage.blob_worker")

# Below these a second process costs more (two seconds of imports) than it gains.
_ENOUGH_BLOBS = 2000
_ENOUGH_BYTES = 2 << 30
# SSH's ciphers, OSS's TLS and the copy itself share the cores: on two of them, two processes were slower.
_CORES_A_PROCESS = 2
# Each has an SSH connection to the node, up to 100 MB of memory, and its share of what the NAS can give.
_MOST = 4


def processes_for(blobs: int, size: int, cores: int | None = None) -> int:
    """How many processes copy so much fastest: one SSH connection, one process's hashing fill no more than two cores.

    Args:
        blobs: how many.
        size: their bytes, as far as they are known.
        cores: of this machine.
    """
    if blobs < _ENOUGH_BLOBS and size < _ENOUGH_BYTES:
        return 1
    return max(1, min(_MOST, (cores or os.cpu_count() or 1) // _CORES_A_PROCESS, blobs))


class WorkerLost(HarborHaError):
    """A process that copied blobs ended without saying how."""


def copy_in_processes(
    host: Host,
    node: SshHost,
    settings: OssBucket,
    site: str,
    blob_root: str,
    plan: BlobPlan,
    *,
    processes: int = 2,
    bytes_per_s: float | None = None,
    on_stored: Callable[[KnownBlob], None] = lambda blob: None,
    deadline: float | None = None,
    lanes: Lanes | None = None,
    command: Sequence[str] = WORKER,
) -> CopyResult:
    """Copy the planned blobs as `copy_blobs` does, in several processes with a connection each.

    This process is one of them: another costs 1.7 s of CPU until it has imported everything.

    Args:
        host: a node that sees the storage.
        node: the same, for the other processes.
        settings: the bucket; with `site`, where the keys begin.
        blob_root: the directory of the blobs on the node.
        plan: what, in which order.
        processes: how many with this one; the bandwidth is shared out evenly.
        bytes_per_s: limit of all of them together.
        on_stored: called for every blob that arrived, by one thread at a time.
        deadline: `time.monotonic()` after which no further blob is begun.
        lanes: how wide each process is.
        command: what to start; tests replace it.

    Raises:
        What `copy_blobs` raises, and WorkerLost. What was copied stays; the other processes finish first.
    """
    guard = threading.Lock()

    def stored(blob: KnownBlob) -> None:
        with guard:
            on_stored(blob)

    limit = bytes_per_s / processes if bytes_per_s else None
    order = {
        "node": _plain(node),
        "oss": _plain(settings),
        "site": site,
        "blob_root": blob_root,
        "bytes_per_s": limit,
        "lanes": asdict(lanes or Lanes()),
    }
    mine, *others = _shares(plan, processes) or [b""]
    store = open_store(settings, site, threads=THREADS, bandwidth=Bandwidth(limit))
    with ThreadPoolExecutor(processes, thread_name_prefix="blob-process") as pool:
        running = [pool.submit(_run, command, order, share, deadline, stored) for share in others]
        here = copy_blobs(
            host, blob_root, store, share_of_plan(mine), on_stored=stored, deadline=deadline, lanes=lanes
        )
    return _together([here, *(one.result() for one in running)])


def _plain(block: SshHost | OssBucket) -> dict[str, Any]:
    """The block's own fields, secrets in clear: only ever written to a child's standard input."""
    values = {name: getattr(block, name) for name in type(block).model_fields if not name.startswith("_")}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
    }


def _shares(plan: BlobPlan, count: int) -> list[bytes]:
    shares = [bytearray() for _ in range(count)]
    for number, turn in enumerate(plan.batches(_TURN)):
        shares[number % count] += turn
    return [bytes(share) for share in shares if share]


def _run(
    command: Sequence[str],
    order: dict[str, Any],
    share: bytes,
    deadline: float | None,
    stored: Callable[[KnownBlob], None],
) -> CopyResult:
    budget = None if deadline is None else max(0.0, deadline - time.monotonic())
    with subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({**order, "budget_s": budget}).encode() + b"\n" + share)
            process.stdin.close()
            for line in process.stdout:
                said = json.loads(line)
                if "blob" in said:
                    stored(KnownBlob(**said["blob"]))
                elif "error" in said:
                    raise pickle.loads(base64.b64decode(said["error"]))
                else:
                    return _result(said["result"])
        except BrokenPipeError:
            pass  # it ended before it had read everything; its status is all there is to tell
        finally:
            process.kill()
    raise WorkerLost(
        f"A process that copied blobs ended with status {process.returncode}.",
        meaning="What it had copied is in the bucket.",
        remedy="Run the flow again; look for the kernel's out-of-memory messages.",
    )


def _result(values: dict[str, Any]) -> CopyResult:
    return CopyResult(
        values["copied"],
        values["copied_bytes"],
        values["left"],
        tuple(values["corrupt"]),
        tuple(values["vanished"]),
        tuple((digest, reason) for digest, reason in values["unreadable"]),
    )


def _together(results: list[CopyResult]) -> CopyResult:
    return CopyResult(
        sum(result.copied for result in results),
        sum(result.copied_bytes for result in results),
        sum(result.left for result in results),
        tuple(sorted(digest for result in results for digest in result.corrupt)),
        tuple(sorted(digest for result in results for digest in result.vanished)),
        tuple(sorted(pair for result in results for pair in result.unreadable)),
    )
