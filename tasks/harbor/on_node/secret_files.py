"""Read fingerprints of Harbor's secret files on this node, hand one out, or write one that is missing."""

import base64
import hashlib
import os
from typing import Any, Dict, Optional

from tasks.on_node.lib import payload, read, reply

# The user that Harbor's containers run as.
HARBOR_UID = 10000


def fingerprint_of(data: Optional[bytes]) -> Optional[str]:
    """Hash a secret so that two nodes can be compared without moving it."""
    return None if data is None else hashlib.sha256(b"harbor-ha:" + data).hexdigest()[:24]


def place(path: str, data: bytes) -> bool:
    """Write a secret under a name that must not exist; False when it exists. Never overwrites."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    temporary = path + ".harbor-ha.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())
    if os.geteuid() == 0:
        os.chown(temporary, HARBOR_UID, HARBOR_UID)
    try:
        # link(2) fails when the name exists, which rename(2) does not.
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)


def work(given: Dict[str, Any]) -> Any:
    """Serve one request: `look` at files, `give` one, or `place` some."""
    if "look" in given:
        return {name: fingerprint_of(read(path)) for name, path in given["look"].items()}
    if "give" in given:
        return base64.b64encode(read(given["give"]) or b"").decode()
    return [path for path, data in given["place"] if place(path, base64.b64decode(data))]


if __name__ == "__main__":
    reply(work(payload()))
