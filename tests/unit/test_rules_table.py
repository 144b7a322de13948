"""The machinery of the tables, and what holds for every table."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from flows.rules import (
    admission,
    durability,
    fence,
    last_look,
    primary,
    promotion,
    rejoin,
    resume,
    switchover,
    verdict,
    watch,
)
from flows.rules.render import rules_page
from flows.rules.table import (
    Check,
    FactsTooOld,
    NoRuleHolds,
    Rule,
    Weight,
    first_match,
    require_fresh,
    weigh,
)
from tasks.clock import Moment

RULE_TABLES: dict[str, tuple[Rule[Any, Any], ...]] = {
    "admission": admission.ADMISSION_RULES,
    "primary": primary.PRIMARY_RULES,
    "fence": fence.FENCE_RULES,
    "last look": last_look.LAST_LOOK_RULES,
    "rejoin": rejoin.REJOIN_RULES,
    "durability": durability.SYNC_RULES,
    "resume": resume.RESUME_RULES,
    "watch": watch.WATCH_RULES,
}


class Answer(StrEnum):
    YES = "YES"
    NO = "NO"


def check(name: str, weight: Weight) -> Check[object]:
    return Check(name, "", lambda view: True, weight, f"{name} is wrong.", "Repair it.")


def test_the_documentation_is_what_the_tables_say() -> None:
    assert (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8") == rules_page(), (
        "run: python -m flows.rules.render > docs/rules.md"
    )


@pytest.mark.parametrize("table", RULE_TABLES)
def test_rules_of_a_table_have_names_of_their_own(table: str) -> None:
    names = [rule.name for rule in RULE_TABLES[table]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("checks", [promotion.CANDIDATE_CHECKS, switchover.SWITCH_CHECKS, verdict.FINDINGS])
def test_checks_of_a_list_have_names_of_their_own(checks: tuple[Any, ...]) -> None:
    names = [one.name for one in checks]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("checks", [promotion.CANDIDATE_CHECKS, switchover.SWITCH_CHECKS])
def test_whatever_refuses_says_what_to_do(checks: tuple[Any, ...]) -> None:
    assert [one.name for one in checks if one.weight is not Weight.WARN and not one.remedy] == []


def test_old_facts_are_refused_by_name() -> None:
    now = Moment(100.0, 0.0)
    with pytest.raises(FactsTooOld, match=r"node-a 20\.0 s"):
        require_fresh([("node-a", Moment(80.0, 0.0)), ("node-b", Moment(99.0, 0.0))], now)


def test_facts_of_another_clock_are_refused() -> None:
    with pytest.raises(FactsTooOld):
        require_fresh([("node-a", Moment(101.0, 0.0))], Moment(100.0, 0.0))


def test_a_jump_of_the_wall_clock_makes_no_fact_old() -> None:
    require_fresh([("node-a", Moment(99.0, 0.0))], Moment(100.0, 90_000.0))


def test_a_hole_in_a_table_is_an_error_and_not_a_decision() -> None:
    with pytest.raises(NoRuleHolds):
        first_match((Rule("never", "", lambda view: False, Answer.YES, ""),), object())


def test_accepting_data_loss_accepts_nothing_else() -> None:
    checks = (check("lag", Weight.DATA_LOSS), check("disk", Weight.REFUSE))
    decision = weigh("t", checks, object(), yes=Answer.YES, no=Answer.NO, accept_data_loss=True)
    assert decision.kind is Answer.NO
    assert decision.reasons == ("disk is wrong.",)
    assert decision.warnings == ("lag is wrong. (accepted by the operator)",)


def test_all_reasons_are_given_at_once() -> None:
    checks = (check("lag", Weight.DATA_LOSS), check("disk", Weight.REFUSE), check("clock", Weight.WARN))
    decision = weigh("t", checks, object(), yes=Answer.YES, no=Answer.NO)
    assert decision.lines() == ["lag is wrong. -> Repair it.", "disk is wrong. -> Repair it."]
    assert decision.warnings == ("clock is wrong.",)


def test_a_warning_alone_refuses_nothing() -> None:
    assert (
        weigh("t", (check("clock", Weight.WARN),), object(), yes=Answer.YES, no=Answer.NO).kind is Answer.YES
    )
