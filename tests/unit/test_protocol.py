"""A step that goes on beside others keeps its own time, its own failure, and never outlives the flow."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest

from flows.machinery import around
from flows.machinery.protocol import Protocol, StepsFailed
from tasks.errors import HarborHaError, Refused
from tasks.outcome import Outcome, changed, unchanged
from tasks.step import Step


class PlainStep:
    """A step without Prefect: what `Protocol` needs of a task."""

    name = "Load images"

    def __init__(self, work: Callable[[str], Outcome]) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(4)

    def __call__(self, site: str, nodes: list[str], **plain: Any) -> Outcome:
        return self._work(nodes[0])

    def submit(self, site: str, nodes: list[str], **plain: Any) -> Future[Outcome]:
        return self._pool.submit(self._work, nodes[0])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    monkeypatch.setattr(around, "get_run_logger", lambda: logging.getLogger("test"))

    class Site:
        name = "example"

    return Protocol("bootstrap", Site())  # type: ignore[arg-type]


def beside(run: Protocol, work: Callable[[str], Outcome], *nodes: str) -> Any:
    return run.beside(PlainStep(work), nodes)  # type: ignore[arg-type]


def test_it_goes_on_while_the_body_does_and_is_recorded_at_its_end(run: Protocol) -> None:
    body_began = threading.Event()

    def load(node: str) -> Outcome:
        assert body_began.wait(5)
        return changed("loaded")

    with beside(run, load, "node-a", "node-b"):
        body_began.set()
        assert run.records == []
    assert [(record.nodes, record.outcome) for record in run.records] == [
        (("node-a",), changed("loaded")),
        (("node-b",), changed("loaded")),
    ]


def test_its_time_is_its_own_and_not_the_bodys(run: Protocol) -> None:
    with beside(run, lambda node: changed("loaded"), "node-a"):
        time.sleep(0.5)
    assert run.records[0].seconds < 0.3


def test_its_failure_ends_the_flow_after_the_body(run: Protocol) -> None:
    def fail(node: str) -> Outcome:
        raise HarborHaError("no space left", where=node)

    done = []
    with pytest.raises(HarborHaError, match="node-a: no space left"), beside(run, fail, "node-a"):
        done.append("body")
    assert done == ["body"]
    with pytest.raises(StepsFailed, match="node-b: no space left"), beside(run, fail, "node-a", "node-b"):
        pass


def test_when_the_body_fails_it_is_waited_for_and_recorded_and_the_bodys_error_counts(run: Protocol) -> None:
    ended = threading.Event()

    def load(node: str) -> Outcome:
        time.sleep(0.2)
        ended.set()
        raise HarborHaError("too late to matter")

    with pytest.raises(ValueError, match="the pair"), beside(run, load, "node-a"):
        raise ValueError("the pair was not built")
    assert ended.is_set()
    assert run.records[0].error == "too late to matter"


def test_in_a_dry_run_it_is_announced_only(run: Protocol) -> None:
    run.dry_run = True
    with beside(run, lambda node: pytest.fail("it ran"), "node-a"):
        pass
    assert [(record.title, record.outcome) for record in run.records] == [("Load images", None)]


def test_a_node_that_is_through_the_first_step_gets_the_second_while_others_are_at_the_first(
    run: Protocol,
) -> None:
    served = threading.Event()

    def repoint(node: str) -> Outcome:
        if node == "node-a":
            assert served.wait(5), "node-b waited for node-a"
            raise HarborHaError("core does not answer", where=node)
        return changed("repointed")

    def serve(node: str) -> Outcome:
        served.set()
        return changed("served")

    first, second = cast(Step, PlainStep(repoint)), cast(Step, PlainStep(serve))
    failed = run.in_turn(first, second, ["node-a", "node-b"])
    assert list(failed) == ["node-a"]
    assert "core does not answer" in failed["node-a"]
    assert [(record.nodes, record.outcome) for record in run.records] == [
        (("node-b",), changed("repointed")),
        (("node-b",), changed("served")),
        (("node-a",), None),
    ]


def test_a_refusal_after_steps_that_changed_something_names_them_and_no_others(run: Protocol) -> None:
    def refuse(_: str) -> Outcome:
        raise Refused("Redis is in use.", ["empty it"])

    loads: Any = PlainStep(lambda node: changed("loaded") if node == "node-a" else unchanged("there"))
    refuses: Any = PlainStep(refuse)
    run.on_each(loads, ["node-a", "node-b"])
    with pytest.raises(Refused) as caught, run.telling_changes():
        run.on(refuses, "node-b")
    assert "Redis is in use. What was changed: Load images on node-a." in str(caught.value)


def test_a_refusal_before_any_change_says_that_nothing_was_changed(run: Protocol) -> None:
    with pytest.raises(Refused, match="Nothing was changed"), run.telling_changes():
        raise Refused("Redis is in use.", ["empty it"])
