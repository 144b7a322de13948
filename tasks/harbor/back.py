"""All of a node's Harbor runs again, and uses the primary's database: beside the work on the node's own database.

First what clients need, then, when they are served again, the rest.
"""

import contextlib

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.harbor import compose, repoint
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged

# In the outcome's data: why jobservice may use another database still; empty when it does not.
JOBS = "jobs"


def bring_back(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Put a core for the primary in the old one's place, and start what stands still beside it; jobservice comes later.

    Args:
        site: its directories, and by which way Harbor is repointed.
        host: the node; no client is sent to it yet.
        database_host: address of the primary.

    Raises:
        HarborHaError: core does not follow, or not all of Harbor starts.
    """
    if site.failover.repoint == "edit":
        step = repoint.bring_core_back(site, host, database_host=database_host)
        return step if step.data["all_run"] else _together(step, compose.up(site, host))
    # What fails of this is made up for by starting all of it.
    with contextlib.suppress(HarborHaError):
        compose.up_before_core(site, host)
    return repoint.by_prepare(site, host, database_host=database_host)


def complete(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Start what no client waits for: jobservice, which asks core for its database, and whatever else stands still.

    Returns:
        what was done; in its data `jobs`, why jobservice did not follow.

    Raises:
        HarborHaError: not all of Harbor starts.
    """
    steps, jobs = [], ""
    try:
        steps.append(repoint.restart_jobservice(site, host, database_host=database_host))
    except HarborHaError as error:
        jobs = str(error)
    done = _together(*steps, compose.up(site, host))
    return Outcome(done.changed, done.detail, {JOBS: jobs})


def _together(*steps: Outcome) -> Outcome:
    make = changed if any(step.changed for step in steps) else unchanged
    return make("; ".join(step.detail for step in steps))
