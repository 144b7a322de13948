"""The copy shared out over processes: the same result, secrets out of sight, and no silence when one dies."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks import OssBucket, SshHost
from lab.oss.server import OssServer
from tasks.backup.format.blobs import KnownBlob
from tasks.storage import errors
from tasks.storage.blob_plan import BlobPlan
from tasks.storage.blob_processes import WorkerLost, copy_in_processes, processes_for
from tasks.storage.blobs import CopyResult
from tasks.storage.inventory import blob_root, bucket_inventory
from tests.unit.local_host import local_host
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION, running_oss
from tests.unit.test_storage import store_for
from tests.unit.test_storage_blobs import plan_for, put_blob

pytestmark = pytest.mark.servers


# The real worker, with this machine as the node.
_LOCAL = (
    "import sys; from tasks.storage.blob_worker import serve; from tests.unit.local_host import local_host; "
)
LOCAL_WORKER = (
    sys.executable,
    "-c",
    _LOCAL + "serve(sys.stdin.buffer, sys.stdout.buffer, lambda n: local_host())",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    (tmp_path / "nas" / "registry").mkdir(parents=True)
    return tmp_path / "nas"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])


def copy(
    nas: Path,
    server: OssServer,
    plan: BlobPlan,
    known: list[KnownBlob],
    command: tuple[str, ...] = LOCAL_WORKER,
) -> CopyResult:
    node = SshHost(name="node-a", address="192.0.2.1", private_key="secret-key", host_key="ssh-ed25519 AAAA")
    settings = OssBucket(
        endpoint=server.endpoint,
        region=REGION,
        bucket=BUCKET,
        prefix="backup",
        access_key_id=ACCESS_KEY_ID,
        access_key_secret=ACCESS_KEY_SECRET,
    )
    return copy_in_processes(
        local_host(),
        node,
        settings,
        "site",
        blob_root(str(nas)),
        plan,
        on_stored=known.append,
        command=command,
    )


def test_two_processes_copy_everything_once_and_name_what_is_wrong(nas: Path, server: OssServer) -> None:
    names = sorted(put_blob(nas, os.urandom(500 + number)) for number in range(200))
    bad = put_blob(nas, b"x", name="cd" * 32)
    known: list[KnownBlob] = []
    store = store_for(server)

    result = copy(nas, server, plan_for(nas, store), known)

    assert (result.copied, result.left, result.corrupt) == (200, 0, (bad,))
    assert [blob.digest for blob in bucket_inventory(store)] == names
    assert sorted(blob.digest for blob in known) == names
    assert server.faults.counts()["PutObject"] == {"200": 200}


def test_what_stops_one_process_is_told_as_if_there_was_only_one(nas: Path, server: OssServer) -> None:
    for number in range(130):
        put_blob(nas, os.urandom(500 + number))
    plan = plan_for(nas, store_for(server))
    server.fail("error", operation="PutObject", code="QuotaExceeded", skip=20, times=-1)
    with pytest.raises(errors.StorageFull) as failure:
        copy(nas, server, plan, [])
    assert failure.value.request_id


def test_a_process_that_dies_is_noticed(nas: Path, server: OssServer) -> None:
    for number in range(65):  # the first 64 are copied by this process
        put_blob(nas, os.urandom(500 + number))
    plan = plan_for(nas, store_for(server))
    dying = (sys.executable, "-c", "import os, sys; sys.stdin.buffer.read(); os.kill(os.getpid(), 9)")
    with pytest.raises(WorkerLost, match="-9"):
        copy(nas, server, plan, [], dying)
    assert server.faults.counts()["PutObject"] == {"200": 64}


def test_a_share_for_one_process_starts_no_other(nas: Path, server: OssServer) -> None:
    put_blob(nas, b"content")
    none = (sys.executable, "-c", "raise SystemExit(3)")
    assert copy(nas, server, plan_for(nas, store_for(server)), [], none).copied == 1


@pytest.mark.parametrize(
    ("blobs", "size", "cores", "processes"),
    [
        (2000, 0, 4, 2),
        (1999, 1 << 30, 16, 1),
        (1_000_000, 1 << 40, 2, 1),
        (1_000_000, 1 << 40, 8, 4),
        (1_000_000, 1 << 40, 64, 4),
        # A terabyte of a few hundred layers.
        (300, 1 << 40, 8, 4),
        (3, 1 << 40, 8, 3),
        (0, 0, 8, 1),
    ],
)
def test_so_many_processes_as_there_are_blobs_or_bytes_and_cores_for(
    blobs: int, size: int, cores: int, processes: int
) -> None:
    assert processes_for(blobs, size, cores) == processes
