"""A night that finds OSS away tries again by itself; what a human must put right is not repeated."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows.machinery import again
from flows.nightly_backup import nightly_backup
from flows.rules.again import ATTEMPTS, pause_before_another
from tasks.errors import HostUnreachable, Refused, RemoteCommandFailed
from tasks.storage.errors import AccessDenied, EndpointUnreachable, ServiceFailed, StorageFull

PASSING = [EndpointUnreachable("away"), ServiceFailed("500"), HostUnreachable("silent")]
LASTING = [
    AccessDenied("no"),
    StorageFull("full"),
    Refused("no", ["because"]),
    RemoteCommandFailed("x", "n", 1, ""),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_an_outage_is_waited_out_with_growing_pauses_within_the_night(error: Exception) -> None:
    pauses = [pause_before_another(error, attempt) for attempt in range(1, ATTEMPTS + 1)]
    assert pauses == [300, 600, 1200, 2400, None]


@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_what_a_human_must_put_right_is_not_repeated(error: Exception) -> None:
    assert pause_before_another(error, 1) is None


def test_the_nightly_flow_has_prefects_retries() -> None:
    assert nightly_backup.retries == ATTEMPTS - 1


@pytest.mark.servers
def test_prefect_runs_it_again_after_an_outage_and_not_after_a_refusal(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a real server, whose rule for retries asks the run's policy and not the flow's definition."""
    monkeypatch.setattr(again, "pause_before_another", lambda error, n: pause_before_another(error, n) and 0)
    attempts: list[str] = []
    last: list[bool] = []

    @flow(flow_run_name="again-{errors}", retries=again.RETRIES, retry_delay_seconds=0)
    def example(errors: list[str]) -> str:
        kinds = {"away": EndpointUnreachable, "denied": AccessDenied}
        attempts.append("")
        if len(attempts) <= len(errors):
            error = kinds[errors[len(attempts) - 1]]("test")
            last.append(again.tried(error))
            raise error
        return "done"

    assert example(["away", "away"]) == "done"
    assert (len(attempts), last) == (3, [False, False])
    attempts.clear()
    last.clear()
    state = example(["away", "denied", "away"], return_state=True)
    assert state.is_failed()
    assert (len(attempts), last) == (2, [False, True])
    with get_client(sync_client=True) as client:
        assert {run.run_count for run in client.read_flow_runs() if run.name.startswith("again-")} == {2, 3}
