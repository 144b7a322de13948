"""Who is told what, through a notification Block of Prefect's: `harbor-ha setup --notify TYPE/NAME`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from blocks.prefect_api import prefect_api
from deployments.answers import ANSWER, UNWELL
from deployments.automations import definition, plain
from deployments.backup_alert import OVERDUE
from deployments.catalogue import TAG
from deployments.events import VERDICT
from tasks.errors import Refused

PREFIX = "harbor-ha: tell "
# While an outage lasts, an attempt a minute ends as the one before it did.
AGAIN = timedelta(hours=1)
_RUN = "{{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
_IS = "Harbor: {{ flow_run.name }} is {{ flow_run.state.name }}"
_SITE = "{{ event.resource.id | replace('harbor-ha.site.', '') }}"


@dataclass(frozen=True)
class Notice:
    """One kind of event that somebody is told of.

    Attributes:
        name: of its automation, after PREFIX.
        events: that it is told of.
        match, related: labels of the event's resource, and of one that it is related to.
        subject, body: templates of Prefect's.
        alike: labels of the event's resource; of events with the same values the first is told, and one when `again`
            has passed. Short ones: they are in an index of the server's database.
    """

    name: str
    events: tuple[str, ...]
    match: dict[str, str]
    subject: str
    body: str
    related: dict[str, str] | None = None
    alike: frozenset[str] = frozenset()
    again: timedelta = timedelta(0)

    def automation(self, block: UUID) -> Automation:
        """Return the automation that sends it through a Block."""
        return Automation(
            name=PREFIX + self.name,
            description="Made by harbor-ha setup --notify, and made anew by it",
            trigger=EventTrigger(
                expect=set(self.events),
                match=ResourceSpecification.model_validate(self.match),
                match_related=ResourceSpecification.model_validate(self.related or {}),
                posture=Posture.Reactive,
                # It fires at the first event, and then not before the time is over.
                for_each=set(self.alike),
                threshold=1,
                within=self.again,
            ),
            actions=[SendNotification(block_document_id=block, subject=self.subject, body=self.body)],
        )


NOTICES = (
    Notice(
        "of a run that failed or was refused",
        tuple(f"prefect.flow-run.{state}" for state in UNWELL),
        {"prefect.resource.id": "prefect.flow-run.*"},
        _IS,
        _RUN,
        related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
        # The name says flow, site and node.
        alike=frozenset({"prefect.resource.name", "prefect.state-name"}),
        again=AGAIN,
    ),
    Notice(
        "of another answer while it is tried again",
        (ANSWER,),
        {"prefect.resource.id": "harbor-ha.site.*"},
        _IS,
        _RUN,
        alike=frozenset({"prefect.resource.name", ANSWER}),
        again=AGAIN,
    ),
    Notice(
        "of a change of the verdict",
        (VERDICT,),
        {"prefect.resource.id": "harbor-ha.site.*"},
        f"Harbor: {_SITE} is {{{{ event.payload.verdict }}}}",
        f"{_SITE} is {{{{ event.payload.verdict }}}}, and was {{{{ event.payload.before | join(', ') }}}}.\n"
        "{{ event.payload.findings | join('\n') }}",
    ),
    Notice(
        "of WAL that is missing",
        ("harbor-ha.wal.gap",),
        {"prefect.resource.id": "harbor-ha.site.*"},
        f"Harbor: {_SITE} cannot be restored to the present",
        "{{ event.payload.reason }}",
    ),
    # Of all deployments that one: they become ready and not ready together, with their runner.
    Notice(
        "of a runner that is away",
        ("prefect.deployment.not-ready", "prefect.deployment.ready"),
        {"prefect.resource.id": "prefect.deployment.*", "prefect.resource.name": "failover"},
        "Harbor: the runner is {{ 'there again' if event.event.endswith('.ready') else 'away' }}",
        "Nothing is run while it is away, neither a backup nor a failover: systemctl status harbor-ha-runner.",
        # An event of a deployment is related to its flow, and to no tag.
        related={"prefect.resource.name": "failover", "prefect.resource.role": "flow"},
    ),
)


def install(block: str) -> list[str]:
    """Make the automations that tell through a Block, or make them what they should be; repeatable.

    Args:
        block: type and name, such as `custom-webhook/ops`.

    Returns:
        what people are told of from now on, a line each.

    Raises:
        Refused: there is no such Block, or it cannot notify.
        httpx.HTTPError: Prefect does not answer.
    """
    to = _block_id(block)
    with get_client(sync_client=True) as client:
        for notice in NOTICES:
            _make(client, notice.automation(to))
        _tell_of_missing_backups(client, to)
    return [f"{block} is told {notice.name}" for notice in NOTICES] + [f"{block} is told of a missing backup"]


def _block_id(block: str) -> UUID:
    kind, _, name = block.partition("/")
    with prefect_api(timeout=10) as api:
        place = f"block_types/slug/{quote(kind, safe='')}/block_documents/name/{quote(name, safe='')}"
        found = api.get(place)
        if found.status_code == 404 or not name:
            remedy = "make one in Prefect's UI (Blocks), and name it as TYPE/NAME, such as custom-webhook/ops"
            raise Refused(f"Prefect has no Block {block}.", [remedy])
        document: dict[str, Any] = found.raise_for_status().json()
    if "notify" not in ((document.get("block_schema") or {}).get("capabilities") or []):
        raise Refused(
            f"The Block {block} cannot notify.", ["take one of the type Custom Webhook, Slack Webhook, …"]
        )
    return UUID(document["id"])


def _make(client: SyncPrefectClient, wanted: Automation) -> None:
    found = client.read_automations_by_name(wanted.name)
    if len(found) == 1 and definition(found[0]) == definition(wanted):
        return
    for old in found:
        client.delete_automation(old.id)
    wanted.create()


def _tell_of_missing_backups(client: SyncPrefectClient, to: UUID) -> None:
    """Add the notification to the actions of the automation that counts; what an operator added stays."""
    (known,) = client.read_automations_by_name(OVERDUE)
    send = SendNotification(
        block_document_id=to,
        subject=f"Harbor: {_SITE} has no backup of the last 26 hours",
        body="The report of nightly-backup says why; if there is none, no runner serves the site.",
    )
    if plain(send) in [plain(action) for action in known.actions]:
        return
    wanted = Automation.model_validate(known.model_dump(mode="json"))
    wanted.actions = [*(action for action in wanted.actions if not _ours(action)), send]
    wanted.update()


def _ours(action: Any) -> bool:
    return isinstance(action, SendNotification) and action.subject.startswith("Harbor: ")
