"""Part of node programs: a node that was promoted says so by itself, here and on the NAS."""

import json
from typing import Any, Dict

from tasks.on_node.acceptance import newer
from tasks.on_node.pg_disk import text_of, write_durably
from tasks.on_node.shared_copy import keep_shared, on_nas


def accept_promoted(p: Dict[str, Any], timeline: int, term: int, sysid: str) -> bool:
    """Keep here and on the NAS that this node was promoted, and is the primary; tell whether this node had not known.

    On the NAS what is newer stays: of three nodes another one may have been promoted by who could not reach this one.
    """
    own = {"primary": p["node"], "timeline": timeline, "term": term, "system_identifier": sysid}
    text, path = json.dumps(own, sort_keys=True) + "\n", p["state_dir"] + "/accepted.json"
    if text_of(path) == text:
        return False
    write_durably(path, text)
    shared = on_nas(p, "accepted")
    if shared is None or not newer(shared, own):
        keep_shared(p, "accepted", text)
    return True
