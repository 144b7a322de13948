"""The store of a site on the lab's OSS server on loopback, with any setting changed."""

from dataclasses import replace
from typing import Any

from blocks import OssBucket
from lab.oss.server import OssServer
from tasks.storage.retry import Patience
from tasks.storage.store import ObjectStore, open_store
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION

QUICK = Patience(attempts=4, first_s=0.001, longest_s=0.002)


def outlasting(failures: int) -> Patience:
    """Quick, and enough for one unlucky call that meets all the failures meant for several threads."""
    return replace(QUICK, attempts=failures + 1)


def store_for(server: OssServer, **changes: Any) -> ObjectStore:
    """Open the store; quick to try again."""
    settings = {
        "endpoint": server.endpoint,
        "region": REGION,
        "bucket": BUCKET,
        "prefix": "backup",
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
    }
    options: dict[str, Any] = {
        name: changes.pop(name) for name in ("patience", "bandwidth", "threads") if name in changes
    }
    return open_store(OssBucket(**(settings | changes)), "site", **({"patience": QUICK} | options))


def leftovers(server: OssServer) -> tuple[int, int]:
    """Objects and unfinished uploads in the bucket."""
    objects, _, uploads = server.store.catalog.totals()
    return objects, uploads
