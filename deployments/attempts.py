"""One run of a deployment after the other while something lasts: an alert, or what the watcher sees.

Every run has an idempotency key made of what lasts and a number, so that two who tell of the same start the same run.
The next number is due when the run before it has ended without an accepted primary: a first run that was refused, that
crashed, or that found a lock, was otherwise the last.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from deployments.answers import LOOKED_AT, event_of_another_answer
from deployments.catalogue import TAG
from deployments.choices import not_offered_yet
from deployments.runs import ENDED
from tasks.outcome import PRIMARY_ACCEPTED

# At most one new run a minute.
ATTEMPT_S = 60.0
# A run that says RUNNING for longer may have lost its process; what lives all the same is known by its lock.
UNDER_WAY_S = 120.0


class AlertRefused(Exception):
    """A call cannot start its deployment, and would not be able to later either."""


class PrefectTrouble(Exception):
    """Prefect cannot start the run at the moment; it is to be called again."""


def next_attempt(last: Mapping[str, Any] | None, now: datetime) -> int | None:
    """Return the number of the run that is due; None while the last one is the answer.

    Args:
        last: the newest run for it as Prefect tells it; None before the first.
        now: when it was called.
    """
    if last is None:
        return 1
    state = str(last.get("state_type") or "")
    if state == "SCHEDULED" or (state in ENDED and (last.get("labels") or {}).get(PRIMARY_ACCEPTED)):
        return None
    age = (now - datetime.fromisoformat(str(last["expected_start_time"]))).total_seconds()
    if age < (ATTEMPT_S if state in ENDED else UNDER_WAY_S):
        return None
    number = str(last.get("idempotency_key") or "").rpartition("/")[2]
    return int(number) + 1 if number.isdigit() else 2


async def start_attempt(
    api: httpx.AsyncClient,
    deployment_name: str,
    parameters: Mapping[str, str],
    attempts: str,
    tags: Sequence[str],
    now: datetime,
) -> str:
    """Start a deployment if its next run is due, and return the id of its newest flow run, new or old.

    `alert_time` is passed where the flow takes it: when it was called, so that a run that waited in a queue can
    refuse. Not when it began: an outage may last.

    Args:
        attempts: the same text for all calls about one thing, and another for the next.
        tags: of the run, for a reader.

    Raises:
        AlertRefused: the parameters are not what the flow takes.
        PrefectTrouble: Prefect does not answer, or the deployment is not there (yet).
    """
    given = dict(parameters)
    wanted = {"deployments": {"name": {"any_": [deployment_name]}, "tags": {"all_": [TAG]}}}
    found = await _ask(api, "deployments/filter", wanted)
    if not found.json():
        # The runner registers its deployments when it starts: they may be there at the next try.
        raise PrefectTrouble(f"Prefect has no deployment {deployment_name}: is `harbor-ha serve` running?")
    deployment = found.json()[0]
    if "alert_time" in ((deployment.get("parameter_openapi_schema") or {}).get("properties") or {}):
        given["alert_time"] = now.isoformat()
    asked = {
        "flow_runs": {"tags": {"all_": [attempts]}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 1,
    }
    runs = (await _ask(api, "flow_runs/filter", asked)).json()
    number = next_attempt(runs[0] if runs else None, now)
    if number is None:
        return str(runs[0]["id"])
    site = given.get("site", "")
    body: dict[str, Any] = {
        # One that dies before its flow names it would have a name of chance, and its repetitions be told each minute.
        "name": " of ".join(filter(None, (deployment_name, site))),
        "parameters": given,
        "idempotency_key": f"{attempts}/{number}",
        "tags": [*tags, attempts],
    }
    if not_offered_yet(deployment, given):
        body["enforce_parameter_schema"] = False
    run = await _ask(api, f"deployments/{deployment['id']}/create_flow_run", body)
    if number > 1 and site:
        await _tell_another_answer(api, site, asked)
    return str(run.json()["id"])


async def _tell_another_answer(api: httpx.AsyncClient, site: str, asked: Mapping[str, Any]) -> None:
    """Send the event that the attempt before this one answered something new, if it did.

    A Prefect that does not take it has taken the run: that is not made an error. In an hour people are told again.
    """
    with contextlib.suppress(PrefectTrouble, AlertRefused):
        runs = (await _ask(api, "flow_runs/filter", {**asked, "limit": LOOKED_AT})).json()
        event = event_of_another_answer(site, runs)
        if event is not None:
            await _ask(api, "events", [event])


async def _ask(api: httpx.AsyncClient, path: str, body: Any) -> httpx.Response:
    try:
        answer = await api.post(path, json=body)
    except httpx.HTTPError as error:
        raise PrefectTrouble(f"Prefect does not answer: {str(error) or type(error).__name__}") from error
    if answer.status_code in (409, 422):
        raise AlertRefused(f"Prefect refuses the parameters: {answer.json().get('detail')}")
    if answer.is_error:
        raise PrefectTrouble(f"Prefect answers {answer.status_code} to {path}")
    return answer
