"""Memory stays flat however long a stream is, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION, running_oss

pytestmark = pytest.mark.servers


_PROGRAM = """
import json, resource, sys
from types import SimpleNamespace
from pathlib import Path
from pydantic import SecretStr
from tasks.storage.store import open_store

p = json.loads(sys.argv[1])
settings = SimpleNamespace(**p["settings"], access_key_secret=SecretStr(p["secret"]), is_cname=False)
store = open_store(settings, "site")

class Stream:
    def __init__(self, size):
        self.left = size
    def read(self, size=-1, /):
        block = bytes(min(size, self.left))
        self.left -= len(block)
        return block

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

store.put_stream("warm-up", Stream(9 << 20))
before = peak()
stored = store.put_stream("big", Stream(p["size"]), workers=2)
uploaded = peak()
store.download_to("big", Path(p["target"]))
result = {"size": stored.size, "parts": stored.parts, "up": uploaded - before, "down": peak() - before}
print(json.dumps(result))
"""


def test_three_hundred_megabytes_go_through_forty(tmp_path: Path) -> None:
    size = 300 << 20
    with running_oss(tmp_path / "oss") as server:
        settings = {
            "endpoint": server.endpoint,
            "region": REGION,
            "bucket": BUCKET,
            "prefix": "backup",
            "access_key_id": ACCESS_KEY_ID,
        }
        payload = {
            "settings": settings,
            "secret": ACCESS_KEY_SECRET,
            "size": size,
            "target": str(tmp_path / "copy"),
        }
        root = str(Path(__file__).resolve().parents[2])
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps(payload)],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            timeout=120,
        )
    measured = json.loads(done.stdout)
    assert (measured["size"], measured["parts"]) == (size, 38)
    assert (tmp_path / "copy").stat().st_size == size
    assert 0 <= measured["up"] < 40 << 20
    assert measured["down"] < 40 << 20
