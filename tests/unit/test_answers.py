"""Which attempt of an outage answered something that people do not know yet."""

from typing import Any

import pytest

from deployments.answers import ANSWER, answer_of, event_of_another_answer


def run(name: str, message: str, kind: str = "FAILED") -> dict[str, Any]:
    """A run that has ended, or not, as Prefect tells it."""
    return {
        "id": f"id of {message}",
        "name": "failover of main from node-a",
        "state_type": kind,
        "state_name": name,
        "state": {"message": message},
    }


STARTED = run("Scheduled", "", "SCHEDULED")
LIVES = run("Refused", "node-a lives")
UNPROVEN = run("Refused", "nothing proves that node-a is off")
FAILED = run("Failed", "node-b does not answer")


def test_a_reason_that_was_not_given_yet_is_told_with_its_run() -> None:
    event = event_of_another_answer("main", [STARTED, UNPROVEN, LIVES])
    assert event is not None
    assert event["event"] == ANSWER
    assert event["resource"]["prefect.resource.id"] == "harbor-ha.site.main"
    assert event["resource"]["prefect.resource.name"] == "failover of main from node-a"
    assert event["resource"][ANSWER] == answer_of(UNPROVEN)
    assert event["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{UNPROVEN['id']}"


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([STARTED], "none has ended"),
        ([STARTED, LIVES], "Prefect tells the first by itself"),
        ([STARTED, FAILED, LIVES], "and the first that ends in another state"),
        ([STARTED, LIVES, LIVES], "the same again"),
        ([STARTED, LIVES, UNPROVEN, LIVES], "it was told before the other one"),
        (
            [
                STARTED,
                run("Nothing to do", "the cooldown", "COMPLETED"),
                run("Nothing to do", "x", "COMPLETED"),
            ],
            "no trouble",
        ),
    ],
)
def test_nothing_is_told_twice(runs: list[dict[str, Any]], why: str) -> None:
    assert event_of_another_answer("main", runs) is None, why


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("heard 3 s ago", "heard 63.5 s ago"),
        ("4,530,192 bytes behind", "5,000,000 bytes behind"),
        ("at 0/3EBB7F0", "at 0/4000028"),
        ("since 2026-01-31T03:00:00+00:00", "since 2026-01-31T03:01:00+00:00"),
        (
            "Operation failover-1a2b3c4d of host (process 17)",
            "Operation failover-5e6f7a8b of host (process 18)",
        ),
    ],
)
def test_what_only_counts_on_is_the_same_answer(earlier: str, later: str) -> None:
    assert event_of_another_answer("main", [run("Refused", later), run("Refused", earlier)]) is None


def test_another_node_is_another_answer() -> None:
    assert answer_of(run("Refused", "node-1 lives")) != answer_of(run("Refused", "node-2 lives"))
