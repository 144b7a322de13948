"""Runs on the primary: record that commits wait for nobody, then let them."""

import json
import sys
import time
from typing import Any, Dict

from tasks.on_node.pg_disk import text_of, write_durably
from tasks.on_node.pg_run import psql
from tasks.on_node.pg_sync import set_sync, sync_names


def relax(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return the record and whether anything changed; the record is on the disk before the setting."""
    path = p["state_dir"] + "/durability.json"
    known = json.loads(text_of(path) or "{}")
    if not sync_names(p) and known.get("state") in ("ASYNC", "ASYNC_DEGRADED"):
        return dict(known, changed=set_sync(p, ""))
    lsn = psql(p, "SELECT pg_current_wal_lsn()", 5)
    record = {"state": "ASYNC_DEGRADED", "lsn": lsn, "at": time.time()}
    write_durably(path, json.dumps(record, sort_keys=True) + "\n")
    set_sync(p, "")
    return dict(record, changed=True)


if __name__ == "__main__":
    json.dump(relax(json.load(sys.stdin)), sys.stdout)
