"""A whole nightly backup in one process: the flow's own code over this machine, without Prefect's engine.

A `Night` is plain data, so that another process can run it, and be killed.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyrage

from blocks import HarborSite, read_site_file
from flows import nightly_backup
from flows.machinery.protocol import Protocol, StepRecord
from flows.rules.dump_node import DumpCandidate
from lab.oss.server import OssServer
from tasks.backup.format.manifest import Manifest
from tasks.backup.night.gc import LastCollection
from tasks.backup.server import Server, query
from tasks.hosts.connection import Host
from tasks.outcome import Outcome
from tasks.step import Step
from tasks.storage.retry import Patience
from tasks.storage.store import ObjectStore, open_store
from tests.unit.local_host import local_host
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION
from tests.unit.local_postgres import programs
from tests.unit.local_store import TRUST, local_store
from tests.unit.site_on_disk import NOW, correct_site

IDENTITY = pyrage.x25519.Identity.generate()
QUICK = Patience(attempts=4, first_s=0.001, longest_s=0.002)
NODE = "node-a"


@dataclass(frozen=True)
class Night:
    """A site on this machine and its bucket.

    Attributes:
        site_file: of the site.
        server: its PostgreSQL.
    """

    site_file: Path
    server: Server | None

    @property
    def site(self) -> HarborSite:
        """The site as the flow loads it."""
        return read_site_file(self.site_file, now=NOW)

    @property
    def registry(self) -> Path:
        """The storage of the registry."""
        return self.site_file.parent / "nas/registry/docker/registry/v2"

    def push(self, name: str, size: int = 3000) -> str:
        """Add an image of one layer: its rows, its blob and its link. Returns the digest."""
        content = os.urandom(size)
        digits = hashlib.sha256(content).hexdigest()
        for path, data in self._files(name, digits, content).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._sql(
            """
            INSERT INTO blob (digest, size) VALUES (:'v0', :'v1'::bigint);
            INSERT INTO artifact (project_id, repository_id, repository_name, digest)
              VALUES (1, 1, :'v2', :'v0');
            """,
            f"sha256:{digits}",
            str(size),
            name,
        )
        return f"sha256:{digits}"

    def collect(self, name: str, digest: str) -> None:
        """Delete the image and collect the garbage: its blob is gone, and its rows."""
        self._sql("DELETE FROM artifact WHERE digest = :'v0'; DELETE FROM blob WHERE digest = :'v0';", digest)
        self.lose(name, digest)

    def lose(self, name: str, digest: str) -> None:
        """Remove the files of an image and not its rows."""
        for path in self._files(name, digest.removeprefix("sha256:"), b""):
            shutil.rmtree(path.parent)

    def _files(self, name: str, digits: str, content: bytes) -> dict[Path, bytes]:
        return {
            self.registry / "blobs/sha256" / digits[:2] / digits / "data": content,
            self.registry / "repositories" / name / "_layers/sha256" / digits / "link": b"sha256:"
            + digits.encode(),
        }

    def _sql(self, sql: str, *values: str) -> None:
        assert self.server is not None
        query(local_host(), self.server, "registry", sql, values=values)


def new_night(directory: Path, endpoint: str, server: Server | None = None) -> Night:
    """Write the site file, and what a node has of configuration.

    Args:
        directory: for all of it.
        endpoint: of OSS.
        server: the PostgreSQL, where databases are to be backed up.
    """
    on_disk = correct_site(directory)
    data = on_disk.data
    data["postgres"]["major"] = int(Path(programs() or "").parts[-2])
    data["harbor"] |= {"install_dir": str(directory / "harbor"), "data_volume": str(directory / "data")}
    data["nas"]["path"] = str(directory / "nas")
    data["oss"] |= {
        "endpoint": endpoint,
        "region": REGION,
        "bucket": BUCKET,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": on_disk.secret("oss", ACCESS_KEY_SECRET),
    }
    data["backup"]["age_recipients"] = [str(IDENTITY.to_public())]
    data["backup"]["signing_secret"] = on_disk.secret("signing-secret", f"{TRUST.keys[0].hex()}\n")
    for name, content in (
        ("harbor/harbor.yml", "hostname: harbor.example.com\n"),
        ("data/secret/keys/secretkey", "0123456789abcdef"),
        ("data/secret/core/private_key.pem", "a key"),
        ("data/secret/registry/root.crt", "a certificate"),
    ):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    night = Night(on_disk.write(), server)
    night.registry.mkdir(parents=True)
    return night


class PlainRun(Protocol):
    """A flow's run whose steps are plain calls, and whose report is kept."""

    sections: dict[str, list[str]]

    def on(self, step: Step, *nodes: str, **plain: Any) -> Outcome:
        begin = time.monotonic()
        outcome = step.fn(self.site.name, list(nodes), **plain)
        seconds = time.monotonic() - begin
        self.records.append(StepRecord(step.name, nodes, begin - self.started, seconds, outcome))
        return outcome


def keep_report(run: PlainRun, headline: str, sections: dict[str, list[str]]) -> dict[str, Any]:
    """Instead of publishing it."""
    run.sections = sections
    return {"headline": headline}


def no_collection(*_: object) -> LastCollection:
    """Harbor never collected garbage."""
    return LastCollection(0, "")


@contextmanager
def _on_this_machine(
    night: Night, site: HarborSite, host: Host, collection: Callable[..., Any]
) -> Iterator[None]:
    replaced: dict[str, Any] = {
        "tasks.step.load_site": lambda _: site,
        "tasks.step.connect": lambda *_, **__: host,
        "flows.nightly_backup.candidates_of": lambda _: [DumpCandidate(NODE, "primary")],
        "flows.nightly_backup.publish_catalogue": lambda *_: None,
        "flows.nightly_backup.publish_report": keep_report,
        "flows.machinery.progress.create_progress_artifact": lambda *_, **__: None,
        "tasks.backup.night.nightly.server_of": lambda _: night.server,
        "tasks.backup.night.configuration.server_of": lambda _: night.server,
        "tasks.backup.night.gc.last_collection": collection,
        "tasks.backup.settings.open_store": partial(open_store, patience=QUICK),
        # Every dump is a multipart upload, as those of real sites are.
        "tasks.storage.upload._GROWTH": ((100 << 10, 9000),),
    }
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch(name, value))
        yield


def back_up(
    night: Night, host: Host | None = None, collection: Callable[..., Any] = no_collection
) -> tuple[Manifest, PlainRun]:
    """Run a whole nightly backup; returns its manifest, and the run with its steps.

    Args:
        night: the site.
        host: the node, this machine otherwise.
        collection: what Harbor says of its last garbage collection.
    """
    site = night.site
    run = PlainRun("nightly_backup", site)
    with _on_this_machine(night, site, host or local_host(), collection):
        manifest, _ = nightly_backup._run(run, images=True)
    assert manifest is not None
    return manifest, run


def bucket_of(night: Night, oss: OssServer) -> ObjectStore:
    """The site's part of the bucket."""
    return local_store(oss, night.site.name, patience=QUICK)
