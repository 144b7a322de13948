"""Alerts start flows: the right one, once, and again when Prefect was not there."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from deployments.attempts import AlertRefused, PrefectTrouble
from deployments.catalogue import TAG
from deployments.receiver import (
    Alert,
    ReceiverSettings,
    Route,
    attempts_of,
    create_app,
    parameters_for,
    start_run,
)
from tasks.outcome import PRIMARY_ACCEPTED

TOKEN = "0123456789abcdef0123456789abcdef"
ROUTE = Route(
    "HarborPrimaryDown", "failover", {"site": "{site}", "expected_primary": "{node}", "reason": "alert"}
)


def alert(**changes: Any) -> dict[str, Any]:
    """One firing alert as Alertmanager sends it."""
    labels = {"alertname": "HarborPrimaryDown", "site": "main", "node": "node-a", "severity": "critical"}
    usual = {
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": "…"},
        "startsAt": "2026-06-01T03:00:00.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "0a1b2c3d4e5f6071",
    }
    return usual | changes


def notification(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A notification as Alertmanager sends it."""
    usual = {
        "version": "4",
        "groupKey": '{}:{alertname="HarborPrimaryDown"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "harbor-ha",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts) or [alert()],
    }
    return usual | changes


class Prefect:
    """Prefect's API in so far as the receiver asks it, with the habits that matter: one run for one key."""

    def __init__(self) -> None:
        self.started: dict[str, dict[str, Any]] = {}
        self.properties: dict[str, Any] = {"site": {}, "expected_primary": {}, "reason": {}}
        self.deployments = ["failover"]
        self.fails_with: int | None = None
        self.now = datetime(2026, 6, 1, 3, 0, 10, tzinfo=UTC)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        body = json.loads(request.content)
        if self.fails_with is not None:
            return httpx.Response(self.fails_with, json={"detail": "no"})
        if request.url.path.endswith("/deployments/filter"):
            names = body["deployments"]["name"]["any_"]
            schema = {"properties": self.properties}
            found = [
                {"id": name, "parameter_openapi_schema": schema} for name in names if name in self.deployments
            ]
            return httpx.Response(200, json=found)
        if request.url.path.endswith("/flow_runs/filter"):
            (tag,) = body["flow_runs"]["tags"]["all_"]
            assert body["sort"] == "EXPECTED_START_TIME_DESC"
            newest_first = [run for run in reversed(self.runs()) if tag in run["tags"]]
            return httpx.Response(200, json=newest_first[: body["limit"]])
        new = {
            "id": f"run-{len(self.started) + 1}",
            "state_type": "SCHEDULED",
            "expected_start_time": self.now.isoformat(),
            "labels": {},
        }
        run = self.started.setdefault(body["idempotency_key"], body | new)
        return httpx.Response(201, json=run)

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        return list(self.started.values())

    def later(self, seconds: float, **last: Any) -> None:
        """Let time go by; `last` is what has become of the newest run."""
        self.now += timedelta(seconds=seconds)
        if last:
            self.runs()[-1].update(last)

    async def start(self, route: Route, alert: Alert) -> str:
        """Start a run as the receiver does, against this."""
        transport = httpx.MockTransport(self.answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://prefect/api") as api:
            return await start_run(api, route, alert, self.now)


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


@pytest.fixture
def receiver(prefect: Prefect) -> TestClient:
    app = create_app(ReceiverSettings(TOKEN, (ROUTE,)), prefect.start)
    return TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"})


def test_a_firing_alert_starts_its_deployment_with_its_labels(receiver: TestClient, prefect: Prefect) -> None:
    answer = receiver.post("/alertmanager", json=notification())
    assert answer.status_code == 202
    assert answer.json()["runs"] == [
        {"alert": "HarborPrimaryDown", "deployment": "failover", "flow_run_id": "run-1"}
    ]
    (run,) = prefect.started.values()
    assert run["parameters"] == {"site": "main", "expected_primary": "node-a", "reason": "alert"}
    assert run["tags"][:2] == ["alertmanager", "HarborPrimaryDown"]


def test_a_repeated_notification_and_one_of_a_second_alertmanager_start_nothing_more(
    receiver: TestClient, prefect: Prefect
) -> None:
    for _ in range(3):
        answer = receiver.post("/alertmanager", json=notification())
        assert answer.json()["runs"][0]["flow_run_id"] == "run-1"
    assert len(prefect.started) == 1


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
def test_while_the_alert_lasts_a_run_that_has_ended_is_followed_by_another_a_minute_later(
    state: str, receiver: TestClient, prefect: Prefect
) -> None:
    # A first run that was refused, that crashed or that found a lock was the answer to every repetition.
    receiver.post("/alertmanager", json=notification())
    prefect.later(30, state_type=state)
    assert receiver.post("/alertmanager", json=notification()).json()["runs"][0]["flow_run_id"] == "run-1"
    prefect.later(31)
    for _ in range(2):
        answer = receiver.post("/alertmanager", json=notification())
        assert answer.json()["runs"][0]["flow_run_id"] == "run-2"
    prefect.later(3600, state_type=state)
    receiver.post("/alertmanager", json=notification())
    assert [run["id"] for run in prefect.runs()] == ["run-1", "run-2", "run-3"]


def test_after_a_run_that_has_accepted_a_primary_the_alert_starts_nothing_more(
    receiver: TestClient, prefect: Prefect
) -> None:
    receiver.post("/alertmanager", json=notification())
    prefect.later(3600, state_type="COMPLETED", labels={PRIMARY_ACCEPTED: "yes"})
    assert receiver.post("/alertmanager", json=notification()).json()["runs"][0]["flow_run_id"] == "run-1"


@pytest.mark.parametrize(("state", "waits_s"), [("RUNNING", 100), ("SCHEDULED", 7200), ("PENDING", 100)])
def test_a_run_that_is_under_way_is_waited_for(
    state: str, waits_s: float, receiver: TestClient, prefect: Prefect
) -> None:
    receiver.post("/alertmanager", json=notification())
    prefect.later(waits_s, state_type=state)
    receiver.post("/alertmanager", json=notification())
    assert len(prefect.started) == 1


def test_a_run_whose_process_was_killed_is_not_waited_for_for_ever(
    receiver: TestClient, prefect: Prefect
) -> None:
    # It says RUNNING for ever. What lives all the same is left alone by the flow: the lock is on the nodes.
    receiver.post("/alertmanager", json=notification())
    prefect.later(121, state_type="RUNNING")
    receiver.post("/alertmanager", json=notification())
    assert len(prefect.started) == 2


def test_two_receivers_start_the_same_next_run(prefect: Prefect) -> None:
    alerts = Alert.model_validate(alert())
    asyncio.run(prefect.start(ROUTE, alerts))
    prefect.later(61, state_type="FAILED")
    before = dict(prefect.started)
    second = asyncio.run(prefect.start(ROUTE, alerts))
    after, prefect.started = prefect.started, before
    assert asyncio.run(prefect.start(ROUTE, alerts)) == second
    assert set(prefect.started) == set(after)


def test_what_is_foreign_in_a_notification_is_counted_and_keeps_ours_not_waiting(
    receiver: TestClient, prefect: Prefect
) -> None:
    # One without a fingerprint, or a hundred and fifty: all were refused with 422, which is never sent again.
    foreign = alert(labels={"alertname": "SomethingElse"})
    foreign.pop("fingerprint")
    odd: list[Any] = [{"status": "maybe"}, "text", None, {"labels": ["x"]}]
    answer = receiver.post("/alertmanager", json=notification(alerts=[*[foreign] * 150, *odd, alert()]))
    assert answer.status_code == 202
    assert answer.json()["others"] == 154
    assert len(prefect.started) == 1


def test_our_alert_without_a_fingerprint_is_known_by_its_labels(
    receiver: TestClient, prefect: Prefect
) -> None:
    bare, other = alert(), alert(labels=alert()["labels"] | {"node": "node-b"})
    for each in (bare, other):
        each.pop("fingerprint")
    for _ in range(2):
        assert receiver.post("/alertmanager", json=notification(bare)).status_code == 202
    receiver.post("/alertmanager", json=notification(other))
    assert len(prefect.started) == 2


@pytest.mark.parametrize("odd", [alert(startsAt="yesterday"), alert(status="maybe"), alert(startsAt=None)])
def test_our_alert_that_cannot_be_read_is_refused_and_keeps_no_other_waiting(
    odd: dict[str, Any], receiver: TestClient, prefect: Prefect
) -> None:
    answer = receiver.post("/alertmanager", json=notification(odd, alert()))
    assert answer.status_code == 422
    assert "cannot be read" in answer.json()["refused"][0]
    assert len(prefect.started) == 1


def test_the_next_outage_of_the_same_node_is_a_new_alert(receiver: TestClient, prefect: Prefect) -> None:
    receiver.post("/alertmanager", json=notification())
    receiver.post("/alertmanager", json=notification(alert(startsAt="2026-06-02T03:00:00Z")))
    assert len(prefect.started) == 2


@pytest.mark.parametrize("token", ["", "Bearer wrong", TOKEN, f"Basic {TOKEN}"])
def test_without_the_token_nothing_is_started(receiver: TestClient, prefect: Prefect, token: str) -> None:
    answer = receiver.post("/alertmanager", json=notification(), headers={"Authorization": token})
    assert answer.status_code == 401
    assert prefect.started == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        notification(version="3"),
        notification(alerts=[]),
    ],
)
def test_a_body_that_is_not_alertmanagers_is_refused(
    receiver: TestClient, prefect: Prefect, body: dict[str, Any]
) -> None:
    assert receiver.post("/alertmanager", json=body).status_code == 422
    assert prefect.started == {}


