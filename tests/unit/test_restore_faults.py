"""OSS fails during a restore: what can be tried again ends well, what cannot leaves nothing half done."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from blocks import OssBucket
from lab.oss.server import OssServer
from tasks.backup.drill.rehearsal import run_drill
from tasks.backup.format.catalogue import find_backup
from tasks.backup.format.encryption import DecryptionFailed
from tasks.backup.format.layout import blob_key
from tasks.backup.restore.restore_blobs import fetch_index, restore_blobs, restore_links
from tasks.backup.restore.restore_config import read_configuration
from tasks.backup.restore.restore_database import restore_database
from tasks.backup.server import Server, query
from tasks.errors import RemoteCommandFailed
from tasks.hosts.connection import Host
from tasks.storage import errors
from tasks.storage.retry import Patience
from tasks.storage.store import open_store
from tests.unit.local_host import LocalHost, local_host
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION, running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_store import local_store
from tests.unit.whole_backup import FILES, Saved, back_up, tree

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]
HOST = local_host()
QUICK = Patience(attempts=4, first_s=0.001, longest_s=0.002)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OssServer]:
    with running_oss(tmp_path_factory.mktemp("oss")) as running:
        yield running


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with running_postgres() as running:
        rows = "SELECT 'sha256:' || encode(sha256(n::text::bytea), 'hex'), n FROM generate_series(1, 6000) n"
        query(HOST, running, "registry", f"INSERT INTO blob (digest, size) {rows};")
        yield running


@pytest.fixture(scope="module")
def saved(server: OssServer, postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return back_up(
        local_store(server, patience=QUICK), postgres, tmp_path_factory.mktemp("site") / "registry"
    )


@pytest.fixture(scope="module")
def bare_server() -> Iterator[Server]:
    with running_postgres("CREATE ROLE harbor LOGIN;") as running:
        yield running


class Machine:
    """The bare machine that a backup is restored on, step by step."""

    def __init__(self, server: Server, directory: Path, saved: Saved) -> None:
        self.server, self.directory, self.saved = server, directory, saved
        self.registry = directory / "nas"
        self.work = f"{server.sockets}/restore"

    def database(self) -> None:
        """Restore the database, and compare."""
        assert restore_database(
            HOST,
            self.server,
            self.saved.origin,
            self.saved.manifest,
            "registry",
            owner="harbor",
            work_directory=self.work,
            timeout=60,
        ).changed

    def configuration(self) -> None:
        """Read the configuration, and compare."""
        found = read_configuration(self.saved.origin, self.saved.manifest)
        assert {path: found.files[f"/{path}"] for path in FILES} == FILES

    def links(self) -> None:
        """Restore the links, and compare."""
        restore_links(HOST, self.saved.origin, self.saved.manifest, str(self.registry), timeout=60)
        assert self.files("repositories") == files_below(tree(self.saved.registry) / "repositories")

    def blobs(self) -> None:
        """Restore the blobs by the index, and compare."""
        index = fetch_index(self.saved.origin, self.saved.manifest, self.directory / "index.zst")
        done = restore_blobs(HOST, self.saved.store, str(self.registry), index.indexed(), timeout=60)
        assert (done.damaged, done.present + done.restored) == ([], len(self.saved.blobs))
        assert self.files("blobs") == files_below(tree(self.saved.registry) / "blobs")

    def files(self, part: str) -> dict[str, bytes]:
        """What stands in the storage by now."""
        return files_below(tree(self.registry) / part)

    def databases(self) -> set[str]:
        """Databases of the server."""
        found = query(HOST, self.server, "postgres", "SELECT datname FROM pg_database;")
        return {row[0] for row in found}


STEPS: dict[str, tuple[str, Callable[[Machine], None]]] = {
    "database": ("registry.dump", Machine.database),
    "configuration": ("config.tar", Machine.configuration),
    "links": ("links.tar", Machine.links),
    "blobs": ("blobs/sha256", Machine.blobs),
    "index": ("blobs.tsv", Machine.blobs),
}


@pytest.fixture
def machine(bare_server: Server, tmp_path: Path, saved: Saved, server: OssServer) -> Iterator[Machine]:
    for name in ("registry", "harbor_ha_restoring"):
        query(HOST, bare_server, "postgres", 'DROP DATABASE IF EXISTS :"v0" WITH (FORCE);', values=[name])
    yield Machine(bare_server, tmp_path, saved)
    server.faults.set([])


def files_below(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def download_fails(server: OssServer, step: str, kind: str, **fields: Any) -> Any:
    return server.fail(kind, operation="GetObject", key=STEPS[step][0], **fields)


PASSING: dict[str, dict[str, Any]] = {
    "5xx": {"kind": "error", "code": "InternalError", "times": 2},
    "throttling": {"kind": "error", "code": "DownloadTrafficRateLimitExceeded", "delay_ms": 5, "times": 2},
    "truncated download": {"kind": "truncate", "bytes": 20_000, "times": 2},
    "reset in the middle": {"kind": "reset_answer", "bytes": 20_000, "times": 2},
    "slow": {"kind": "slow", "rate": 4_000_000, "times": 1},
    "wrong content": {"kind": "wrong_content", "times": 2},
    "wrong CRC": {"kind": "wrong_crc", "times": 2},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", PASSING)
def test_a_restore_survives_an_oss_that_fails_now_and_then(
    server: OssServer, machine: Machine, step: str, fault: str
) -> None:
    rule = download_fails(server, step, **PASSING[fault])
    STEPS[step][1](machine)
    assert rule.hits > 0


LASTING: dict[str, tuple[dict[str, Any], type[errors.StorageError]]] = {
    "5xx": ({"kind": "error", "code": "ServiceUnavailable"}, errors.ServiceFailed),
    "throttling": ({"kind": "error", "code": "QpsLimitExceeded"}, errors.Throttled),
    "reset before a byte": ({"kind": "reset_answer", "bytes": 0}, errors.EndpointUnreachable),
    "no permission": ({"kind": "error", "code": "AccessDenied"}, errors.AccessDenied),
    "clock": ({"kind": "error", "code": "RequestTimeTooSkewed"}, errors.ClockSkew),
    "public endpoint": ({"kind": "error", "code": "PublicEndpointForbidden"}, errors.EndpointForbidden),
    "wrong CRC": ({"kind": "wrong_crc"}, errors.CrcMismatch),
}


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        *(("database", fault) for fault in LASTING),
        *((step, fault) for step in ("configuration", "links", "index") for fault in ("5xx", "wrong CRC")),
    ],
)
def test_what_lasts_is_one_sentence_about_oss_and_the_next_run_succeeds(
    server: OssServer, machine: Machine, step: str, fault: str
) -> None:
    """Not what tar, zstd or pg_restore make of half a stream."""
    rule, kind = LASTING[fault]
    download_fails(server, step, times=-1, **rule)
    with pytest.raises(kind) as failure:
        STEPS[step][1](machine)
    assert failure.value.where.startswith("oss://")
    assert failure.value.remedy
    assert "registry" not in machine.databases()
    assert not Path(machine.work).exists()
    assert not machine.files("blobs")
    server.faults.set([])
    STEPS[step][1](machine)


@pytest.mark.parametrize("step", ["database", "links", "configuration"])
def test_a_download_that_breaks_for_good_in_the_middle_is_told_as_that(
    server: OssServer, machine: Machine, step: str
) -> None:
    """The first answer breaks off, and nobody answers again: no program's complaint hides it."""
    key = STEPS[step][0]
    server.fail("truncate", operation="GetObject", key=key, bytes=300)
    server.fail("error", operation="GetObject", key=key, code="ServiceUnavailable", times=-1)
    with pytest.raises(errors.ServiceFailed):
        STEPS[step][1](machine)
    assert "registry" not in machine.databases()
    assert not Path(machine.work).exists()


