"""A primary that commits nothing any more is replaced, although its WAL sender still says that it is there."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.machinery import service
from flows.machinery.operation import Operation
from tasks.harbor.web import HarborRefused, HarborUnreachable
from tasks.observation.look import SiteLook
from tasks.postgres.facts import NodeFacts
from tasks.postgres.lsn import Lsn
from tests.unit.facts_builder import deaf_standby, node, primary, standby

BOTH = frozenset({"node-a", "node-b"})
# What the probe says of a node whose data disk does not answer: SQL and the data directory are late.
MUTE = node("node-a", problems={"cluster": "late: no answer within 4 s", "server": "no SQL was answered"})


class Work:
    """A failover that has looked once, and what the next look shows."""

    def __init__(self, *seen: NodeFacts, then: tuple[NodeFacts, ...] = ()) -> None:
        self.seen, self.then, self.looks = SiteLook(seen, BOTH, 0.1), SiteLook(then or seen, BOTH, 0.1), 0
        self.run = SimpleNamespace(watch=lambda title, look, describe: look())

    def look_at(self, name: str) -> None:
        self.seen, self.looks = self.then, self.looks + 1


def stalled(work: Work) -> bool:
    return service.stalled(cast(Operation, work), "node-a")


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    told = SimpleNamespace(error=HarborUnreachable("no answer"), asked=0)

    def try_write(run: Any, limit_s: float) -> Any:
        told.asked += 1
        return told.error

    monkeypatch.setattr(service, "try_write", try_write)
    return told


def test_a_sender_that_only_says_that_it_is_there_does_not_keep_clients_waiting(
    answer: SimpleNamespace,
) -> None:
    # The data disk hung; the standby heard its primary for as long, and every failover was refused.
    work = Work(MUTE, standby())
    assert stalled(work)
    assert work.looks == 1


def test_a_slow_primary_that_commits_is_not_one_that_stands_still(answer: SimpleNamespace) -> None:
    before, now = (standby(server_changes={"receive_lsn": Lsn(at)}) for at in (0x6000000, 0x6000100))
    assert not stalled(Work(MUTE, before, then=(MUTE, now)))
    answer.error = None
    assert not stalled(Work(MUTE, standby()))


def test_a_harbor_that_refuses_by_policy_is_no_proof_of_a_primary_that_stands_still(
    answer: SimpleNamespace,
) -> None:
    answer.error = HarborRefused("read-only mode", 403, code="DENIED")
    assert not stalled(Work(MUTE, standby()))


def test_one_that_has_come_back_by_the_second_look_goes_on(answer: SimpleNamespace) -> None:
    assert not stalled(Work(MUTE, standby(), then=(primary("node-a"), standby())))


@pytest.mark.parametrize(
    "seen",
    [
        (primary("node-a"), standby()),
        (replace(primary("node-a"), server=None), standby()),
        (MUTE, deaf_standby()),
    ],
    ids=["it answers", "its directory answers", "nobody hears it"],
)
def test_no_write_is_tried_where_nothing_speaks_for_it(
    seen: tuple[NodeFacts, ...], answer: SimpleNamespace
) -> None:
    assert not stalled(Work(*seen))
    assert answer.asked == 0