@pytest.mark.parametrize("quiet", [alert(status="resolved"), alert(labels={"alertname": "SomethingElse"})])
def test_what_is_resolved_or_not_routed_starts_nothing(
    receiver: TestClient, prefect: Prefect, quiet: dict[str, Any]
) -> None:
    assert receiver.post("/alertmanager", json=notification(quiet)).status_code == 202
    assert prefect.started == {}


def test_an_alert_without_the_label_starts_nothing_and_keeps_no_other_waiting(
    receiver: TestClient, prefect: Prefect
) -> None:
    nameless = alert(labels={"alertname": "HarborPrimaryDown", "site": "main"}, fingerprint="f1")
    answer = receiver.post("/alertmanager", json=notification(nameless, alert()))
    assert answer.status_code == 422
    assert "has no label node" in answer.json()["refused"][0]
    assert len(prefect.started) == 1


@pytest.mark.parametrize("status", [500, 503, 401])
def test_prefects_trouble_is_answered_so_that_alertmanager_tries_again(
    receiver: TestClient, prefect: Prefect, status: int
) -> None:
    prefect.fails_with = status
    assert receiver.post("/alertmanager", json=notification()).status_code == 503
    prefect.fails_with = None
    assert receiver.post("/alertmanager", json=notification()).status_code == 202
    assert len(prefect.started) == 1


