"""Read fingerprints of Harbor's secret files on this node, hand one out, or write one that is missing."""

import base64
import hashlib
import os
from typing import Any, Dict, Optional

from tasks.on_node.files import make_directories, regular_bytes, write_file
from tasks.on_node.lib import payload, read, reply

# The user that Harbor's containers run as.
HARBOR_UID = 10000


def fingerprint_of(data: Optional[bytes]) -> Optional[str]:
    """Hash a secret so that two nodes can be compared without moving it."""
    return None if data is None else hashlib.sha256(b"harbor-ha:" + data).hexdigest()[:24]


def pem_form(path: str) -> Optional[str]:
    """Read what kind of PEM a file is, which is no secret; "" for no PEM, None for no file."""
    data = read(path)
    if data is None:
        return None
    first = data.lstrip().split(b"\n", 1)[0].strip()
    return first.decode("ascii", "replace") if first.startswith(b"-----BEGIN ") else ""


def place(path: str, data: bytes) -> bool:
    """Write a secret under a name that must not exist; False when it exists. Never overwrites."""
    make_directories(os.path.dirname(path), 0o755)
    return write_file(path, data, 0o600, (HARBOR_UID, HARBOR_UID), only_new=True)


def work(given: Dict[str, Any]) -> Any:
    """Serve one request: `look` at files, tell the `form` of one, `give` one, or `place` some."""
    if "look" in given:
        return {name: fingerprint_of(read(path)) for name, path in given["look"].items()}
    if "form" in given:
        return pem_form(given["form"]) or ""
    if "give" in given:
        return base64.b64encode(regular_bytes(given["give"]) or b"").decode()
    return [path for path, data in given["place"] if place(path, base64.b64decode(data))]


if __name__ == "__main__":
    reply(work(payload()))
