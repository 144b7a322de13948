"""Harbor is made ready for another primary beside the looks that tell whether there is to be one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from flows.machinery.next_cores import may_replace, next_cores
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from tasks.observation.look import SiteLook
from tasks.operation.record import OperationKind, OperationRecord
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import deaf_standby, primary, stopped, unreached, witnesses
from tests.unit.harbor_site import make_site


@pytest.mark.parametrize(
    ("seen", "said", "ready"),
    [
        (unreached(), witnesses(), True),
        # Receiver, balancer and Redis lose a machine some seconds after its power cut.
        (unreached(), witnesses(balancer_up=True, redis_connected=True), True),
        (unreached(), witnesses(tcp={"node-b": "open"}), False),
        (primary(), witnesses(), False),
        (stopped(), witnesses(), True),
    ],
    ids=["silence", "silence that not all have noticed", "its port is open", "it lives", "it is down"],
)
def test_silence_or_a_server_that_is_down_is_reason_enough_to_make_harbor_ready(
    tmp_path: Path, seen: NodeFacts, said: Witnesses, ready: bool
) -> None:
    work = operation(tmp_path)
    work.seen = SiteLook((seen, deaf_standby()), work.seen.databases, 0.0)
    work.witnesses = said
    assert may_replace(work, "node-a") is ready


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
    return Operation(cast(Protocol, Steps(site)), seen, record=record, written_at=time.monotonic())


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


def test_no_core_begins_on_the_machine_where_the_primary_may_be_started_again(tmp_path: Path) -> None:
    """A server that had crashed was started again in two seconds where it takes one: a core started beside it."""
    work = operation(tmp_path)
    with next_cores(work, but="node-a"):
        pass
    ((_, nodes, _),) = cast(Steps, work.run).begun
    assert nodes == ["node-b"]


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
