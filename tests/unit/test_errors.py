"""An error tells the operator what happened, and survives Prefect's pickling."""

import pickle

import pytest

from tasks.errors import HarborHaError, HostUnreachable, Refused, RemoteCommandFailed

ERRORS = [
    HostUnreachable("No answer.", where="node-a", meaning="It may be down.", remedy="Look."),
    RemoteCommandFailed("psql", "node-a", 2, "FATAL: no"),
    Refused("No failover.", ["the primary is healthy", "the site is paused"]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_it_crossed_a_process(error: HarborHaError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_the_text_says_where_what_and_what_to_do() -> None:
    assert str(ERRORS[0]) == "node-a: No answer. It may be down. -> Look."


def test_a_refusal_lists_every_reason() -> None:
    assert str(ERRORS[2]).splitlines()[1:] == ["  - the primary is healthy", "  - the site is paused"]
