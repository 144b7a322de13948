"""An `ObjectStore` on the lab's OSS server on loopback."""

from blocks import OssBucket
from lab.oss.server import OssServer
from tasks.backup.format.signature import Trust
from tasks.storage.retry import Patience
from tasks.storage.store import ObjectStore, open_store
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION

# The orchestrator's key; what is published with it is believed.
TRUST = Trust((bytes(range(32)),))


def local_store(server: OssServer, site: str = "main", patience: Patience | None = None) -> ObjectStore:
    """Open the server's bucket as a site does."""
    settings = OssBucket(
        endpoint=server.endpoint,
        region=REGION,
        bucket=BUCKET,
        access_key_id=ACCESS_KEY_ID,
        access_key_secret=ACCESS_KEY_SECRET,
    )
    return open_store(settings, site, patience=patience)