def test_parameters_that_the_flow_does_not_take_are_not_tried_again(
    receiver: TestClient, prefect: Prefect
) -> None:
    prefect.fails_with = 409
    assert receiver.post("/alertmanager", json=notification()).status_code == 422


def test_a_deployment_that_is_not_served_yet_is_tried_again(receiver: TestClient, prefect: Prefect) -> None:
    prefect.deployments = []
    answer = receiver.post("/alertmanager", json=notification())
    assert answer.status_code == 503
    assert "harbor-ha serve" in answer.json()["troubles"][0]


def test_a_server_that_does_not_answer_is_trouble_too() -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def call() -> str:
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(gone), base_url="http://prefect/api"
        ) as api:
            return await start_run(api, ROUTE, Alert.model_validate(alert()), datetime.now(UTC))

    with pytest.raises(PrefectTrouble, match="does not answer"):
        asyncio.run(call())


def test_flows_that_judge_how_late_they_are_get_when_the_alert_was_last_told_and_not_when_it_began(
    receiver: TestClient, prefect: Prefect
) -> None:
    prefect.properties["alert_time"] = {"type": "string"}
    # After ten minutes of an outage every further run ended as "the alert is too old".
    prefect.later(3600)
    receiver.post("/alertmanager", json=notification())
    (run,) = prefect.started.values()
    assert run["parameters"]["alert_time"] == "2026-06-01T04:00:10+00:00"


