"""What the load balancers of a cloud have in common: times, whose state is asked, and reading what the API says."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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


def records(body: Mapping[str, Any], *keys: str) -> list[Mapping[str, Any]]:
    """Find the list under these keys; what is no mapping in it is left out."""
    value: Any = body
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def text(item: Mapping[str, Any], key: str) -> str:
    """Read a text; empty when there is none."""
    value = item.get(key)
    return value if isinstance(value, str) else ""


def number(item: Mapping[str, Any], key: str) -> int | None:
    """Read a number from 0 on; None when there is none."""
    value = item.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
