"""The lab's OSS server on loopback, for unit tests, and the real SDK pointed at it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.oss.server import OssServer

BUCKET = "harbor-test"
ACCESS_KEY_ID = "test-key-id"
ACCESS_KEY_SECRET = "test-key-secret"
REGION = "cn-lab"


@contextmanager
def running_oss(directory: Path, port: int = 0) -> Iterator[OssServer]:
    """Serve a bucket whose content is kept in the directory."""
    with OssServer(directory, BUCKET, ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, port=port) as server:
        yield server


def sdk_bucket(
    server: OssServer, *, version: int = 4, secret: str = ACCESS_KEY_SECRET, region: str = REGION
) -> Any:
    """Return a plain oss2 bucket, without anything of ours around it."""
    import oss2

    auth = (oss2.AuthV4 if version == 4 else oss2.Auth)(ACCESS_KEY_ID, secret)
    return oss2.Bucket(auth, server.endpoint, BUCKET, region=region, connect_timeout=10)
