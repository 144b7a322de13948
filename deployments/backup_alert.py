"""Somebody who notices the backup that did not happen: a job that never ran sends no alert of its own."""

from datetime import timedelta

from prefect.automations import Automation
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import EventTrigger, Posture

from deployments.events import BACKUP_EXPECTED, BACKUP_NOT_EXPECTED

OVERDUE = "harbor-ha: no backup for 26 hours"
OVERDUE_AFTER = timedelta(hours=26)
"""A day, and two hours for a night in which much was pushed."""


def overdue_automation() -> Automation:
    """Return the automation that fires for a site whose last backup completed 26 hours ago.

    It does nothing but fire, which is an event of its own (`prefect.automation.triggered`) and a line in the UI:
    `harbor-ha setup --notify` adds a notification to its actions, and others may be added in the UI. It begins to count
    when a site with a bucket is applied, and at each backup that completes or fails.
    """
    return Automation(
        name=OVERDUE,
        description="No backup of a site completed for 26 hours; harbor-ha setup --notify tells of it",
        trigger=EventTrigger(
            after={"harbor-ha.backup.completed", "harbor-ha.backup.failed", BACKUP_EXPECTED},
            expect={"harbor-ha.backup.completed", BACKUP_NOT_EXPECTED},
            match={"prefect.resource.id": "harbor-ha.site.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=OVERDUE_AFTER,
        ),
        actions=[DoNothing()],
    )
