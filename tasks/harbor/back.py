"""All of a node's Harbor runs again, and uses the primary's database: beside the work on the node's own database."""

import contextlib

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.harbor import compose, repoint
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged

# In the outcome's data: why jobservice may use another database still; empty when it does not.
JOBS = "jobs"


def bring_back(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Start what core looks at, put a core for the primary in the old one's place, and start what else stands still.

    Args:
        site: its directories, and by which way Harbor is repointed.
        host: the node; no client is sent to it yet.
        database_host: address of the primary.

    Returns:
        what was done; in its data `jobs`, why jobservice did not follow, which keeps no client away.

    Raises:
        HarborHaError: core does not follow, or not all of Harbor starts.
    """
    # What fails of this is made up for by starting all of it.
    with contextlib.suppress(HarborHaError):
        compose.up_before_core(site, host)
    way = repoint.repoint_core if site.failover.repoint == "edit" else repoint.by_prepare
    steps, jobs = [way(site, host, database_host=database_host)], ""
    try:
        steps.append(repoint.restart_jobservice(site, host, database_host=database_host))
    except HarborHaError as error:
        jobs = str(error)
    steps.append(compose.up(site, host))
    detail = "; ".join(step.detail for step in steps)
    make = changed if any(step.changed for step in steps) else unchanged
    return make(detail, **{JOBS: jobs})
