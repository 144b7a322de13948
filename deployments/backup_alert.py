"""Somebody who notices the backup that did not happen: a job that never ran sends no alert of its own."""

from datetime import timedelta

from prefect.automations import Automation
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import EventTrigger, Posture

OVERDUE = "harbor-ha: no backup for 26 hours"
OVERDUE_AFTER = timedelta(hours=26)
"""A day, and two hours for a night in which much was pushed."""


def overdue_automation() -> Automation:
    """Return the automation that fires for a site whose last backup completed 26 hours ago.

    It does nothing but fire, which is an event of its own (`prefect.automation.triggered`) and a line in the UI:
    add the notification that your site uses, by mail or chat, to its actions. It begins to count at the first
    backup that completes or fails.
    """
    return Automation(
        name=OVERDUE,
        description="No backup of a site completed for 26 hours; add your notification as an action",
        trigger=EventTrigger(
            after={"harbor-ha.backup.completed", "harbor-ha.backup.failed"},
            expect={"harbor-ha.backup.completed"},
            match={"prefect.resource.id": "harbor-ha.site.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=OVERDUE_AFTER,
        ),
        actions=[DoNothing()],
    )
