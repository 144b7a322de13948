"""Many small and some large blobs: the bare SDK, one process of ours, two of ours."""

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks.meter import Spent, mb_a_core, measured
from benchmarks.site import Oss, oss_process
from benchmarks.sshd import sshd_process
from blocks import SshHost
from tasks.hosts.connection import Host, connect
from tasks.storage.blob_plan import BlobPlan, share_of_plan
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
    with sshd_process() as node:
        host = connect(node)
        found["ours, one process, over SSH"] = measured(lambda: alone(names, root, oss, host), oss.pid)
    best = min(spent.wall for name, spent in found.items() if "that hashes" in name)
    told = [_line(name, spent, count, size, best) for name, spent in found.items()]
    return [f"{count:,} blobs of {size:,} bytes", *told, *_a_core_moves(found, count * size)]


def _a_core_moves(found: dict[str, Spent], size: int) -> list[str]:
    """What a terabyte costs: bytes by the CPU that they took, where one process was one party."""
    bare, plain = found["the same that hashes, one process"], found["ours, one process"]
    ssh = found["ours, one process, over SSH"]
    here, node, over = (mb_a_core(size, seconds) for seconds in (plain.here, plain.node, ssh.here))
    ratio = bare.node / (plain.here + plain.node)
    return [
        f"    a core moves: of ours {here}, over SSH {over}; of the node's {node}, without its sshd",
        f"    bytes by the CPU of orchestrator and node, by those of the bare client that hashes: {ratio:.2f}",
    ]


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
    if processes == 1:
        return alone(names, root, oss, local_host())
    site = f"ours-{processes}-{time.monotonic_ns()}"
    node = SshHost(
        name="node-a", address="192.0.2.1", private_key=SecretStr("none"), host_key="ssh-ed25519 AAAA"
    )
    result = copy_in_processes(
        local_host(),
        node,
        oss.settings,
        site,
        str(root),
        _plan(names),
        processes=processes,
        command=LOCAL_WORKER,
    )
    assert result.copied == len(names), result
    return site


def alone(names: list[str], root: Path, oss: Oss, host: Host) -> str:
    """The same in this process, from a node that is reached in this way."""
    site = f"ours-{time.monotonic_ns()}"
    result = copy_blobs(host, str(root), open_store(oss.settings, site, threads=24), _plan(names))
    assert result.copied == len(names), result
    return site


def _plan(names: list[str]) -> BlobPlan:
    return share_of_plan(b"".join(bytes.fromhex(name) for name in names))
