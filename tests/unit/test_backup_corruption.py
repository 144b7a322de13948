"""Damage planted in every object of a backup: the drill names all of it, and a restore stops at its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.oss.server import OssServer
from tasks.backup.drill.rehearsal import run_drill
from tasks.backup.format.catalogue import read_manifest
from tasks.backup.format.encryption import DecryptionFailed
from tasks.backup.format.layout import MANIFEST, blob_key
from tasks.backup.format.manifest import ManifestUnreadable
from tasks.backup.restore.fetch import ArtifactDamaged
from tasks.backup.restore.restore_blobs import fetch_index, restore_blobs, restore_links
from tasks.backup.restore.restore_config import read_configuration
from tasks.backup.server import Server
from tasks.errors import HarborHaError
from tasks.storage.errors import CrcMismatch
from tasks.storage.retry import Patience
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_store import TRUST, local_store
from tests.unit.whole_backup import Saved, back_up

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]
HOST = local_host()
QUICK = Patience(attempts=4, first_s=0.001, longest_s=0.002)
ROLES = ("database", "configuration", "links", "blob-index")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "bucket") as running:
        yield running


@pytest.fixture
def saved(oss: OssServer, postgres: Server, tmp_path: Path) -> Saved:
    return back_up(local_store(oss, patience=QUICK), postgres, tmp_path / "registry")


def exchange(oss: OssServer, saved: Saved, key: str) -> None:
    """Overwrite an object with another of the same length; OSS's own checksum is right."""
    content = bytearray(saved.store.get_bytes(key))
    content[len(content) // 2] ^= 1
    saved.store.put_bytes(key, bytes(content))


def rot(oss: OssServer, saved: Saved, key: str) -> None:
    """Flip a bit of an object on OSS's disk."""
    segments = oss.store.find(saved.store.full(key)).segments
    oss.store.disk.flip(segments, saved.store.head(key).size // 2)


DAMAGE: dict[str, Callable[[OssServer, Saved, str], None]] = {"exchanged": exchange, "rotten": rot}


def key_of(saved: Saved, role: str) -> str:
    return saved.origin.backup.key(saved.manifest.artifact(role).name)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_drill_names_every_object_that_is_damaged_whatever_else_it_found(
    oss: OssServer, saved: Saved, postgres: Server, damage: str
) -> None:
    blob = saved.blobs[0]
    damaged = [key_of(saved, role) for role in ROLES if role != "blob-index"]
    for key in (*damaged, blob_key(blob.digest)):
        DAMAGE[damage](oss, saved, key)

    findings = run_drill(HOST, postgres.programs, saved.origin, f"{postgres.sockets}/drill").findings

    assert len(findings) == len(damaged) + 1
    for key in damaged:
        assert [key in text for text in findings].count(True) == 1
    assert blob.digest in findings[-1]


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_drill_names_a_damaged_index_and_a_damaged_manifest(
    oss: OssServer, saved: Saved, postgres: Server, damage: str
) -> None:
    DAMAGE[damage](oss, saved, key_of(saved, "blob-index"))
    directory = f"{postgres.sockets}/drill"
    (found,) = run_drill(HOST, postgres.programs, saved.origin, directory).findings
    assert key_of(saved, "blob-index") in found
    DAMAGE[damage](oss, saved, saved.origin.backup.key(MANIFEST))
    (found,) = run_drill(HOST, postgres.programs, saved.origin, directory).findings
    assert found.startswith("manifest: ")
    assert str(saved.origin.backup) in found


# A damaged dump is in test_backup_round_trip.
RESTORES: dict[str, Callable[[Saved, Path], object]] = {
    "configuration": lambda saved, _: read_configuration(saved.origin, saved.manifest),
    "links": lambda saved, target: restore_links(HOST, saved.origin, saved.manifest, str(target), timeout=60),
    "blob-index": lambda saved, target: fetch_index(saved.origin, saved.manifest, target / "index.zst"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("role", RESTORES)
def test_a_restore_stops_at_a_damaged_object_and_names_it(
    oss: OssServer, saved: Saved, tmp_path: Path, role: str, damage: str
) -> None:
    key, target = key_of(saved, role), tmp_path / "target"
    target.mkdir()
    DAMAGE[damage](oss, saved, key)
    with pytest.raises(HarborHaError, match=key) as failure:
        RESTORES[role](saved, target)
    assert isinstance(failure.value, ArtifactDamaged | DecryptionFailed | CrcMismatch)
    assert not (target / "index.zst").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_restore_names_a_damaged_blob_and_brings_back_the_others(
    oss: OssServer, saved: Saved, tmp_path: Path, damage: str
) -> None:
    bad = saved.blobs[3]
    DAMAGE[damage](oss, saved, blob_key(bad.digest))
    done = restore_blobs(HOST, saved.store, str(tmp_path / "nas"), saved.blobs, timeout=60)
    assert (done.restored, done.damaged_count) == (len(saved.blobs) - 1, 1)
    assert bad.digest in done.damaged[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_restored_by_a_damaged_manifest(oss: OssServer, saved: Saved, damage: str) -> None:
    DAMAGE[damage](oss, saved, saved.origin.backup.key(MANIFEST))
    with pytest.raises((ManifestUnreadable, CrcMismatch), match=str(saved.origin.backup)):
        read_manifest(saved.store, saved.origin.backup, TRUST)
