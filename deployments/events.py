"""Events about a site, sent over Prefect's API: for who is no flow run."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

VERDICT = "harbor-ha.verdict"
# From a site's first `apply` on a backup is missed, not only from its first backup on.
BACKUP_EXPECTED, BACKUP_NOT_EXPECTED = "harbor-ha.backup.expected", "harbor-ha.backup.not-expected"


def tell(api: httpx.Client, site: str, event: str, payload: Mapping[str, Any]) -> None:
    """Send an event of the resource `harbor-ha.site.<site>`.

    Raises:
        httpx.HTTPError: Prefect did not take it.
    """
    body = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": f"harbor-ha.site.{site}"},
        "related": [],
        "payload": dict(payload),
    }
    api.post("events", json=[body]).raise_for_status()
