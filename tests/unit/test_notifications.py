"""People are told: a message really leaves a real server for each thing that they must know of."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from blocks.prefect_api import client_options, prefect_api
from deployments import backup_alert, cli, events, exits, notifications, runs
from deployments.attempts import PrefectTrouble, start_attempt
from deployments.backup_alert import OVERDUE
from deployments.catalogue import entry
from deployments.notifications import NOTICES, PREFIX
from deployments.watch.calls import tell_verdict
from tests.unit.harbor_site import make_site
from tests.unit.live_prefect import live_prefect
from tests.unit.test_deployments import EXAMPLE

pytestmark = pytest.mark.servers

# The runner counts as away a minute after its last poll, and is looked for each quarter of one.
SOON = {
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_FOREMAN_DEPLOYMENT_LAST_POLLED_TIMEOUT_SECONDS": "3",
}


class Mailbox:
    """What was posted to an address on loopback."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        mailbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                mailbox.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, *words: str) -> int:
        """How many messages have all the words in them."""
        told = [f"{message['title']} {message['text']}" for message in list(self.messages)]
        return sum(all(word in text for word in words) for text in told)

    def wait(
        self, *words: str, limit: float = 45.0, meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, str]:
        """The first message with all the words in it."""
        deadline = time.monotonic() + limit
        while True:
            for message in list(self.messages):
                if all(word in f"{message['title']} {message['text']}" for word in words):
                    return message
            assert time.monotonic() < deadline, (words, self.messages)
            meanwhile()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    """The mailbox behind a Block of a live server, for which people were signed up by the command."""
    box = Mailbox()
    patch = pytest.MonkeyPatch()
    # The shortest that Prefect takes.
    patch.setattr(backup_alert, "OVERDUE_AFTER", timedelta(seconds=10))
    with live_prefect(tmp_path_factory.mktemp("prefect"), SOON):
        CustomWebhookNotificationBlock(
            name="ops",
            url=f"http://127.0.0.1:{box.server.server_address[1]}/{{{{token}}}}",
            json_data={"title": "{{subject}}", "text": "{{body}}"},
            secrets={"token": "secret"},
        ).save("ops")
        assert cli.main(["setup", "--notify", "custom-webhook/ops"]) == exits.DONE
        yield box
    patch.undo()
    box.server.shutdown()


def test_a_site_that_never_had_a_backup_is_missed_by_itself(mailbox: Mailbox, tmp_path: Path) -> None:
    """It began to count at the first backup: where no runner served the site, nobody ever heard of it.

    A server that still loaded the automation, which `setup` had altered a moment before, did not hear it either.
    """
    directory = tmp_path / "site"
    directory.mkdir()
    fresh = make_site(directory).model_copy(update={"name": "fresh"})
    with prefect_api(timeout=30) as api:
        # Prefect keeps the order of two events of one moment only where it is told.
        applied = events.body_of("given-up", events.BACKUP_EXPECTED, {})
        removed = {**events.body_of("given-up", events.BACKUP_NOT_EXPECTED, {}), "follows": applied["id"]}
        api.post("events", json=[applied, removed]).raise_for_status()
        told = mailbox.wait("fresh has no backup", meanwhile=lambda: events.expect_backups(api, [fresh]))
    assert told["title"] == "Harbor: fresh has no backup of the last 26 hours"
    assert not [message for message in mailbox.messages if "given-up" in message["title"]]


def test_a_run_that_was_refused_or_failed_is_told_with_its_reason(mailbox: Mailbox) -> None:
    EXAMPLE.deployment().apply()
    with prefect_api(timeout=30) as api:
        deployment = runs.find_deployment(api, "example")
        for name in ("Refused", "Crashed", "Completed"):
            run = runs.start(api, deployment, {"site": "a"})
            kind = {"Refused": "FAILED"}.get(name, name.upper())
            state = {"type": kind, "name": name, "message": f"because of {name}"}
            api.post(f"flow_runs/{run.id}/set_state", json={"state": state, "force": True}).raise_for_status()
            if name != "Completed":
                told = mailbox.wait(f"is {name}", f"because of {name}")
                assert run.name in told["title"]
                assert f"/{run.id}" in told["text"], "the way to the run"
    assert not [message for message in mailbox.messages if "because of Completed" in message["text"]]


class Outage:
    """What is tried again each minute, as the watcher and the receiver do; the minutes are not waited for."""

    def __init__(self, site: str) -> None:
        EXAMPLE.deployment().apply()
        self.site = site
        self.minutes = 0

    def attempt(self, state: str, message: str) -> None:
        """Start the next run, and let it end so."""
        run = asyncio.run(self._start())
        kind = {"Refused": "FAILED"}.get(state, state.upper())
        with prefect_api(timeout=30) as api:
            told = {"state": {"type": kind, "name": state, "message": message}, "force": True}
            api.post(f"flow_runs/{run}/set_state", json=told).raise_for_status()

    async def _start(self) -> str:
        now = datetime.now(UTC) + timedelta(seconds=61 * self.minutes)
        self.minutes += 1
        async with httpx.AsyncClient(**client_options(30)) as api:
            outage = f"watch-{self.site}-node-a-1"
            while True:
                try:
                    return await start_attempt(api, "example", {"site": self.site}, outage, ["watcher"], now)
                except PrefectTrouble:
                    # SQLite was locked; whoever calls is to call again.
                    assert datetime.now(UTC) < now + timedelta(seconds=30)