@pytest.mark.parametrize("step", ["database", "links", "configuration"])
def test_content_that_stays_wrong_is_not_loaded(server: OssServer, machine: Machine, step: str) -> None:
    rule = download_fails(server, step, "wrong_content", times=-1)
    with pytest.raises((DecryptionFailed, errors.CrcMismatch)):
        STEPS[step][1](machine)
    assert rule.hits == 3
    assert "registry" not in machine.databases()


def test_an_oss_that_fails_for_good_in_the_middle_of_the_blobs_leaves_only_whole_ones(
    server: OssServer, machine: Machine
) -> None:
    download_fails(server, "blobs", "truncate", bytes=10_000, skip=3, times=-1)
    with pytest.raises(errors.EndpointUnreachable):
        machine.blobs()
    wanted = files_below(tree(machine.saved.registry) / "blobs")
    found = {path: data for path, data in machine.files("blobs").items() if path.endswith("/data")}
    assert found.items() <= wanted.items()
    server.faults.set([])
    machine.blobs()


def test_blobs_that_are_lost_or_damaged_in_the_bucket_are_named_and_all_others_restored(
    server: OssServer, machine: Machine
) -> None:
    saved = machine.saved
    lost, rotten, *good = saved.blobs
    keys = [saved.store.full(blob_key(blob.digest)) for blob in (lost, rotten)]
    server.fail("error", operation="GetObject", key=keys[0], code="NoSuchKey", times=-1)
    server.fail("wrong_content", operation="GetObject", key=keys[1], times=-1)
    done = restore_blobs(HOST, saved.store, str(machine.registry), saved.blobs, workers=1, timeout=60)
    assert done.damaged_count == 2
    assert lost.digest in done.damaged[0]
    assert "does not exist" in done.damaged[0]
    assert rotten.digest in done.damaged[1]
    assert "checksum" in done.damaged[1]
    assert done.restored == len(good)
    assert len(machine.files("blobs")) == len(good)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"access_key_secret": "wrong"}, errors.WrongCredentials),
        ({"region": "cn-hangzhou"}, errors.WrongRegion),
        ({"bucket": "another"}, errors.BucketMissing),
    ],
)
def test_a_restore_with_wrong_settings_is_told_so_before_anything_is_changed(
    server: OssServer, changes: dict[str, str], kind: type[errors.StorageError]
) -> None:
    settings = {
        "endpoint": server.endpoint,
        "region": REGION,
        "bucket": BUCKET,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
    }
    with pytest.raises(kind) as failure:
        find_backup(open_store(OssBucket(**settings | changes), "main", patience=QUICK), "latest")
    assert failure.value.remedy


