"""Part of the guard: an acceptance that was written while the NAS was away comes there when it is back."""

import json
from typing import Any, Dict

from tasks.guard.on_node.guard_look import accepted, shared_claim
from tasks.guard.on_node.guard_rules import Claim
from tasks.on_node.acceptance import newer
from tasks.on_node.shared_copy import keep_shared


def share_acceptance(p: Dict[str, Any]) -> bool:
    """Write on the NAS who was accepted, unless something newer is there; tell whether it was written.

    Both are read here, at once before the write: a machine that stood still for minutes would else write what was
    true before over the acceptance of who took over meanwhile. May hang with the NAS.
    """
    if not p.get("nas_path"):
        return False
    own, shared = accepted(p), shared_claim(p)
    if own is None or not must_share(own, shared):
        return False
    return keep_shared(p, "accepted", json.dumps(own) + "\n")


def must_share(own: Claim, shared: Claim) -> bool:
    """Tell whether the NAS lacks an acceptance that this node knows of: it was away when that was written.

    A node that was off meanwhile finds nobody else to ask when the new primary's server is down just then, and became
    a primary on the old timeline. Whoever knows tells it: the new primary may be off as well. What the NAS says of
    another database stays: the site was restored while this node was away, and it is this node that does not know.

    Args:
        own, shared: the record that this node holds, and the NAS's.
    """
    return own is not None and (shared is None or newer(own, shared))
