"""Links and blobs: packed and listed on a node, restored hashed and whole, damage named."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pyrage
import pytest

from tasks.backup.format.blobs import BlobFile, IndexedBlob, indexed_line
from tasks.backup.format.layout import blob_key, new_backup_id
from tasks.backup.format.manifest import Harbor, Manifest, Source
from tasks.backup.night.links import SavedLinks, save_links
from tasks.backup.night.on_node import pack_links
from tasks.backup.night.stored import Destination
from tasks.backup.restore.fetch import ArtifactDamaged, Origin, opened
from tasks.backup.restore.restore_blobs import (
    blobs_on_node,
    missed_first,
    restore_blobs,
    restore_links,
)
from tasks.backup.tools import NodeTools
from tasks.errors import RemoteCommandFailed
from tasks.node_program import node_program
from tasks.on_node.files import opened_regular
from tasks.storage.store import ObjectStore
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_store import local_store

pytestmark = pytest.mark.servers


HOST = local_host()
IDENTITY = pyrage.x25519.Identity.generate()
BACKUP = new_backup_id(datetime(2026, 11, 22, tzinfo=UTC))
NOW = 1_800_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_oss(tmp_path / "oss") as server:
        yield local_store(server)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    root = tmp_path / "registry"
    root.mkdir()
    return root


def content(number: int, size: int = 1000) -> bytes:
    return (f"{number} ".encode() * size)[:size]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tree(registry: Path) -> Path:
    return registry / "docker/registry/v2"


def write_link(registry: Path, path: str, text: str) -> None:
    file = tree(registry) / "repositories" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def write_image(registry: Path, repository: str, number: int) -> str:
    digest = digest_of(content(number))
    hexadecimal = digest.removeprefix("sha256:")
    for place in (f"_layers/sha256/{hexadecimal}", f"_manifests/revisions/sha256/{hexadecimal}"):
        write_link(registry, f"{repository}/{place}/link", digest)
    write_link(registry, f"{repository}/_manifests/tags/v1/index/sha256/{hexadecimal}/link", digest)
    write_link(registry, f"{repository}/_manifests/tags/v1/current/link", digest)
    write_link(registry, f"{repository}/_uploads/1b2c/startedat", "2026-01-01T00:00:00Z")
    return digest


def files_below(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def save(store: ObjectStore, registry: Path) -> SavedLinks:
    to = Destination(store, BACKUP, [IDENTITY.to_public()])
    return save_links(HOST, str(registry), to, NodeTools("15", True), timeout=60)


def manifest_of(saved: SavedLinks) -> Manifest:
    return Manifest(
        str(BACKUP),
        "main",
        "",
        "",
        "",
        Source("", "primary", 0, "", "", 1, ""),
        Harbor("", "", ""),
        (),
        (saved.artifact,),
    )


def test_links_come_back_as_they_were_without_uploads_in_flight(
    store: ObjectStore, registry: Path, tmp_path: Path
) -> None:
    for number, repository in enumerate(("library/app", "library/deep/er/app", "a")):
        write_image(registry, repository, number)
    saved = save(store, registry)
    assert (saved.links.repositories, saved.links.files, saved.damaged) == (3, 12, ())
    other = tmp_path / "other"
    restore_links(HOST, Origin(store, BACKUP, [IDENTITY]), manifest_of(saved), str(other))
    restored = files_below(tree(other) / "repositories")
    original = files_below(tree(registry) / "repositories")
    assert restored == {path: data for path, data in original.items() if "_uploads" not in path}


def test_a_truncated_link_of_a_killed_restore_is_healed_by_the_next(
    store: ObjectStore, registry: Path, tmp_path: Path
) -> None:
    write_image(registry, "app", 1)
    saved = save(store, registry)
    other = tmp_path / "other"
    write_link(other, f"app/_layers/sha256/{digest_of(content(1))[7:]}/link", "")
    restore_links(HOST, Origin(store, BACKUP, [IDENTITY]), manifest_of(saved), str(other))
    assert b"" not in files_below(tree(other) / "repositories").values()


def test_empty_and_foreign_link_files_are_left_out_and_named(store: ObjectStore, registry: Path) -> None:
    write_image(registry, "app", 1)
    write_link(registry, "app/_manifests/tags/v2/current/link", "")
    write_link(registry, "app/_layers/sha256/" + "0" * 64 + "/link", "sha256:00")
    saved = save(store, registry)
    assert saved.damaged_count == 2
    assert any("tags/v2/current" in path for path in saved.damaged)


def test_a_registry_without_a_single_image_has_an_empty_archive(store: ObjectStore, registry: Path) -> None:
    assert save(store, registry).links.files == 0


def test_a_damaged_link_archive_is_found(store: ObjectStore, registry: Path) -> None:
    write_image(registry, "app", 1)
    saved = save(store, registry)
    other = pyrage.encrypt(b"nothing", [IDENTITY.to_public()])
    store.put_bytes(BACKUP.key(saved.artifact.name), other)
    with (
        pytest.raises(ArtifactDamaged, match="links"),
        opened(Origin(store, BACKUP, [IDENTITY]), saved.artifact),
    ):
        pass


def test_a_link_is_written_from_its_path_and_only_current_is_opened(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(registry, "app", 1)
    opened_files: list[str] = []

    def watched(path: str) -> AbstractContextManager[IO[bytes]]:
        opened_files.append(path)
        return opened_regular(path)

    monkeypatch.setattr(pack_links, "opened_regular", watched)
    target = io.BytesIO()
    pack_links.pack(str(tree(registry)), target)
    assert [Path(path).parent.name for path in opened_files] == ["current"]
    target.seek(0)
    with tarfile.open(fileobj=target) as archive:
        assert all(member.uid == 10000 for member in archive)


def put_blobs(store: ObjectStore, *numbers: int) -> list[IndexedBlob]:
    blobs = []
    for number in numbers:
        data = content(number)
        stored = store.put_bytes(blob_key(digest_of(data)), data)
        blobs.append(
            IndexedBlob(digest_of(data), len(data), stored.crc64, stored.etag, "present", NOW - number)
        )
    return blobs


def restored_data(registry: Path, blob: IndexedBlob) -> bytes:
    name = blob.digest.removeprefix("sha256:")
    return (tree(registry) / "blobs/sha256" / name[:2] / name / "data").read_bytes()


def test_blobs_arrive_whole_and_a_second_run_finds_them(store: ObjectStore, registry: Path) -> None:
    blobs = put_blobs(store, *range(30))
    result = restore_blobs(HOST, store, str(registry), blobs, timeout=60)
    assert (result.restored, result.present, result.damaged) == (30, 0, [])
    assert all(restored_data(registry, blob) == content(n) for n, blob in enumerate(blobs))
    assert restore_blobs(HOST, store, str(registry), blobs, timeout=60).present == 30


def test_a_truncated_blob_that_is_there_already_is_replaced(store: ObjectStore, registry: Path) -> None:
    (blob,) = put_blobs(store, 1)
    restore_blobs(HOST, store, str(registry), [blob], timeout=60)
    name = blob.digest.removeprefix("sha256:")
    (tree(registry) / "blobs/sha256" / name[:2] / name / "data").write_bytes(b"short")
    assert restore_blobs(HOST, store, str(registry), [blob], timeout=60).restored == 1
    assert restored_data(registry, blob) == content(1)


def test_a_blob_that_was_exchanged_in_the_bucket_is_named_and_never_gets_its_name(
    store: ObjectStore, registry: Path
) -> None:
    good, bad = put_blobs(store, 1, 2)
    store.put_bytes(blob_key(bad.digest), b"x" * bad.size)
    result = restore_blobs(HOST, store, str(registry), [bad, good], workers=1, timeout=60)
    assert result.restored == 1
    assert result.damaged_count == 1
    assert bad.digest in result.damaged[0]
    assert blobs_on_node(HOST, str(registry)) == {bytes.fromhex(good.digest[7:]): good.size}
    assert not list(registry.rglob("*.tmp"))


def test_a_storage_that_cannot_be_written_ends_the_restore_with_its_reason(
    store: ObjectStore, registry: Path
) -> None:
    blobs = put_blobs(store, *range(40))
    tree(registry).parent.mkdir(parents=True)
    tree(registry).write_text("not a directory")
    with pytest.raises((RemoteCommandFailed, OSError), match=r"directory|pipe"):
        restore_blobs(HOST, store, str(registry), blobs, timeout=60)


def test_a_receiver_that_loses_its_stream_leaves_nothing_under_the_name(registry: Path) -> None:
    from tasks.backup.restore.on_node import receive_blobs

    data = content(1)
    header = json.dumps({"digest": digest_of(data), "size": len(data)}).encode() + b"\n"
    done = subprocess.run(
        [sys.executable, "-c", node_program(receive_blobs), str(tree(registry))],
        input=header + data[:-1],
        capture_output=True,
    )
    assert done.returncode != 0
    assert b"in the middle" in done.stderr
    assert not [path for path in registry.rglob("*") if path.is_file()]


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "G" * 64, "md5:" + "a" * 64])
def test_a_receiver_writes_nowhere_but_under_a_digest(registry: Path, digest: str) -> None:
    from tasks.backup.restore.on_node import receive_blobs

    with pytest.raises(ValueError, match="not a digest"):
        receive_blobs.path_of(str(registry), digest)


def test_what_was_pulled_last_comes_first_and_nothing_is_lost(tmp_path: Path) -> None:
    ages = {"a": 0, "b": 400, "c": 2, "d": 8, "e": 100, "f": 5000}
    blobs = [
        IndexedBlob(digest_of(n.encode()), 1, 1, "", "present", NOW - d * 86400) for n, d in ages.items()
    ]
    blobs += [IndexedBlob(digest_of(b"never"), 1, 1, "", "present", 0)]
    blobs += [IndexedBlob(digest_of(b"gone"), 1, None, "", "missing_at_source", NOW)]
    blobs += [IndexedBlob(digest_of(b"later"), 1, 1, "", "present", NOW + 900)]
    index = BlobFile(tmp_path / "index.zst")
    index.write(indexed_line(blob) for blob in sorted(blobs, key=lambda blob: blob.digest))
    pulled = [blob.pulled for blob in missed_first(index, NOW)]
    assert len(pulled) == 8
    order = [(NOW - when) // 86400 for when in pulled]
    assert order[:2] in ([-1, 0], [0, -1])
    assert order[2:5] == [2, 8, 100]
    assert set(order[5:7]) == {400, 5000}
    assert pulled[-1] == 0


def test_a_list_of_blobs_with_a_cut_end_is_refused(tmp_path: Path) -> None:
    from tasks.backup.format.blobs import BlobListDamaged

    blobs = [IndexedBlob(digest_of(os.urandom(9)), 1, 1, "", "present", 0) for _ in range(2000)]
    index = BlobFile(tmp_path / "index.zst")
    index.write(indexed_line(blob) for blob in blobs)
    assert len(list(index.indexed())) == 2000
    index.path.write_bytes(index.path.read_bytes()[:-700])
    with pytest.raises(BlobListDamaged):
        list(index.indexed())


@pytest.mark.parametrize("size", [1, 71, 135, 511, 512, 513])
@pytest.mark.parametrize("name", ["a", "n" * 99, "n" * 100, "n" * 101, "d/" * 150 + "link", "küche/link"])
def test_the_archive_is_byte_for_byte_what_tarfile_writes(name: str, size: int) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    archive = pack_links.Archive(ours)
    with tarfile.open(fileobj=theirs, mode="w|", format=tarfile.GNU_FORMAT) as reference:
        for number in range(25):
            data = bytes(range(256)) * 3
            info = tarfile.TarInfo(f"{number}/{name}")
            info.size, info.mode, info.uid, info.gid = size, 0o644, 10000, 10000
            reference.addfile(info, io.BytesIO(data[:size]))
            archive.add(f"{number}/{name}", data[:size])
    archive.close()
    assert ours.getvalue() == theirs.getvalue()
