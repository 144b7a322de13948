"""What the load balancers of a cloud have in common: times, whose state is asked, errors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from blocks import HarborSite
from tasks.aliyun.client import CloudUnusable
from tasks.aliyun.errors import CloudRefused, CloudSilent
from tasks.balancer.states import BalancerError

# For a look where nobody waits, and for a change: an API that throttles is asked again in that time.
LOOK_S = 10.0
CALL_S = 30.0
FULL_WEIGHT = 100


@contextmanager
def asked() -> Iterator[None]:
    """Turn what the cloud's API says into the load balancer's own error."""
    try:
        yield
    except (CloudRefused, CloudSilent, CloudUnusable) as error:
        raise BalancerError(
            error.what, where="load balancer", meaning=error.meaning, remedy=error.remedy
        ) from error


def listed(site: HarborSite, nodes: Sequence[str]) -> list[str]:
    """Name the nodes that a load balancer is asked about: those that are wanted and run a Harbor."""
    return [node.name for node in site.nodes if node.runs_harbor and (not nodes or node.name in nodes)]
