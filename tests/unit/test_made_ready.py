"""Harbor is made ready for another primary beside the looks that tell whether there is to be one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.traffic import next_cores
from flows.rules.primary import Primary
from flows.rules.silence import Round, may_be_gone
from flows.rules.table import Decision
from tasks.clock import Moment
from tasks.observation.look import SiteLook
from tasks.operation.record import OperationKind, OperationRecord
from tests.unit.facts_builder import deaf_standby, primary
from tests.unit.harbor_site import make_site


def first_look(kind: Primary, *, quiet: bool = False) -> Round:
    return Round(Decision(kind, kind), Moment(0.0, 0.0), quiet)


@pytest.mark.parametrize(
    "seen",
    [
        first_look(Primary.GONE, quiet=True),
        # Receiver, balancer and Redis lose a machine some seconds after its power cut.
        first_look(Primary.CONTROL_PARTITION, quiet=True),
        first_look(Primary.DOWN_HOST_UP),
    ],
)
def test_silence_or_a_server_that_is_down_is_reason_enough(seen: Round) -> None:
    assert may_be_gone(seen)


@pytest.mark.parametrize(
    "kind",
    [
        Primary.HEALTHY,
        Primary.STARTING,
        Primary.HUNG,
        Primary.UNRESPONSIVE,
        Primary.READ_ONLY,
        Primary.CONTROL_PARTITION,
        Primary.WRITERS_ATTACHED,
        Primary.AMBIGUOUS,
        Primary.SPLIT_BRAIN,
        Primary.ALREADY_PROMOTED,
    ],
)
def test_whatever_answers_is_not(kind: Primary) -> None:
    """Two seconds of standing still, or a path that is cut, are no reason to start anything on the nodes."""
    assert not may_be_gone(first_look(kind))


class Steps(Protocol):
    """Tells what was begun beside the body of a `with`."""

    def __init__(self, site: Any) -> None:
        super().__init__("failover", site)
        self.begun: list[tuple[str, list[str], dict[str, Any]]] = []

    @contextmanager
    def beside(self, step: Any, nodes: Any, **given: Any) -> Iterator[dict[str, Any]]:
        self.begun.append((step.name, list(nodes), given))
        yield {}


def operation(tmp_path: Path, **policy: Any) -> Operation:
    site = make_site(tmp_path)
    site.failover = site.failover.model_copy(update=policy)
    every = (primary(), deaf_standby())
    record = OperationRecord(
        "failover-1", OperationKind.FAILOVER, site.name, "node-a", "node-b", 1, 0.0, "me", "42", None
    )
    seen = SiteLook(every, frozenset(facts.name for facts in every), 0.0)
    return Operation(cast(Protocol, Steps(site)), seen, record=record)


def test_what_is_made_ready_already_is_not_begun_again_when_the_fence_is_due(tmp_path: Path) -> None:
    work = operation(tmp_path)
    with next_cores(work):
        assert work.preparing
        with next_cores(work):
            pass
        assert work.preparing
    assert not work.preparing
    (begun,) = cast(Steps, work.run).begun
    assert begun[0] == "Start Harbor's next core"
    assert begun[2]["database_host"] == work.run.site.node("node-b").address


def test_what_was_not_made_ready_early_is_begun_at_the_fence(tmp_path: Path) -> None:
    work = operation(tmp_path)
    for _ in range(2):
        with next_cores(work):
            pass
    assert len(cast(Steps, work.run).begun) == 2


def test_by_the_guides_way_there_is_nothing_to_make_ready(tmp_path: Path) -> None:
    work = operation(tmp_path, repoint="prepare")
    with next_cores(work):
        pass
    assert cast(Steps, work.run).begun == []
