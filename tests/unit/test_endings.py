"""How a run ended is the name of its state: in the UI, over the API, and as an exit status."""

import logging
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import SiteUnknown
from blocks.prefect_api import prefect_api
from deployments import cli, exits, runs
from deployments.runs import Deployment, FlowRun
from flows.machinery.ending import NOTHING_TO_DO, Alarming, ends_named
from tasks.backup.night.lock import LockedByAnother
from tasks.errors import Refused
from tasks.operation.store import LockHeld

RESULT = {"headline": "main is HEALTHY.", "state": "Healthy"}


def endings(how: str) -> dict[str, Any]:
    """End as asked.

    Args:
        how: which way.
    """
    if how == "refused":
        raise Refused("main cannot be switched over.", ["node-b is not reached."])
    if how == "locked":
        raise LockHeld("node-a", {"holder": "host:1", "op_id": "op-1", "expires_at": 0.0})
    if how == "unknown":
        raise SiteUnknown("Prefect knows no site nain.")
    if how == "backed up":
        raise LockedByAnother("The nightly backup of another orchestrator runs.")
    if how == "crashed":
        raise KeyError(how)
    return {
        "healthy": RESULT,
        "calm": {"headline": "Nothing was done: node-a lives.", "state": NOTHING_TO_DO},
        "down": {"headline": "main is DOWN: no primary.", "state": "Down", "alarming": True},
    }[how]


named = flow(name="endings")(ends_named(endings))


def test_outside_of_a_run_a_flow_is_the_plain_function_that_it_was() -> None:
    assert ends_named(endings)("down")["alarming"]
    with pytest.raises(Refused):
        ends_named(endings)("refused")


def test_the_form_of_a_flow_is_that_of_its_function() -> None:
    assert named.parameters.properties["how"]["description"] == "which way."
    assert str(named.description).startswith("End as asked.")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("how", "kind", "name", "message"),
    [
        ("healthy", "COMPLETED", "Healthy", "main is HEALTHY."),
        ("calm", "COMPLETED", "Nothing to do", "Nothing was done: node-a lives."),
        ("refused", "FAILED", "Refused", "main cannot be switched over. Nothing was changed."),
        ("locked", "FAILED", "Refused", "node-a: Operation op-1"),
        ("unknown", "FAILED", "Refused", "Prefect knows no site nain."),
        ("backed up", "FAILED", "Refused", "The nightly backup of another"),
        ("down", "FAILED", "Down", "main is DOWN: no primary."),
    ],
)
def test_a_run_ends_in_a_state_of_its_own_name(
    prefect_server: str,
    how: str,
    kind: str,
    name: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        state = named(how, return_state=True)
    assert (state.type.value, state.name) == (kind, name)
    with prefect_api(timeout=30) as api:
        run = runs.read_run(api, str(state.state_details.flow_run_id))
    assert (run.state, run.ending) == (kind, name)
    assert run.message.startswith(message)
    assert "Traceback" not in caplog.text, "what is no accident is told in a sentence"


@pytest.mark.servers
def test_a_result_is_given_to_whoever_calls_the_flow_and_what_is_no_success_is_raised(
    prefect_server: str,
) -> None:
    assert named("healthy") == RESULT
    with pytest.raises(Refused, match="node-b is not reached"):
        named("refused")
    with pytest.raises(Alarming) as found:
        named("down")
    assert found.value.result["state"] == "Down"
    with pytest.raises(KeyError):
        named("crashed")


@pytest.mark.parametrize(
    ("state", "ending", "status"),
    [
        ("COMPLETED", "Healthy", exits.DONE),
        ("COMPLETED", "Degraded", exits.DEGRADED),
        ("COMPLETED", NOTHING_TO_DO, exits.DONE),
        ("FAILED", "Down", exits.FAILED),
        ("FAILED", "Refused", exits.REFUSED),
        ("CRASHED", "Crashed", exits.FAILED),
        ("RUNNING", "Running", exits.NOT_ENDED),
    ],
)
def test_the_exit_status_says_how_a_watched_run_ended(
    state: str, ending: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FlowRun("1", "check of main", state, "told", ending)
    monkeypatch.setattr(
        runs, "find_deployment", lambda api, name: Deployment("1", name, {"site": {"type": "string"}})
    )
    monkeypatch.setattr(runs, "start", lambda api, deployment, parameters: run)
    monkeypatch.setattr(runs, "wait", lambda api, run, timeout, tell: run)
    monkeypatch.setattr(runs, "reports", lambda api, run_id: [])
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert cli.main(["run", "check", "--site", "main", "--watch"]) == status
