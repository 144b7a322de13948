"""Whole histories of a simulated site: small ones all, some that are drawn, and without each cure they go red."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.simulation import coverage, seams
from tests.simulation.faults import KINDS
from tests.simulation.history import Outcome, Plan, Setting, run
from tests.simulation.lives import by_number
from tests.simulation.mutant import Mutant, event, failover
from tests.simulation.mutants_nodes import MUTANTS
from tests.simulation.mutation import taken_out
from tests.simulation.schedules import (
    FAILOVER,
    REJOIN,
    SWITCHOVER,
    A,
    drawn,
    killed_everywhere,
    lone,
    plan,
    small,
)
from tests.simulation.story import shrunk, told

ROOT = Path(__file__).parents[2]
# `make simulate` goes on where these end.
DRAWN = range(1, 151)
# The one process that runs this file has 60 s of CPU for all of it.
SMALL_STEP = 3


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with seams.closed():
        yield


def holds(one: Plan) -> None:
    """Fail with the shortest story when a history violates something."""
    outcome = run(one)
    if outcome.violations:
        short = run(shrunk(one, outcome.violations[0].invariant))
        pytest.fail(f"{one}\n{told(short)}", pytrace=False)


@pytest.mark.parametrize("call", [FAILOVER, SWITCHOVER, REJOIN], ids=lambda call: call[1])
def test_a_flow_that_is_killed_at_any_moment_and_run_again_ends_well(
    call: tuple[str, str, tuple[()]],
) -> None:
    base = lone(call)
    boundaries = run(base).boundaries
    assert boundaries > 30
    for one in killed_everywhere(base, boundaries, (("kill", 0.0),)):
        holds(one)


@pytest.mark.parametrize("part", range(SMALL_STEP))
def test_every_fault_of_the_primary_with_every_second_fault_ends_well(part: int) -> None:
    plans = [one for _, one in small()]
    for one in plans[part::SMALL_STEP]:
        holds(one)


def test_histories_that_are_drawn_end_well() -> None:
    for seed in DRAWN:
        holds(by_number(seed))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_without_a_cure_the_simulation_goes_red(mutant: Mutant) -> None:
    for one in mutant.plans():
        found = {violation.invariant for violation in outcome_of(one, mutant).violations}
        if found:
            assert found & set(mutant.invariants), f"violated another invariant: {found}"
            assert run(one).violations == []
            return
    pytest.fail(f"no history goes red without the cure: {mutant.name}")


def outcome_of(one: Plan, mutant: Mutant | None = None) -> Outcome:
    with taken_out(*mutant.changes) if mutant else nullcontext():
        return run(one)


def test_a_site_of_one_database_node_is_restarted_by_a_failover_and_else_told_why_not() -> None:
    """Every site is one after a restore. The choice of a target failed on it, and the restart was never reached."""
    crash, full = event(3, "crash", A), event(3, "disk", A, "disk", "full")
    for happens, flow, said in (
        (crash, failover(6), "node-a was restarted and is the primary again"),
        (crash, failover(6, dry_run=True), "Would start PostgreSQL on node-a again."),
        (full, failover(20), "node-a cannot be replaced: it is the site's only database node."),
    ):
        story = run(plan(1, Setting(nodes=1), [happens, flow]), stop_at_violation=False).story
        assert any(f"report of failover: {said}" in line for _, line in story), said


def test_a_history_is_the_same_each_time() -> None:
    stories = [run(drawn(11)).story for _ in range(2)]
    assert stories[0] == stories[1]
    assert len(stories[0]) > 10


def test_a_failing_history_is_made_as_short_as_it_can_be() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.row == "3d")
    with taken_out(*mutant.changes):
        one = next(mutant.plans())
        longer = Plan(one.seed, one.setting, (*one.events, drawn(3).events[0]), quiet_s=one.quiet_s)
        short = shrunk(longer, "two writers")
    assert len(short.events) <= len(one.events)


def test_every_kind_of_event_has_a_table_of_rules_that_it_can_reach() -> None:
    taken: coverage.Taken = set()
    with coverage.counted(taken):
        for seed in range(1, 40):
            run(drawn(seed))
    missing, unused = coverage.untaken(taken)
    assert "PRIMARY_RULES" not in unused
    assert "FENCE_RULES" not in unused
    assert sum(map(len, missing.values())) < sum(len(rows) for rows in coverage.tables().values())
    assert len(KINDS) > 20


def test_the_page_has_a_line_for_each_mutant_and_names_tests_that_exist() -> None:
    page = (ROOT / "docs/simulation.md").read_text(encoding="utf-8")
    for mutant in MUTANTS:
        assert f"| {mutant.row} | {mutant.without} | {', '.join(mutant.invariants)} |" in page
    named = set(re.findall(r"`(tests/\S+\.py)`", page))
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
