"""Which jobservice may use another database than its core: the one that asked a core which is gone."""

from typing import Any

import pytest

from tasks.on_node.jobservice import older_than_core

BEFORE, AT, AFTER, LATER = (f"2026-11-26T20:02:{second}.5Z" for second in ("15", "30", "45", "55"))


def jobs(started: str, *, runs: bool = True) -> dict[str, Any]:
    return {"State": {"Running": runs, "StartedAt": started}}


@pytest.mark.parametrize(
    ("found", "behind"),
    [
        (jobs(BEFORE), True),
        (jobs(AFTER), False),
        (jobs(BEFORE, runs=False), False),
        (None, False),
    ],
)
def test_only_a_running_one_that_was_started_before_core_was_made_is_behind(
    found: dict[str, Any] | None, behind: bool
) -> None:
    restarted_alone = {"Id": "one", "Created": AT, "State": {"Running": True, "StartedAt": AFTER}}
    assert older_than_core(restarted_alone, found, {}) is behind
    assert older_than_core(None, found, {}) is False


@pytest.mark.parametrize(
    ("two_cores", "behind"),
    [
        ({"core": "one", "until": LATER}, True),
        ({"core": "one", "told": False}, True),
        ({"core": "one", "since": AT, "until": LATER}, True),
        ({"core": "one", "until": AFTER}, False),
        ({"core": "one", "since": LATER, "until": LATER}, False),
        ({"core": "another", "until": LATER}, False),
    ],
)
def test_one_that_started_while_two_cores_had_one_name_may_have_asked_the_wrong_one(
    two_cores: dict[str, Any], behind: bool
) -> None:
    core = {"Id": "one", "Created": AT, "State": {"Running": True, "StartedAt": AT}}
    assert older_than_core(core, jobs(AFTER), two_cores) is behind
