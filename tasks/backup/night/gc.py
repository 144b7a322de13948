"""Harbor's garbage collection, as far as a backup must mind it: it deletes blobs while we copy."""

import time
from dataclasses import dataclass

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.web import HarborRefused, HarborUnreachable, through_node
from tasks.outcome import Outcome, unchanged

_LAST = "/api/v2.0/system/gc?page_size=1&sort=-creation_time"
_ENDED = ("success", "error", "stopped", "finished")


class GarbageCollectionRuns(HarborHaError):
    """Garbage collection runs and does not end."""


@dataclass(frozen=True)
class LastCollection:
    """The newest garbage collection that Harbor knows of.

    Attributes:
        number: its id, 0 when there never was one.
        status: as Harbor says it.
    """

    number: int
    status: str

    @property
    def running(self) -> bool:
        """Whether it may delete something right now."""
        return self.number > 0 and self.status.lower() not in _ENDED


def last_collection(site: HarborSite, node: str) -> LastCollection | None:
    """Ask Harbor on a node; None when it does not answer: a backup must work when Harbor is down."""
    try:
        with HarborApi(through_node(site, node)) as api:
            headers = api.session.endpoint.authorization()
            answer = api.session.request("GET", _LAST, headers=headers)
            if answer.status != 200:
                return None
            found = answer.json() or []
    except (HarborUnreachable, HarborRefused, ValueError):
        return None
    if not found:
        return LastCollection(0, "")
    return LastCollection(int(found[0].get("id", 0)), str(found[0].get("job_status", "")))


def await_no_collection(site: HarborSite, *, node: str, patience_s: float = 1800.0) -> Outcome:
    """Wait until no garbage collection runs.

    Args:
        site: its Harbor.
        node: a node that runs Harbor.
        patience_s: how long.

    Returns:
        data: `gc`, the number of the last one; None when Harbor does not answer.

    Raises:
        GarbageCollectionRuns: it did not end in that time.
    """
    deadline = time.monotonic() + patience_s
    while (last := last_collection(site, node)) is not None and last.running:
        if time.monotonic() >= deadline:
            raise GarbageCollectionRuns(
                f"Garbage collection {last.number} is {last.status} and did not end in {patience_s:.0f} s.",
                where=node,
                meaning="It deletes blobs that a backup would still refer to.",
                remedy="Let it end or stop it in Harbor, then run the backup again; schedule them apart.",
            )
        time.sleep(5)
    if last is None:
        return unchanged("Harbor does not answer; closure will show what was deleted meanwhile", gc=None)
    return unchanged(
        "none runs" if last.number == 0 else f"the last one, {last.number}, is over", gc=last.number
    )
