"""May the roles be exchanged as planned?"""

from dataclasses import replace
from typing import Any

import pytest

from flows.rules.switchover import SWITCH_CHECKS, MaySwitch, may_switch_over
from flows.rules.table import Decision, Weight
from tasks.postgres.facts import Archiver, Disk, NodeFacts
from tasks.postgres.lsn import Lsn
from tests.unit.facts_builder import NOW, cluster, primary, receiver, sender, standby, stopped, unreached

NodePair = tuple[NodeFacts, NodeFacts]


def ask(node_a: NodeFacts, node_b: NodeFacts, **options: Any) -> Decision[MaySwitch]:
    return may_switch_over(node_a, node_b, NOW, **options)


def test_a_healthy_pair_may_exchange_roles() -> None:
    decision = ask(primary(), standby())
    assert decision.kind is MaySwitch.ALLOW
    assert decision.reasons == decision.warnings == ()


def up(**changes: Any) -> NodePair:
    return primary(server_changes=changes), standby()


def down(**changes: Any) -> NodePair:
    return primary(), standby(server_changes=changes)


FAILING = Archiver(True, 1, "000000020000000000000005", 5.0, 1.0)
VIOLATIONS: dict[str, NodePair] = {
    "paused": (primary(state={"paused": {"reason": "work"}}), standby()),
    "primary not reached": (unreached(), standby()),
    "standby not reached": (primary(), unreached("node-b")),
    "not a primary": (stopped(), standby()),
    "not a standby": (primary(), stopped("node-b")),
    "another database": down(system_identifier="1"),
    "another major version": down(version_num=140010),
    "another timeline": down(timeline=1),
    "not streaming": down(receiver=receiver(message_age_s=9.0)),
    "lag too large": down(replay_lsn=Lsn(0x1000000)),
    "replay paused": down(replay_paused=True),
    "no free sender": down(free_senders=0),
    "no free slot": down(free_slots=0),
    "masked": (primary(masked=True), standby()),
    "autostart unusual": (primary(start_conf="manual"), standby()),
    "settings overridden": (primary(cluster=cluster(auto_conf=("restore_command",))), standby()),
    "archive behind": (primary(cluster=cluster(ready_count=4)), standby()),
    "base backup running": up(base_backups=1, senders=(sender(),)),
    "long transaction": up(oldest_transaction_s=61.0),
    "pg_hba.conf broken": down(hba_errors=1),
    "disk nearly full": (primary(data_disk=Disk(100, 9)), standby()),
    "clocks apart": (primary(clock_skew_s=3.0), standby()),
}


def test_every_check_is_shown_to_fail_below() -> None:
    assert set(VIOLATIONS) | {
        "busy",
        "no way back",
        "Harbor refuses writes",
        "Harbor's writes fail",
    } == {check.name for check in SWITCH_CHECKS}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_violation_is_found_alone(name: str) -> None:
    decision = ask(*VIOLATIONS[name])
    check = next(check for check in SWITCH_CHECKS if check.name == name)
    if check.weight is Weight.WARN:
        assert decision.kind is MaySwitch.ALLOW
        assert len(decision.warnings) == 1
    else:
        assert decision.kind is MaySwitch.REFUSE
        assert len(decision.reasons) == 1, decision.reasons


def test_another_operation_in_progress_refuses() -> None:
    assert ask(primary(), standby(), busy=True).kind is MaySwitch.REFUSE


def test_the_old_primary_must_be_able_to_follow_afterwards() -> None:
    assert ask(primary(), standby(), reverse_path=False).kind is MaySwitch.REFUSE
    assert ask(primary(), standby(), reverse_path=True).kind is MaySwitch.ALLOW


def test_a_harbor_that_refuses_writes_by_policy_is_told_before_anything_is_stopped() -> None:
    # Read-only mode failed the switchover after the promotion, with the old primary stopped.
    decision = ask(primary(), standby(), client_write=("refused-by-policy", "read only mode"))
    assert decision.kind is MaySwitch.REFUSE
    assert "read only mode" in decision.reasons[0]


def test_a_harbor_whose_writes_fail_is_a_warning_for_an_exchange_may_be_the_cure() -> None:
    decision = ask(primary(), standby(), client_write=("failed", "502"))
    assert decision.kind is MaySwitch.ALLOW
    assert "502" in decision.warnings[0]


def test_a_failing_archiver_would_hang_the_shutdown() -> None:
    assert ask(*up(archiver=FAILING)).kind is MaySwitch.REFUSE


def test_a_failure_of_the_archiver_before_its_last_success_is_over() -> None:
    healed = replace(FAILING, last_archived_at=6.0)
    assert ask(*up(archiver=healed)).kind is MaySwitch.ALLOW


def test_a_primary_without_a_sender_does_not_believe_its_standby() -> None:
    assert ask(*up(senders=())).kind is MaySwitch.REFUSE


def test_how_far_it_is_behind_is_told_or_said_to_be_unknown() -> None:
    (known,) = ask(*down(replay_lsn=Lsn(0x1000000))).reasons
    assert known == "node-b is 83,886,080 bytes behind node-a."
    unknown = ask(*down(replay_lsn=None)).reasons
    assert "node-b is an unknown number of bytes behind node-a." in unknown


def test_all_reasons_come_at_once() -> None:
    bad = standby(server_changes={"replay_paused": True, "hba_errors": 1, "free_slots": 0})
    assert len(ask(primary(), bad).reasons) == 3
