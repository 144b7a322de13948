"""What was seen of a node's guard, for whoever counts on it later, when the node cannot be asked any more."""

from typing import Any

from tasks.postgres.facts import NodeFacts


def seen_guard(node: NodeFacts) -> dict[str, Any]:
    """Return what the node's guard goes by, as it told a moment ago; None for both when none runs.

    Not what the site file says: that the guard was installed with it is one thing, that it runs another.

    Returns:
        `self_fence_s` (seconds; None: it does not fence itself) and `version`.
    """
    guard = node.guard
    if guard is None or not guard.runs:
        return {"self_fence_s": None, "version": None}
    return {"self_fence_s": guard.self_fence_s, "version": guard.version}
