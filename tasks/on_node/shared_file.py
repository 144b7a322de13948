"""Runs on a node: write or remove one of our records on the NAS."""

import json
import sys
from typing import Any, Dict

from tasks.on_node.shared_copy import drop_shared, keep_shared, read_shared


def act(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `written` or `removed`, with whether that changed anything, or `problem`."""
    before = read_shared(p, p["name"])
    if p["text"] is None:
        done = drop_shared(p, p["name"])
        return (
            {"state": "removed", "changed": before is not None} if done else {"problem": _WHY % p["nas_path"]}
        )
    if before == json.loads(p["text"]):
        return {"state": "written", "changed": False}
    done = keep_shared(p, p["name"], p["text"])
    return {"state": "written", "changed": True} if done else {"problem": _WHY % p["nas_path"]}


_WHY = "nothing is mounted on %s, or it does not answer in time, or it cannot be written"


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
