"""Start a deployment over Prefect's REST API and wait for how it ends."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from blocks.suggestions import did_you_mean
from deployments.catalogue import TAG

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class RunRefused(Exception):
    """A run was not started: no such deployment, or parameters that it does not take."""


@dataclass(frozen=True)
class Deployment:
    """A deployment as the server knows it; `properties` is the JSON schema of each parameter of its flow."""

    id: str
    name: str
    properties: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class FlowRun:
    """A flow run as it was last seen.

    Attributes:
        state: one of Prefect's state types, such as RUNNING.
        ending: the name of the state, such as `Refused` or `Degraded`; see `flows.machinery.ending`.
    """

    id: str
    name: str
    state: str
    message: str
    ending: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ENDED


def find_deployment(api: httpx.Client, name: str) -> Deployment:
    """Find one of our deployments by its name. Raise RunRefused, with the names that exist."""
    asked = {"deployments": {"tags": {"all_": [TAG]}}}
    answer = api.post("deployments/filter", json=asked).raise_for_status().json()
    known = {item["name"]: item for item in answer}
    wanted = name.replace("_", "-")
    if wanted not in known:
        there = ", ".join(sorted(known)) or "none at all; is `harbor-ha serve` running?"
        raise RunRefused(f"Prefect has no deployment {wanted}. There is: {there}")
    found = known[wanted]
    return Deployment(
        found["id"], wanted, (found.get("parameter_openapi_schema") or {}).get("properties") or {}
    )


def parse_parameters(deployment: Deployment, given: Iterable[str]) -> dict[str, Any]:
    """Given `key=value` texts, return typed parameters.

    A value is JSON (`true`, `3`, `["a"]`) unless the flow takes a text there; `True` is `true`. Raise RunRefused for
    what the flow does not take: Prefect itself would accept it, and crash when the run begins.
    """
    parameters: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise RunRefused(f"--param {text} is not KEY=VALUE")
        if key not in deployment.properties:
            guess = did_you_mean(key, deployment.properties)
            known = ", ".join(deployment.properties)
            raise RunRefused(
                f"{deployment.name} takes no parameter {key}: "
                + (f"did you mean {guess}?" if guess else f"it takes {known}")
            )
        parameters[key] = _typed(value, deployment.properties[key])
    return parameters


_AS_PYTHON_WRITES_THEM = {"True": True, "False": False, "None": None}


def _typed(value: str, schema: Mapping[str, Any]) -> Any:
    kinds = {schema.get("type"), *(option.get("type") for option in schema.get("anyOf", ()))}
    if kinds == {"string"} or "enum" in schema:
        return value
    if "boolean" in kinds and value in _AS_PYTHON_WRITES_THEM:
        return _AS_PYTHON_WRITES_THEM[value]
    try:
        return json.loads(value)
    except ValueError:
        return value


def start(
    api: httpx.Client,
    deployment: Deployment,
    parameters: Mapping[str, Any],
    *,
    key: str | None = None,
    tags: Iterable[str] = (),
) -> FlowRun:
    """Start a run. With the `key` of an earlier run, return that run and start none.

    Raises RunRefused when the server does not accept the parameters, httpx.HTTPError when it does not answer.
    """
    body: dict[str, Any] = {"parameters": dict(parameters), "tags": list(tags)}
    if key is not None:
        body["idempotency_key"] = key
    answer = api.post(f"deployments/{deployment.id}/create_flow_run", json=body)
    if answer.status_code in (409, 422):
        raise RunRefused(
            f"Prefect refuses the parameters of {deployment.name}: {answer.json().get('detail')}"
        )
    return _flow_run(answer.raise_for_status().json())


def read_run(api: httpx.Client, run_id: str) -> FlowRun:
    """Look at a run."""
    return _flow_run(api.get(f"flow_runs/{run_id}").raise_for_status().json())


def wait(
    api: httpx.Client, run: FlowRun, timeout: float, tell: Callable[[FlowRun], None], *, interval: float = 0.5
) -> FlowRun:
    """Wait until a run has ended, at most `timeout` seconds; return it as it was last seen.

    `tell` is called for each new state. A server that is away for a moment is asked again: the run
    goes on without it.
    """
    deadline = time.monotonic() + timeout
    seen = ""
    while True:
        if run.state != seen:
            seen = run.state
            tell(run)
        if run.ended or time.monotonic() >= deadline:
            return run
        time.sleep(interval)
        try:
            run = read_run(api, run.id)
        except httpx.TransportError:
            continue


def reports(api: httpx.Client, run_id: str) -> list[str]:
    """Return the Markdown artifacts of a run as a terminal shows them, oldest first."""
    asked = {"flow_runs": {"id": {"any_": [run_id]}}, "artifacts": {"type": {"any_": ["markdown"]}}}
    found = api.post("artifacts/filter", json=asked).raise_for_status().json()
    return [for_terminal(item["data"]) for item in sorted(found, key=lambda item: str(item["created"]))]


def for_terminal(report: str) -> str:
    """Return a report without its picture, thousands of letters on one line, and with its fold as a section."""
    text = re.sub(r"^!\[[^\]]*\]\(data:[^)]*\)\n+", "", report, flags=re.MULTILINE)
    return re.sub(r"^<details><summary>(.*?)</summary>$", r"## \1", text, flags=re.MULTILINE).replace(
        "\n\n</details>", ""
    )


def _flow_run(data: Mapping[str, Any]) -> FlowRun:
    state = data.get("state") or {}
    return FlowRun(
        str(data["id"]),
        str(data["name"]),
        str(state.get("type") or ""),
        str(state.get("message") or ""),
        str(state.get("name") or ""),
    )
