"""The alarm for the backup that did not happen listens to the events that the flows really send."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.events.schemas.automations import EventTrigger, Posture

from deployments.backup_alert import overdue_automation
from deployments.events import BACKUP_EXPECTED, BACKUP_NOT_EXPECTED, expect_backups
from flows.machinery import backup_report
from flows.machinery.backup_report import announce
from tests.unit.harbor_site import make_site

FLOW = Path(__file__).parents[2] / "flows" / "nightly_backup.py"


def trigger() -> EventTrigger:
    found = overdue_automation().trigger
    assert isinstance(found, EventTrigger)
    return found


def test_it_fires_when_no_backup_completed_for_twenty_six_hours() -> None:
    found = trigger()
    assert (found.posture, found.threshold, found.within) == (Posture.Proactive, 1, timedelta(hours=26))
    assert found.expect == {"harbor-ha.backup.completed", BACKUP_NOT_EXPECTED}


def test_it_begins_to_count_at_every_end_that_a_backup_can_have() -> None:
    """A backup that always failed must be missed, too."""
    sent = set(re.findall(r'"(harbor-ha\.backup\.\w+)"', FLOW.read_text()))
    assert sent | {BACKUP_EXPECTED} == trigger().after, "and from the first apply on, before any backup"


def test_the_runner_and_apply_say_whose_backups_are_missed_and_not_those_of_a_site_without_a_bucket(
    tmp_path: Path,
) -> None:
    sent: list[dict[str, Any]] = []

    def post(request: httpx.Request) -> httpx.Response:
        sent.extend(json.loads(request.content))
        return httpx.Response(204)

    site = make_site(tmp_path)
    bare = site.model_copy(update={"name": "bare", "oss": None})
    with httpx.Client(transport=httpx.MockTransport(post), base_url="http://prefect/api/") as api:
        expect_backups(api, [bare, site])
    assert [(said["event"], said["resource"]) for said in sent] == [
        (BACKUP_EXPECTED, {"prefect.resource.id": f"harbor-ha.site.{site.name}"})
    ]


def test_every_site_is_missed_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(backup_report, "emit_event", lambda event, **fields: sent.append(fields))
    announce("main", "harbor-ha.backup.completed", backup="x")
    resource = sent[0]["resource"]
    assert trigger().match.matches(resource)
    assert not trigger().match.matches({"prefect.resource.id": "prefect.flow-run.1"})
    assert trigger().for_each == {"prefect.resource.id"}