def test_an_outage_is_told_once_and_again_when_the_answer_is_another(mailbox: Mailbox) -> None:
    """A failover that was refused was told sixty times an hour, all night."""
    outage = Outage("out")
    for seconds in (3, 63, 123):
        outage.attempt("Refused", f"node-a lives: it was heard {seconds} s ago")
    mailbox.wait("node-a lives", "example of out is Refused")
    outage.attempt("Refused", "nothing proves that node-a is off")
    outage.attempt("Refused", "node-a lives: it was heard 303 s ago")
    mailbox.wait("example of out is Refused", "nothing proves")
    outage.attempt("Refused", "nothing proves that node-a is off")
    outage.attempt("Crashed", "process 4711 was killed")
    outage.attempt("Crashed", "process 4712 was killed")
    outage.attempt("Crashed", "out of memory")
    outage.attempt("Refused", "nothing proves that node-a is off")
    mailbox.wait("example of out is Crashed", "out of memory")
    assert [mailbox.count("example of out", word) for word in ("lives", "nothing proves")] == [1, 1]
    assert mailbox.count("example of out", "is Crashed") == 2, mailbox.messages


def test_an_outage_of_another_site_is_told_beside_it(mailbox: Mailbox) -> None:
    for site in ("north", "south"):
        Outage(site).attempt("Refused", "node-a lives")
        mailbox.wait(f"example of {site} is Refused")


def test_who_makes_the_automations_anew_is_told_again_at_once(mailbox: Mailbox) -> None:
    outage = Outage("tried")
    outage.attempt("Refused", "nothing to prune")
    mailbox.wait("example of tried")
    with prefect_api(timeout=30) as api:
        for name, known in automations().items():
            if name.startswith(PREFIX):
                api.delete(f"automations/{known['id']}").raise_for_status()
    assert cli.main(["setup", "--notify", "custom-webhook/ops"]) == exits.DONE
    deadline = time.monotonic() + 30
    while mailbox.count("example of tried") < 2:
        outage.attempt("Refused", "nothing to prune")
        assert time.monotonic() < deadline, mailbox.messages


def test_an_outage_that_lasts_is_told_again_after_a_while(mailbox: Mailbox) -> None:
    soon = replace(NOTICES[0], name="soon", subject="soon: {{ flow_run.name }}", again=timedelta(seconds=5))
    block = notifications._block_id("custom-webhook/ops")
    soon.automation(block).create()
    outage = Outage("lasting")
    deadline = time.monotonic() + 60
    while mailbox.count("soon: example of lasting") < 2:
        outage.attempt("Refused", "node-a lives")
        assert time.monotonic() < deadline, mailbox.messages
    assert outage.minutes > 3, "each was told"
    assert mailbox.count("Harbor: example of lasting") == 1
    with prefect_api(timeout=30) as api:
        api.delete(f"automations/{automations()[PREFIX + 'soon']['id']}").raise_for_status()


def test_a_change_of_the_verdict_is_told_with_what_was_found(mailbox: Mailbox) -> None:
    tell_verdict("main", "DOWN", ["HEALTHY"], ["node-a does not answer", "no Harbor is healthy"])
    told = mailbox.wait("main is DOWN")
    assert told["title"] == "Harbor: main is DOWN"
    assert "was HEALTHY" in told["text"]
    assert "node-a does not answer\nno Harbor is healthy" in told["text"]


def test_a_runner_that_does_not_ask_for_work_any_more_is_told_once(mailbox: Mailbox) -> None:
    ids = [str(entry(name).deployment().apply()) for name in ("failover", "check")]
    with prefect_api(timeout=30) as api:
        # As the runner asks; the server takes it for alive from then on.
        asked = {"deployment_ids": ids}
        api.post("deployments/get_scheduled_flow_runs", json=asked).raise_for_status()
    mailbox.wait("the runner is there again")
    mailbox.wait("the runner is away", "systemctl status harbor-ha-runner")
    assert len([message for message in mailbox.messages if "runner is away" in message["title"]]) == 1


def test_the_command_can_be_repeated_and_keeps_what_an_operator_added(mailbox: Mailbox) -> None:
    before = automations()
    assert cli.main(["setup", "--notify", "custom-webhook/ops"]) == exits.DONE
    assert automations() == before
    assert {name for name in before if name.startswith(PREFIX)} == {PREFIX + each.name for each in NOTICES}
    kinds = [action["type"] for action in before[OVERDUE]["actions"]]
    assert kinds == ["do-nothing", "send-notification"]


def test_a_block_that_is_not_there_or_cannot_notify_is_refused(
    mailbox: Mailbox, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = automations()
    assert cli.main(["setup", "--notify", "custom-webhook/nobody"]) == exits.REFUSED
    assert "Prefect has no Block custom-webhook/nobody" in capsys.readouterr().err
    assert cli.main(["setup", "--notify", "ops"]) == exits.REFUSED
    assert automations() == before


def automations() -> dict[str, Any]:
    with prefect_api(timeout=30) as api:
        found = api.post("automations/filter", json={}).raise_for_status().json()
    return {item["name"]: {**item, "updated": ""} for item in found}
