"""Runs on a node before PostgreSQL starts: a former primary must not come back as a second one.

Exit status 0 lets the start go on; 1 makes systemd skip it, without calling it a failure. A start that is refused
only for now is noted; the guard starts the server when nothing stands against it any more.
"""

import functools
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from tasks.guard.on_node.guard_look import (
    CONFIG,
    accepted,
    ask_all,
    gone_back,
    in_touch,
    local,
    pending_promotion,
    restored_site,
    shared_claim,
)
from tasks.guard.on_node.guard_note import note_fence, note_held_start, run_path
from tasks.guard.on_node.guard_question import Question
from tasks.guard.on_node.guard_rules import (
    SILENT,
    STARTING,
    Claim,
    Local,
    Start,
    judge_start,
    must_leave,
    still_claims,
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
        known, back = accepted(p), gone_back(p)
    except ValueError as error:
        print("refused: accepted.json or restored.json cannot be read: %s" % error)
        return 1
    nas = [Question(functools.partial(read, p)) for read in (shared_claim, restored_site, pending_promotion)]
    start, restored = decide(p, here, known, back, nas)
    problems: List[str] = []
    if must_leave(here, restored) is not None:
        # Its Harbor is not started by it either.
        note = {"at": time.time(), "why": start.why}
        attempt(problems, "the note for the guard", lambda: note_fence(p, note))
    elif start.transient:
        attempt(problems, "the note for the guard", lambda: note_held_start(p, start.why, start.told))
    else:
        attempt(problems, "the note for the guard", lambda: remove_durably(run_path(p, "held_start")))
    word = "allowed" if start.allowed else "refused for now" if start.transient else "refused"
    print("%s: %s" % (word, "; ".join([start.why] + problems)))
    return 0 if start.allowed else 1


def asked(questions: List[Question], wait_s: float) -> List[Claim]:
    """Ask the NAS once more, unless it hangs; None for what it has never said."""
    deadline = time.monotonic() + wait_s
    for question in questions:
        question.put(0.0)
    for question in questions:
        question.wait(deadline - time.monotonic())
    return [question.answer for question in questions]


def decide(
    p: Dict[str, Any], here: Local, known: Claim, back: Claim, nas: List[Question]
) -> Tuple[Start, Claim]:
    """Ask everybody, with some patience for those that boot at the same time; with what the site was restored as.

    The NAS last of all: what it had said before the patience was eight seconds old, and an acceptance came in them.

    Args:
        known, back: what this node knows, see `still_claims`.
        nas: who was accepted, which database the site was restored as, and who was told to promote itself.
    """
    asked(nas, 0.0)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        peers, alone = ask_all(p), is_alone(p)
        late = time.monotonic() >= deadline
        if late or not (alone or any(peer.state in (SILENT, STARTING) for peer in peers)):
            shared, restored, pending = asked(nas, NAS_S)
            claims = still_claims(here, [known, shared], back)
            return judge_start(here, claims, peers, alone, restored, pending), restored
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
