"""What a Prefect server needs once: the Block types, and somebody who notices killed flows."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture

from blocks import HarborSite
from deployments.automations import definition, plain
from deployments.backup_alert import OVERDUE, overdue_automation

ZOMBIES = "harbor-ha: crash zombie flows"
SILENT_FOR = timedelta(seconds=90)
"""Three missed heartbeats of 30 s."""


def setup() -> None:
    """Register the Block types and make our automations what they should be. Repeatable."""
    HarborSite.register_type_and_schema()  # registers its parts too
    wanted = zombie_automation()
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(ZOMBIES)
        # One that is made anew knows no heartbeat: a run that was killed with its runner, whose restart did that,
        # was shown as running for ever.
        as_it_should_be = len(found) == 1 and definition(found[0]) == definition(wanted)
        for old in () if as_it_should_be else found:
            client.delete_automation(old.id)
        overdue = client.read_automations_by_name(OVERDUE)
    if not as_it_should_be:
        wanted.create()
    _make_overdue(overdue)


def _make_overdue(found: Sequence[Any]) -> None:
    """Make the automation for a missing backup; the operator's notification is an action of it, and stays."""
    wanted = overdue_automation()
    if not found:
        wanted.create()
        return
    known = found[0]
    if plain(known.trigger) != plain(wanted.trigger):
        # Of an earlier version, which began to count at the first backup only.
        changed = Automation.model_validate(known.model_dump(mode="json"))
        changed.trigger, changed.description = wanted.trigger, wanted.description
        changed.update()


def zombie_automation() -> Automation:
    """Return the automation that marks a flow run as crashed when its heartbeats end before it does.

    The open source server does not do that by itself: a flow whose process was killed together with its
    runner would be shown as running for ever.
    """
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return Automation(
        name=ZOMBIES,
        description="A flow run without heartbeats for 90 s is marked as crashed",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENT_FOR,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message="No heartbeat for 90 s: the process was killed. Run the flow again.",
            )
        ],
    )
