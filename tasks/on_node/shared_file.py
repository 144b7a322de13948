"""Runs on a node: write or remove one of our records on the NAS; late is an answer, a dead NAS hangs for ever."""

import json
import os
import sys
import threading
from typing import Any, Dict

from tasks.on_node.pg_disk import remove_durably, text_of, write_durably


def act(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `written` or `removed`, with whether that changed anything, or `problem`.

    The mount point without its NAS is a directory of the node: what is written there nobody else sees.
    """
    if not os.path.ismount(p["mount"]):
        return {"problem": "%s is not mounted" % p["mount"]}
    if p["text"] is None:
        return {"state": "removed", "changed": remove_durably(p["path"])}
    changed = text_of(p["path"]) != p["text"]
    if changed:
        write_durably(p["path"], p["text"])
    return {"state": "written", "changed": changed}


def in_time(p: Dict[str, Any]) -> Dict[str, Any]:
    """Do it in a thread that may be left behind."""
    answer: Dict[str, Any] = {}

    def work() -> None:
        try:
            answer.update(act(p))
        except OSError as error:
            answer["problem"] = str(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(p["limit_s"])
    return dict(answer) or {"problem": "the NAS did not answer within %d s" % p["limit_s"]}


if __name__ == "__main__":
    json.dump(in_time(json.load(sys.stdin)), sys.stdout)
    sys.stdout.flush()
    os._exit(0)