class FullDisk(LocalHost):
    """A node on whose disk there is no room for a dump."""

    def stream(self, argv: Sequence[str], **options: Any) -> Any:
        return super().stream([word.replace("/restore/dump", "/../../dev/full") for word in argv], **options)


def test_a_node_without_room_for_the_dump_says_so_and_nothing_is_left(machine: Machine) -> None:
    with pytest.raises(RemoteCommandFailed, match="No space left on device"):
        restore_database(
            cast(Host, FullDisk()),
            machine.server,
            machine.saved.origin,
            machine.saved.manifest,
            "registry",
            owner="harbor",
            work_directory=machine.work,
            timeout=60,
        )
    assert "registry" not in machine.databases()
    assert not Path(machine.work).exists()


class NarrowDisk(LocalHost):
    """A node on whose storage no file can be larger than a megabyte."""

    def stream(self, argv: Sequence[str], **options: Any) -> Any:
        limited = ["bash", "-c", 'ulimit -f 1024; trap "" XFSZ; exec "$@"', "sh", *argv]
        return super().stream(limited, **options)


def test_a_storage_that_runs_full_says_so_and_no_part_of_a_blob_takes_its_room(machine: Machine) -> None:
    saved = machine.saved
    with pytest.raises(RemoteCommandFailed, match=r"status 1: .*File too large"):
        restore_blobs(cast(Host, NarrowDisk()), saved.store, str(machine.registry), saved.blobs, timeout=60)
    wanted = files_below(tree(saved.registry) / "blobs")
    assert machine.files("blobs").items() <= wanted.items()
    machine.blobs()


def test_a_drill_that_cannot_reach_oss_says_nothing_about_the_backup(
    server: OssServer, machine: Machine
) -> None:
    """Recorded as failed, a good backup would be called damaged, and 200 blobs would be waited for in turn."""
    rule = download_fails(server, "blobs", "error", code="ServiceUnavailable", times=-1)
    with pytest.raises(errors.ServiceFailed):
        run_drill(HOST, machine.server.programs, machine.saved.origin, f"{machine.server.sockets}/drill")
    assert rule.hits == QUICK.attempts
    assert not Path(f"{machine.server.sockets}/drill").exists()
