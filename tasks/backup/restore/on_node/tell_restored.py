"""Runs on the machine that a site was restored on: say, here and on the NAS, which database the site has now.

The old machines come back when the room has power again. They find nothing but their own names in what they have
kept, so who serves now must be told where they look: as the primary, and as the database that counts.
"""

import json
import sys
import time
from typing import Any, Dict

from tasks.on_node.authority import known_term, state_lock, state_of
from tasks.on_node.pg_disk import write_durably
from tasks.on_node.pg_run import psql
from tasks.on_node.shared_copy import keep_shared, read_shared

_IDENTITY = """
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,
       (SELECT system_identifier FROM pg_control_system());
"""


def tell_restored(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the database's identity, whether the NAS has both records now, and whether anything was new."""
    with state_lock(p):
        timeline, sysid = psql(p, _IDENTITY).split("|")
        terms = [known_term(p)["term"]]
        terms += [int((read_shared(p, name) or {}).get("term") or 0) for name in ("term", "accepted")]
        whose = {"system_identifier": sysid, "timeline": int(timeline), "term": max(terms)}
        accepted, restored = dict(whose, primary=p["node"]), dict(whose, node=p["node"])
        answer = {"sysid": sysid, "timeline": int(timeline), "shared": True, "changed": False}
        # Told by an earlier run of the same restore; when it was told is not part of it.
        if state_of(p, "accepted") == accepted == read_shared(p, "accepted") and dict(
            read_shared(p, "restored") or {}, at=None
        ) == dict(restored, at=None):
            return answer
        text = json.dumps(accepted, sort_keys=True) + "\n"
        write_durably(p["state_dir"] + "/accepted.json", text)
        told = json.dumps(dict(restored, at=time.time()), sort_keys=True) + "\n"
        shared = keep_shared(p, "restored", told) and keep_shared(p, "accepted", text)
    return dict(answer, shared=shared, changed=True)


if __name__ == "__main__":
    json.dump(tell_restored(json.load(sys.stdin)), sys.stdout)
