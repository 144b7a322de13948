"""A complete backup with every kind of object, made by the real code of a small site on this machine."""

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyrage

from tasks.backup.format.blobs import BlobFile, IndexedBlob, indexed_line
from tasks.backup.format.catalogue import find_backup, publish
from tasks.backup.format.layout import BLOB_INDEX, CONFIGURATION, blob_key, new_backup_id
from tasks.backup.format.manifest import Artifact, Blobs, Harbor, Manifest
from tasks.backup.night.database import databases_to_dump, dump_database, dump_globals, source_of
from tasks.backup.night.links import save_links
from tasks.backup.night.stored import Destination, store_output
from tasks.backup.restore.fetch import Origin
from tasks.backup.server import Server
from tasks.backup.tools import find_tools, pipeline
from tasks.storage.store import ObjectStore
from tests.unit.local_host import local_host
from tests.unit.local_store import TRUST

IDENTITY = pyrage.x25519.Identity.generate()
SECRETKEY = b"0123456789abcdef"
FILES = {
    "opt/harbor/harbor.yml": b"hostname: harbor.example.com\n",
    "data/secret/keys/secretkey": SECRETKEY,
    "data/secret/core/private_key.pem": b"a private key",
    "data/secret/registry/root.crt": b"a certificate",
}


@dataclass(frozen=True)
class Saved:
    """A backup, and what it was made of.

    Attributes:
        registry: the directory of the registry's storage with links and blobs.
        blobs: the blobs of it, as the index has them.
    """

    store: ObjectStore
    manifest: Manifest
    registry: Path
    blobs: tuple[IndexedBlob, ...]

    @property
    def origin(self) -> Origin:
        """Where a restore reads from."""
        return Origin(self.store, find_backup(self.store, self.manifest.backup_id), [IDENTITY], TRUST)


def tree(registry: Path) -> Path:
    """Where the registry keeps blobs and links."""
    return registry / "docker/registry/v2"


def back_up(store: ObjectStore, server: Server, directory: Path) -> Saved:
    """Fill a registry's storage in the directory, and back up it, the server and a configuration."""
    host, started = local_host(), datetime.now(UTC)
    backup = new_backup_id(started)
    to, tools = Destination(store, backup, [IDENTITY.to_public()]), find_tools(host, server)
    names = databases_to_dump(host, server, "registry")
    dumped = [dump_database(host, server, name, to, timeout=60) for name in names]
    blobs = sorted((_image(store, directory, size) for size in _SIZES), key=lambda blob: blob.digest)
    links = save_links(host, str(directory), to, tools, timeout=60)
    artifacts = (
        *(dump.artifact for dump in dumped),
        dump_globals(host, server, to),
        _configuration(to, server, directory),
        links.artifact,
        _index(store, backup.key(BLOB_INDEX), blobs, directory),
    )
    manifest = Manifest(
        backup_id=str(backup),
        site="main",
        started_at=started.isoformat(),
        finished_at=started.isoformat(),
        tool="test",
        source=source_of("local", dumped, tools, "the only one"),
        harbor=Harbor("2.9.5", "harbor.example.com", hashlib.sha256(SECRETKEY).hexdigest()),
        databases=tuple(dump.entry for dump in dumped),
        artifacts=artifacts,
        blobs=Blobs(len(blobs), sum(blob.size for blob in blobs), len(blobs), 0, closure_ok=True),
        links=links.links,
    )
    publish(store, manifest, TRUST)
    return Saved(store, manifest, directory, tuple(blobs))


_SIZES = (2_500_000, *(30_000 + number for number in range(6)))


def _image(store: ObjectStore, registry: Path, size: int) -> IndexedBlob:
    content = os.urandom(size)
    name = hashlib.sha256(content).hexdigest()
    data = tree(registry) / "blobs/sha256" / name[:2] / name / "data"
    link = tree(registry) / "repositories/library" / f"app-{size}" / "_layers/sha256" / name / "link"
    for path, written in ((data, content), (link, b"sha256:" + name.encode())):
        path.parent.mkdir(parents=True)
        path.write_bytes(written)
    stored = store.put_bytes(blob_key(f"sha256:{name}"), content)
    return IndexedBlob(f"sha256:{name}", size, stored.crc64, stored.etag, "present", 0)


def _configuration(to: Destination, server: Server, directory: Path) -> Artifact:
    root = directory.parent / "configuration"
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # Large enough to be cut in the middle.
    (root / "opt/harbor/common").write_bytes(os.urandom(200_000))
    archive = ["tar", "-C", str(root), "-c", "-f", "-", "opt", "data"]
    host = local_host()
    command = pipeline(archive, find_tools(host, server))
    return store_output(host, command, to, CONFIGURATION, role="configuration", timeout=60).artifact


def _index(store: ObjectStore, key: str, blobs: list[IndexedBlob], directory: Path) -> Artifact:
    file = BlobFile(directory.parent / "index.zst")
    file.write(indexed_line(blob) for blob in blobs)
    with file.path.open("rb") as source:
        stored = store.put_stream(key, source)
    size, sha256 = stored.size, stored.sha256
    return Artifact(BLOB_INDEX, "blob-index", "", size, sha256, size, sha256, stored.crc64, "zstd", "none")
