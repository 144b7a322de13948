"""At most one run of a flow for each site on this machine: for looks by schedule, which would pile up.

Prefect's own limit is the deployment's: two sites cancelled each other's `check`, and after three in a row the last
position of the primary was too old for a failover. This one is the kernel's, and ends with the process that holds it.
"""

import fcntl
import functools
from collections.abc import Callable
from typing import Any, ParamSpec
from urllib.parse import quote

from prefect.context import FlowRunContext

from blocks.store import copy_path
from flows.machinery.ending import NOTHING_TO_DO

P = ParamSpec("P")


def one_run_a_site(function: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """Have a flow do nothing while another run of it on this machine is at work on the same site.

    Args:
        function: a flow's, whose first parameter is the site's name. Called outside of a run it is as it was.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        if FlowRunContext.get() is None:
            return function(*args, **kwargs)
        site = str(kwargs.get("site") or args[0])
        place = copy_path(site).parents[1] / "locks" / f"{function.__name__}-{quote(site, safe='')}"
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with place.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                headline = f"Nothing was done: another {function.__name__} of {site} is at work."
                return {"state": NOTHING_TO_DO, "headline": headline}
            return function(*args, **kwargs)

    return call
