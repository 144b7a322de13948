"""Events about a site, sent over Prefect's API: for who is no flow run."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from blocks import HarborSite

VERDICT = "harbor-ha.verdict"
# From a site's first `apply` on a backup is missed, not only from its first backup on.
BACKUP_EXPECTED, BACKUP_NOT_EXPECTED = "harbor-ha.backup.expected", "harbor-ha.backup.not-expected"


def tell(api: httpx.Client, site: str, event: str, payload: Mapping[str, Any]) -> None:
    """Send an event of the resource `harbor-ha.site.<site>`.

    Raises:
        httpx.HTTPError: Prefect did not take it.
    """
    api.post("events", json=[body_of(site, event, payload)]).raise_for_status()


def expect_backups(api: httpx.Client, sites: "Iterable[HarborSite]") -> None:
    """From now on miss the backups of those sites that have a bucket; where one is missed already nothing changes.

    Said at `apply` and at each start of the runner: Prefect hears no event while it loads the automation anew (one
    that was told a moment after `setup` was lost), and an automation that an upgrade alters forgets what it counted.

    Raises:
        httpx.HTTPError: Prefect did not take it.
    """
    for site in sites:
        if site.oss is not None:
            tell(api, site.name, BACKUP_EXPECTED, {})


def body_of(
    site: str,
    event: str,
    payload: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
    *,
    flow_run: str = "",
) -> dict[str, Any]:
    """Return an event of the resource `harbor-ha.site.<site>` as Prefect's API takes it.

    Args:
        labels: of the resource, beside its id; a trigger can count by them.
        flow_run: id of the run that it is about; a template finds it as `flow_run`.
    """
    about = {"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"}
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {**(labels or {}), "prefect.resource.id": f"harbor-ha.site.{site}"},
        "related": [about] if flow_run else [],
        "payload": dict(payload),
    }
