"""The fence without its stop: what it would stumble over is told while nobody needs it."""

import functools
import time

from blocks import HarborSite
from tasks.fencing.ecs import rehearse
from tasks.observation.budget import answer_or, ask, wait_until
from tasks.outcome import Outcome, unchanged

REHEARSAL_S = 6.0


def fence_trouble(site: HarborSite, limit_s: float = REHEARSAL_S) -> list[str]:
    """Say what a fence of each database node would stumble over now, each as a sentence.

    A fence command is not rehearsed: nobody but its author knows how.

    Args:
        limit_s: seconds for all nodes; who is late is told as such.
    """
    if site.failover.fence_kind != "aliyun-ecs":
        return []
    names = [node.name for node in site.nodes if node.runs_postgres]
    asked = {name: ask(("fence", site.name, name), functools.partial(rehearse, site, name)) for name in names}
    wait_until(
        lambda: all(answer.done() for answer in asked.values()),
        lambda: asked.values(),
        time.monotonic() + limit_s,
    )
    trouble: dict[str, str] = {}
    for name, answer in asked.items():
        answer_or(answer, functools.partial(_kept, trouble, name))
    return [f"{name} could not be switched off: {why}" for name, why in trouble.items()]


def _kept(trouble: dict[str, str], name: str, why: str) -> Outcome:
    trouble[name] = why
    return unchanged("not rehearsed")