def test_the_key_does_not_depend_on_how_the_time_is_written() -> None:
    utc = Alert.model_validate(alert())
    shanghai = Alert.model_validate(alert(startsAt="2026-06-01T11:00:00.123+08:00"))
    assert attempts_of(utc) == attempts_of(shanghai)


def test_a_label_cannot_bring_in_another_label() -> None:
    tricky = Alert.model_validate(alert(labels={"site": "{node}", "node": "node-a"}))
    assert parameters_for(ROUTE, tricky)["site"] == "{node}"
    empty = Alert.model_validate(alert(labels={"site": "", "node": "node-a"}))
    with pytest.raises(AlertRefused, match="no label site"):
        parameters_for(ROUTE, empty)


def test_health_needs_no_token(receiver: TestClient) -> None:
    assert receiver.get("/health", headers={"Authorization": ""}).json() == {"status": "ok"}


@pytest.mark.servers
def test_a_real_prefect_keeps_the_attempts_apart_and_the_flows_own_word(prefect_server: str) -> None:
    from prefect import flow

    from flows.machinery.report import say_accepted

    @flow
    def accepts() -> str:
        say_accepted()
        return "done"

    state = accepts(return_state=True)

    async def attempts() -> tuple[list[str], dict[str, Any]]:
        now, told = datetime.now(UTC), Alert.model_validate(alert(startsAt=datetime.now(UTC).isoformat()))
        async with httpx.AsyncClient(base_url=f"{prefect_server.rstrip('/')}/") as api:
            owner = (await api.post("flows/", json={"name": "failover"})).json()["id"]
            wanted = {"name": "failover", "flow_id": owner, "tags": [TAG]}
            (await api.post("deployments/", json=wanted)).raise_for_status()
            runs = [await start_run(api, ROUTE, told, now) for _ in range(2)]
            failed = {"state": {"type": "FAILED"}, "force": True}
            (await api.post(f"flow_runs/{runs[0]}/set_state", json=failed)).raise_for_status()
            runs += [await start_run(api, ROUTE, told, now + timedelta(seconds=late)) for late in (30, 70)]
            ended = {"state": {"type": "COMPLETED"}, "force": True}
            (await api.post(f"flow_runs/{runs[-1]}/set_state", json=ended)).raise_for_status()
            (
                await api.patch(f"flow_runs/{runs[-1]}/labels", json={PRIMARY_ACCEPTED: "yes"})
            ).raise_for_status()
            runs.append(await start_run(api, ROUTE, told, now + timedelta(hours=2)))
            return runs, (await api.get(f"flow_runs/{state.state_details.flow_run_id}")).json()["labels"]

    (first, same, soon, later, settled), labels = asyncio.run(attempts())
    assert first == same == soon
    assert first != later == settled
    assert labels[PRIMARY_ACCEPTED] == "yes"


def test_how_often_each_status_was_answered_is_told_to_prometheus(receiver: TestClient) -> None:
    """A token that Alertmanager has wrong, and an alert that cannot be used, are seen by nobody else."""
    receiver.post("/alertmanager", json=notification())
    receiver.post("/alertmanager", json=notification(), headers={"Authorization": "Bearer wrong"})
    receiver.post("/alertmanager", json={"version": "3"})
    told = receiver.get("/metrics", headers={"Authorization": ""}).text.splitlines()
    assert told == [
        "# TYPE harbor_ha_receiver_answers_total counter",
        'harbor_ha_receiver_answers_total{status="202"} 1',
        'harbor_ha_receiver_answers_total{status="401"} 1',
        'harbor_ha_receiver_answers_total{status="422"} 1',
        'harbor_ha_receiver_answers_total{status="503"} 0',
    ]
