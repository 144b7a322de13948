"""A primary that crashes minutes after a failover: it is restarted, and nothing is promoted a second time."""

from collections.abc import Iterator

import pytest

from tests.simulation import seams
from tests.simulation.faults import Event
from tests.simulation.history import Plan, run
from tests.simulation.mutant import CONFIRMED, call, event, failover
from tests.simulation.schedules import A, B, plan

FAILED_OVER = [
    event(3, "power_off", A),
    failover(6),
    event(60, "power_on", A),
    call(100, "rejoin", node=A),
]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with seams.closed():
        yield


def reports(*events: Event) -> list[str]:
    """What the failovers after the first one said."""
    history: Plan = plan(1, CONFIRMED, [*FAILED_OVER, *events], quiet_s=30.0)
    outcome = run(history)
    assert outcome.violations == []
    told = [line for _, line in outcome.story if line.startswith("report of failover: ")]
    return [line.removeprefix("report of failover: ") for line in told[1:]]


def test_a_server_that_dies_within_the_cooldown_is_restarted_where_its_machine_lives() -> None:
    (told,) = reports(event(200, "crash", B), call(210, "failover", expected_primary=B))
    assert told.startswith("node-b was restarted and is the primary again")


def test_a_machine_that_dies_within_the_cooldown_is_not_replaced_by_itself() -> None:
    told = reports(event(200, "power_off", B), call(210, "failover", expected_primary=B))
    assert told[0] == (
        "Nothing was done: The last failover was less than the cooldown ago; two in a row point at another trouble."
    )


def test_after_a_restart_that_did_not_help_it_is_not_said_that_nothing_was_done() -> None:
    """The server was stopped and started for that, whatever became of it."""
    told = reports(
        event(199, "disk", B, "disk", "full"),
        event(200, "crash", B),
        call(210, "failover", expected_primary=B),
    )
    assert told[0].startswith("node-b was not replaced: The last failover was less than the cooldown ago")
