"""Many small and some large blobs: the bare SDK, one process of ours, two of ours."""

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks.meter import Spent, measured
from benchmarks.site import Oss, oss_process
from blocks import SshHost
from tasks.storage.blob_plan import BlobPlan
from tasks.storage.blob_processes import copy_in_processes
from tasks.storage.blobs import copy_blobs
from tasks.storage.store import open_store
from tests.unit.local_host import local_host
from tests.unit.test_storage_processes import LOCAL_WORKER

KINDS = {"small": (4000, 10_000), "large": (20, 48 << 20)}


def run() -> list[str]:
    """Measure all; returns lines for a reader."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work, oss_process(Path(work) / "server") as oss:
        return [line for kind in KINDS for line in _lines(Path(work) / kind, oss, *KINDS[kind])]


def _lines(root: Path, oss: Oss, count: int, size: int) -> list[str]:
    names = make(root, count, size)
    found = {
        "bare oss2 client, one process": measured(lambda: bare(names, root, oss, 1), oss.pid),
        "bare oss2 client, two": measured(lambda: bare(names, root, oss, 2), oss.pid),
        # What nobody may leave out: a blob whose sha256 is not its name must not get into a backup.
        "the same that hashes, one process": measured(
            lambda: bare(names, root, oss, 1, hashed=True), oss.pid
        ),
        "the same that hashes, two": measured(lambda: bare(names, root, oss, 2, hashed=True), oss.pid),
        "ours, one process": measured(lambda: ours(names, root, oss, 1), oss.pid),
        "ours, two": measured(lambda: ours(names, root, oss, 2), oss.pid),
    }
    best = min(spent.wall for name, spent in found.items() if "that hashes" in name)
    told = [_line(name, spent, count, size, best) for name, spent in found.items()]
    return [f"{count:,} blobs of {size:,} bytes", *told]


def _line(name: str, spent: Spent, count: int, size: int, best: float) -> str:
    return (
        f"    {name}: {count / spent.wall:.0f} blobs/s, {count * size / spent.wall / 1e6:.0f} MB/s, "
        f"{best / spent.wall:.2f} of the best one that hashes; {spent}"
    )


def make(root: Path, count: int, size: int) -> list[str]:
    """Write blobs of random content as Harbor keeps them, and return their names."""
    names = []
    for _ in range(count):
        content = os.urandom(size)
        name = sha256(content).hexdigest()
        path = root / name[:2] / name / "data"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        names.append(name)
    return names


def bare(names: list[str], root: Path, oss: Oss, processes: int, *, hashed: bool = False) -> None:
    """Put every file with oss2 as it is, without its CRC, on 16 threads a process; with `hashed`, sha256 first."""
    shares = [names[number::processes] for number in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        for done in [pool.submit(_bare, share, str(root), oss.endpoint, hashed) for share in shares]:
            done.result()


def _bare(names: list[str], root: str, endpoint: str, hashed: bool) -> None:
    import oss2

    from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION

    auth = oss2.AuthV4(ACCESS_KEY_ID, ACCESS_KEY_SECRET)
    session = oss2.Session(pool_size=20)
    bucket = oss2.Bucket(auth, endpoint, BUCKET, region=REGION, session=session, enable_crc=False)

    def put(name: str) -> Any:
        with (Path(root) / name[:2] / name / "data").open("rb") as source:
            if hashed:
                assert file_digest(source, "sha256").hexdigest() == name
                source.seek(0)
            return bucket.put_object(f"bare/{name}", source)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, names))


def ours(names: list[str], root: Path, oss: Oss, processes: int) -> str:
    """Copy them as a backup does: read on the node, hashed, verified. Returns the site that they are of."""
    packed = b"".join(bytes.fromhex(name) for name in names)
    plan = BlobPlan(packed, 0, len(names), (), 0)
    site = f"ours-{processes}-{time.monotonic_ns()}"
    if processes == 1:
        store = open_store(oss.settings, site, threads=24)
        result = copy_blobs(local_host(), str(root), store, plan)
    else:
        node = SshHost(
            name="node-a", address="192.0.2.1", private_key=SecretStr("none"), host_key="ssh-ed25519 AAAA"
        )
        result = copy_in_processes(
            node, oss.settings, site, str(root), plan, processes=processes, command=LOCAL_WORKER
        )
    assert result.copied == len(names), result
    return site
