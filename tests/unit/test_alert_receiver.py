"""Alerts start flows: the right one, once, and again when Prefect was not there."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from blocks import SiteFileInvalid
from deployments.receiver import (
    Alert,
    AlertRefused,
    PrefectTrouble,
    ReceiverSettings,
    Route,
    create_app,
    idempotency_key,
    parameters_for,
    read_receiver_file,
    start_run,
)

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
        run = self.started.setdefault(body["idempotency_key"], body | {"id": f"run-{len(self.started) + 1}"})
        return httpx.Response(201, json=run)

    async def start(self, route: Route, alert: Alert) -> str:
        """Start a run as the receiver does, against this."""
        transport = httpx.MockTransport(self.answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://prefect/api") as api:
            return await start_run(api, route, alert)


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
    assert run["tags"] == ["alertmanager", "HarborPrimaryDown"]


def test_a_repeated_notification_and_one_of_a_second_alertmanager_start_nothing_more(
    receiver: TestClient, prefect: Prefect
) -> None:
    for _ in range(3):
        answer = receiver.post("/alertmanager", json=notification())
        assert answer.json()["runs"][0]["flow_run_id"] == "run-1"
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
        notification(alerts=[alert()] * 101),
        notification(alert(startsAt="yesterday")),
        notification(alert(status="maybe")),
        notification(alert(fingerprint="")),
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
            return await start_run(api, ROUTE, Alert.model_validate(alert()))

    with pytest.raises(PrefectTrouble, match="does not answer"):
        asyncio.run(call())


def test_the_alerts_time_goes_to_flows_that_judge_how_late_they_are(
    receiver: TestClient, prefect: Prefect
) -> None:
    prefect.properties["alert_time"] = {"type": "string"}
    receiver.post("/alertmanager", json=notification())
    (run,) = prefect.started.values()
    assert run["parameters"]["alert_time"] == "2026-06-01T03:00:00.123000+00:00"


def test_the_key_does_not_depend_on_how_the_time_is_written() -> None:
    utc = Alert.model_validate(alert())
    shanghai = Alert.model_validate(alert(startsAt="2026-06-01T11:00:00.123+08:00"))
    assert idempotency_key(utc) == idempotency_key(shanghai)


def test_a_label_cannot_bring_in_another_label() -> None:
    tricky = Alert.model_validate(alert(labels={"site": "{node}", "node": "node-a"}))
    assert parameters_for(ROUTE, tricky)["site"] == "{node}"
    empty = Alert.model_validate(alert(labels={"site": "", "node": "node-a"}))
    with pytest.raises(AlertRefused, match="no label site"):
        parameters_for(ROUTE, empty)


def test_health_needs_no_token(receiver: TestClient) -> None:
    assert receiver.get("/health", headers={"Authorization": ""}).json() == {"status": "ok"}


class TestSettings:
    """The receiver's own file."""

    def write(self, tmp_path: Path, text: str, token: str = TOKEN, mode: int = 0o600) -> Path:
        (tmp_path / "token").write_text(f"{token}\n")
        (tmp_path / "token").chmod(mode)
        (tmp_path / "receiver.yml").write_text(text)
        return tmp_path / "receiver.yml"

    GOOD = "token_file: token\nroutes:\n  - {alert: A, deployment: failover, parameters: {site: '{site}'}}\n"

    def test_a_correct_file_is_read_and_its_token_not_shown(self, tmp_path: Path) -> None:
        settings = read_receiver_file(self.write(tmp_path, self.GOOD))
        assert settings.token == TOKEN
        assert settings.routes == (Route("A", "failover", {"site": "{site}"}),)
        assert TOKEN not in repr(settings)

    def test_every_mistake_is_reported(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "token_file: token\nroute: []\nroutes: [{alert: A}]\n", "short", 0o644)
        with pytest.raises(SiteFileInvalid) as caught:
            read_receiver_file(path)
        text = str(caught.value)
        for expected in ("route: is not a known key", "routes.0: is not a route", "chmod 600", "short token"):
            assert expected in text

    def test_a_missing_token_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SiteFileInvalid, match="token_file: is missing"):
            read_receiver_file(self.write(tmp_path, "routes: [{alert: A, deployment: b}]\n"))
