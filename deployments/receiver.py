"""The alert receiver: Alertmanager's webhook starts deployments, one run after the other while the alert lasts.

Alertmanager repeats notifications, sends them from several instances, and tries again only after a 5xx. So every
run has an idempotency key made of the alert and a number, and Prefect's troubles are answered with 503. The next
number is due when the run before it has ended without an accepted primary: a first run that was refused, that
crashed, or that found a lock, was otherwise the last.
"""

import hashlib
import hmac
import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field, ValidationError

from blocks.prefect_api import client_options
from blocks.problems import Problem, SiteFileInvalid
from blocks.yaml_source import read_yaml
from deployments.attempts import AlertRefused, PrefectTrouble, start_attempt

logger = logging.getLogger("harbor_ha.receiver")

PREFECT_TIMEOUT_S = 8.0
"""Alertmanager gives up after ten seconds by default, and must get its 503 before."""


ANSWERS = "harbor_ha_receiver_answers_total"
"""At `/metrics`: how often each status was answered. Alertmanager does not count what it could not send for want of
its token, and nobody else sees that it has an old one."""


class Alert(BaseModel):
    """One alert of a notification, as far as it matters here."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: datetime
    fingerprint: str = ""


class Notification(BaseModel):
    """Alertmanager's webhook body, version 4; further fields are ignored, and each alert is read by itself."""

    version: Literal["4"]
    groupKey: str
    status: Literal["firing", "resolved"]
    alerts: list[Any] = Field(min_length=1)


@dataclass(frozen=True)
class Route:
    """What an alert starts. In `parameters`, `{name}` stands for the alert's label of that name."""

    alert: str
    deployment: str
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class ReceiverSettings:
    """What the receiver is configured with; the token is compared, never shown."""

    token: str = field(repr=False)
    routes: tuple[Route, ...]


def read_receiver_file(path: str | Path) -> ReceiverSettings:
    """Read the receiver's YAML file: `token_file` and `routes`. Raise SiteFileInvalid with every mistake."""
    file = Path(path).absolute()
    source = read_yaml(file)
    data = source.data if isinstance(source.data, dict) else {}
    problems = list(source.problems)
    for key in sorted(set(data) - {"token_file", "routes"}):
        problems.append(Problem(key, "is not a known key", "token_file, routes"))
    token = _read_token(file.parent, data.get("token_file"), problems)
    routes = []
    listed = data.get("routes")
    if not isinstance(listed, list) or not listed:
        problems.append(
            Problem("routes", "is missing or empty", "a list of alert, deployment and parameters")
        )
        listed = []
    for position, item in enumerate(listed):
        route = _read_route(item)
        if route is None:
            right = "alert: NAME, deployment: NAME, parameters: {name: text}"
            problems.append(Problem(f"routes.{position}", "is not a route", right))
        else:
            routes.append(route)
    if problems:
        raise SiteFileInvalid(str(path), problems)
    return ReceiverSettings(token, tuple(routes))


def _read_token(base: Path, name: Any, problems: list[Problem]) -> str:
    if not isinstance(name, str):
        problems.append(Problem("token_file", "is missing", "a file with the token that Alertmanager sends"))
        return ""
    path = base / name
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        problems.append(Problem("token_file", f"cannot read {path}", "a readable text file"))
        return ""
    if mode & 0o077:
        problems.append(Problem("token_file", f"{path} is open to other users", f"chmod 600 {path}"))
    if len(token) < 16:
        problems.append(
            Problem("token_file", "holds a short token", "16 characters or more: openssl rand -hex 32")
        )
    return token


def _read_route(item: Any) -> Route | None:
    if not isinstance(item, dict) or set(item) - {"alert", "deployment", "parameters"}:
        return None
    alert, deployment, parameters = item.get("alert"), item.get("deployment"), item.get("parameters", {})
    if not (isinstance(alert, str) and isinstance(deployment, str) and isinstance(parameters, dict)):
        return None
    if not all(isinstance(value, str) for value in parameters.values()):
        return None
    return Route(alert, deployment, parameters)


def parameters_for(route: Route, alert: Alert) -> dict[str, str]:
    """Fill a route's parameters from an alert's labels. Raise AlertRefused for a label that the alert lacks.

    Never an empty text in its place: `failover(site="")` must not be started.
    """
    missing: list[str] = []

    def label(match: re.Match[str]) -> str:
        value = alert.labels.get(match[1], "")
        if not value:
            missing.append(match[1])
        return value

    filled = {name: re.sub(r"\{(\w+)\}", label, text) for name, text in route.parameters.items()}
    if missing:
        raise AlertRefused(f"{route.alert} has no label {', '.join(missing)}, which {route.deployment} needs")
    return filled


