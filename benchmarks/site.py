"""A site on this machine with an OSS server in a process of its own, filled without a request each."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import SecretStr

from blocks import OssBucket
from lab.oss.catalog import Catalog, StoredObject
from tasks.backup.format.layout import blob_key
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION

# No filesystem gives a file a million names.
_NAMES_A_FILE = 50_000
# Of no bytes.
ETAG = "D41D8CD98F00B204E9800998ECF8427E"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Oss:
    """The running server."""

    endpoint: str
    pid: int

    @property
    def settings(self) -> OssBucket:
        """The block for it."""
        return OssBucket(
            endpoint=self.endpoint,
            region=REGION,
            bucket=BUCKET,
            access_key_id=ACCESS_KEY_ID,
            access_key_secret=SecretStr(ACCESS_KEY_SECRET),
        )


@contextmanager
def oss_process(directory: Path) -> Iterator[Oss]:
    """Serve the bucket in the directory."""
    secret = directory / "secret"
    directory.mkdir(parents=True, exist_ok=True)
    secret.write_text(ACCESS_KEY_SECRET)
    arguments = ["--data", str(directory / "bucket"), "--port", "0", "--bucket", BUCKET, "--region", REGION]
    keys = ["--access-key-id", ACCESS_KEY_ID, "--access-key-secret-file", str(secret)]
    command = [sys.executable, "-m", "lab.oss", *arguments, *keys]
    # Its log is a line for every request.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split(",")[0].rpartition(":")[2]
            yield Oss(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()


def digits_of(number: int) -> str:
    """The hexadecimal digest of the n-th blob."""
    return sha256(b"%d" % number).hexdigest()


def fill_bucket(directory: Path, site: str, digits: Iterable[str]) -> None:
    """Put objects of no bytes under the names of blobs into the catalog, before the server is started."""
    (directory / "bucket").mkdir(parents=True)
    catalog = Catalog(directory / "bucket" / "catalog.sqlite")
    now = time.time()
    catalog._db.execute("BEGIN")
    for name in digits:
        catalog.put(
            StoredObject(f"harbor/{site}/{blob_key(f'sha256:{name}')}", ETAG, 0, 0, "Normal", now, ())
        )
    catalog._db.execute("COMMIT")
    catalog.close()


def fill_nas(registry: Path, digits: Iterable[str]) -> None:
    """Name blobs and links on the NAS. An inventory reads names only, so the blobs are names only."""
    registry.mkdir(parents=True)
    for number in range(256):
        (registry / "blobs/sha256" / f"{number:02x}").mkdir(parents=True)
    for number, name in enumerate(digits):
        if number % _NAMES_A_FILE == 0:
            link = registry / f"link-{number}"
            link.write_text("sha256:" + "0" * 64)  # its length is what counts, its content is its path
        (registry / "blobs/sha256" / name[:2] / name).touch()
        place = registry / f"repositories/library/app-{number // 1000}/_layers/sha256" / name
        place.mkdir(parents=True)
        os.link(link, place / "link")


def in_child(function: str, **given: object) -> dict[str, object]:
    """Call `module:function(**given)` in a process of its own, whose memory is its own, and return its answer."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer
