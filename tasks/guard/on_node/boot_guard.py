"""Runs on a node before PostgreSQL starts: a former primary must not come back as a second one.

Exit status 0 lets the start go on; 1 makes systemd skip it, without calling it a failure. A start that is refused
only for now is noted; the guard starts the server when nothing stands against it any more.
"""

import json
import os
import sys
import time
from typing import Any, Dict, List, Optional

from tasks.guard.on_node.guard_look import CONFIG, accepted, ask_all, in_touch, local, shared_claim
from tasks.guard.on_node.guard_note import note_held_start, run_path
from tasks.guard.on_node.guard_question import Question
from tasks.guard.on_node.guard_rules import (
    SILENT,
    STARTING,
    Claim,
    Local,
    Start,
    judge_start,
    of_this_database,
)
from tasks.on_node.pg_disk import attempt, remove_durably, text_of

# A peer that boots at the same time is given this long to say what it is.
PATIENCE_S = 8.0
NAS_S = 2.0


def judge(instance: str, config: str = CONFIG) -> int:
    """Decide for one instance of postgresql@.service and say why, for the journal."""
    text = text_of(config)
    if text is None:
        print("not a node of a site: no %s" % config)
        return 0
    p = json.loads(text)
    if p["unit"] != "postgresql@%s.service" % instance:
        return 0
    if os.path.exists(p["data"] + "/standby.signal"):
        return 0
    here = local(p)
    if here is None:
        return 0
    try:
        start = decide(p, here, accepted(p))
    except ValueError as error:
        print("refused: accepted.json cannot be read: %s" % error)
        return 1
    problems: List[str] = []
    if start.transient:
        attempt(problems, "the note for the guard", lambda: note_held_start(p, start.why))
    else:
        attempt(problems, "the note for the guard", lambda: remove_durably(run_path(p, "held_start")))
    word = "allowed" if start.allowed else "refused for now" if start.transient else "refused"
    print("%s: %s" % (word, "; ".join([start.why] + problems)))
    return 0 if start.allowed else 1


def decide(p: Dict[str, Any], here: Local, known: Claim) -> Start:
    """Ask everybody, with some patience for those that boot at the same time."""
    nas = Question(lambda: shared_claim(p))
    nas.put(NAS_S)
    claims = [known, nas.answer if of_this_database(here, nas.answer) else None]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        peers, alone = ask_all(p), is_alone(p)
        late = time.monotonic() >= deadline
        if late or not (alone or any(peer.state in (SILENT, STARTING) for peer in peers)):
            return judge_start(here, claims, peers, alone)
        time.sleep(0.5)


def is_alone(p: Dict[str, Any]) -> Optional[bool]:
    """Tell whether no witness answers; None on a site without a self-fence, where that is no reason."""
    if p.get("self_fence_s") is None:
        return None
    try:
        return not in_touch(p)
    except Exception:
        # Whoever could not be asked has not answered.
        return True


if __name__ == "__main__":
    status = judge(sys.argv[1])
    sys.stdout.flush()
    # A question to a dead NAS must not keep the program from ending.
    os._exit(status)