def attempts_of(alert: Alert) -> str:
    """Return one text for all repetitions of an alert, from every instance, and another for the next."""
    labels = json.dumps(sorted(alert.labels.items())).encode()
    name = alert.fingerprint or hashlib.sha256(labels).hexdigest()[:16]
    return f"am-{name}-{int(alert.startsAt.timestamp())}"


async def start_run(api: httpx.AsyncClient, route: Route, alert: Alert, now: datetime) -> str:
    """Start the route's deployment for an alert and return the id of its flow run, new or old.

    Raises:
        AlertRefused: the parameters are not what the flow takes.
        PrefectTrouble: Prefect does not answer, or the deployment is not there (yet).
    """
    parameters, tags = parameters_for(route, alert), ["alertmanager", route.alert]
    return await start_attempt(api, route.deployment, parameters, attempts_of(alert), tags, now)


StartRun = Callable[[Route, Alert], Awaitable[str]]


def create_app(settings: ReceiverSettings, start: StartRun | None = None) -> FastAPI:
    """Return the receiver: `POST /alertmanager` with a bearer token, `GET /health`, and `GET /metrics` for Prometheus.

    Answers: 202 with the runs; 401 without the token; 422 for a body or an alert that cannot be used; 503 if
    Prefect cannot start a run, then Alertmanager sends the notification again and gets the same runs.

    Args:
        settings: token and routes.
        start: starts a run for an alert; over Prefect's API unless given.
    """
    app = FastAPI(title="harbor-ha alert receiver", docs_url=None, redoc_url=None, openapi_url=None)
    routes = {route.alert: route for route in settings.routes}
    expected = f"Bearer {settings.token}".encode()

    def authorize(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), expected):
            raise HTTPException(401, "wrong or missing token")

    answered = Counter({202: 0, 401: 0, 422: 0, 503: 0})

    @app.middleware("http")
    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        if request.url.path == "/alertmanager":
            answered[response.status_code] += 1
        return response

    @app.get("/metrics")
    def metrics() -> PlainTextResponse:
        lines = [f'{ANSWERS}{{status="{status}"}} {number}' for status, number in sorted(answered.items())]
        return PlainTextResponse("\n".join([f"# TYPE {ANSWERS} counter", *lines, ""]))

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/alertmanager", dependencies=[Depends(authorize)])
    async def receive(notification: Notification) -> JSONResponse:
        result = await _handle(notification, routes, start or _start_over_api)
        return JSONResponse(result.body(), status_code=result.status())

    return app


async def _start_over_api(route: Route, alert: Alert) -> str:
    async with httpx.AsyncClient(**client_options(PREFECT_TIMEOUT_S)) as api:
        return await start_run(api, route, alert, datetime.now(UTC))


@dataclass
class _Handled:
    runs: list[dict[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    others: int = 0

    def status(self) -> int:
        return 503 if self.troubles else 422 if self.refused else 202

    def body(self) -> dict[str, Any]:
        return {"runs": self.runs, "refused": self.refused, "troubles": self.troubles, "others": self.others}


def _name_of(given: Any) -> str:
    labels = given.get("labels") if isinstance(given, dict) else None
    return str(labels.get("alertname", "")) if isinstance(labels, dict) else ""


async def _handle(notification: Notification, routes: Mapping[str, Route], start: StartRun) -> _Handled:
    """Start what is to be started; an alert that cannot be used does not keep the others waiting."""
    handled = _Handled()
    for given in notification.alerts:
        name = _name_of(given)
        if name not in routes:
            handled.others += 1
            continue
        try:
            alert = Alert.model_validate(given)
        except ValidationError as error:
            where = ", ".join(
                sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]})
            )
            logger.error("alert %s cannot be read: %s", name, where)
            handled.refused.append(f"{name} cannot be read: {where}")
            continue
        if alert.status != "firing":
            continue
        try:
            run = await start(routes[name], alert)
        except AlertRefused as refused:
            logger.error("alert %s is refused: %s", name, refused)
            handled.refused.append(str(refused))
        except Exception as trouble:
            # Whatever it is, only a 5xx makes Alertmanager try again.
            logger.error("alert %s starts nothing yet: %s", name, trouble)
            handled.troubles.append(
                str(trouble) if isinstance(trouble, PrefectTrouble) else type(trouble).__name__
            )
        else:
            logger.warning("alert %s starts %s: flow run %s", name, routes[name].deployment, run)
            handled.runs.append({"alert": name, "deployment": routes[name].deployment, "flow_run_id": run})
    return handled
