"""A bootstrap or an adoption that has lost the site's lock begins no step any more, and says what it has done."""

import json
import logging
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks import HarborSite
from flows import bootstrap
from flows.machinery import around
from flows.machinery.protocol import Protocol
from flows.rules.preflight import Plan
from tasks import step as step_module
from tasks.errors import Refused
from tasks.hosts.connection import Host
from tasks.on_node.authority import MAX_INTENT_AGE_S
from tasks.operation import held, store
from tasks.operation.timely import StoodStill
from tasks.outcome import Outcome, changed
from tasks.step import Step, step
from tests.unit.test_operation_store import SITE, Node, hosts

PLAN = Plan("node-a", ("node-b",), ("node-a", "node-b"), first_time=False)


class Site:
    """A site of two nodes of which only the state exists, and a step whose calls are kept."""

    def __init__(self, root: Path) -> None:
        self.nodes = {name: Node(name, root / name) for name in ("node-a", "node-b")}
        self.called: list[tuple[str, ...]] = []
        self.title = "Start Harbor"

    def start(self, _: HarborSite, *given: Host) -> Outcome:
        self.called.append(tuple(host.name for host in given))
        return changed("started")

    def other_run(self, *names: str) -> None:
        """Have another run take the lock, which is over by then, do its work and give the lock back."""
        before = store.holder
        store.holder = lambda: "other:1:2:3:4:5"
        try:
            there = hosts([self.nodes[name] for name in names])
            for node in self.nodes.values():
                self.age(node)
            store.acquire(SITE, *there, op_id="failover-1", term=7)
            store.release(SITE, *there, op_id="failover-1")
        finally:
            store.holder = before

    @staticmethod
    def age(node: Node) -> None:
        """Make a node's lock an old one: its holder stood still."""
        path = node.directory / "lock.json"
        lock = json.loads(path.read_text())
        path.write_text(json.dumps({**lock, "expires_at": time.time() - 100, "renewed": None}))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setattr(around, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(step_module, "load_site", lambda _: SITE)
    for module in (step_module, bootstrap, held):
        monkeypatch.setattr(module, "connect", lambda node, **_: made.nodes[node.name])
    monkeypatch.setattr(held, "_PAUSE_S", 0.0)
    return made


class Plain:
    """A step without Prefect's task around it."""

    def __init__(self, site: Site) -> None:
        self.name, self._fn = site.title, step(site.start, site.title).fn

    def __call__(self, site: str, nodes: list[str], **plain: Any) -> Outcome:
        return self._fn(site, nodes, **plain)

    def submit(self, site: str, nodes: list[str], **plain: Any) -> "Future[Outcome]":
        future: Future[Outcome] = Future()
        try:
            future.set_result(self._fn(site, nodes, **plain))
        except Exception as error:
            future.set_exception(error)
        return future


def run_of(site: Site) -> tuple[Protocol, Step]:
    return Protocol("bootstrap", SITE), cast(Step, Plain(site))


def test_while_the_lock_is_its_own_every_step_is_done(site: Site) -> None:
    run, start = run_of(site)
    with bootstrap.alone(run, PLAN):
        run.on(start, "node-a")
        run.on_each(start, ["node-a", "node-b"])
        with run.beside(start, ["node-b"]):
            pass
    assert len(site.called) == 4
    assert run.held is None
    assert all(node.state("lock") is None for node in site.nodes.values())


@pytest.mark.parametrize("names", [("node-a", "node-b"), ("node-b",)])
def test_after_a_failover_that_has_come_and_gone_meanwhile_a_bootstrap_that_wakes_begins_no_step(
    names: tuple[str, ...], site: Site
) -> None:
    """It stood still after it had found the primary; the failover reached only the standby, or both."""
    run, start = run_of(site)

    def wakes() -> None:
        with bootstrap.alone(run, PLAN):
            run.on(start, "node-a")
            site.other_run(*names)
            run.on_each(start, ["node-a", "node-b"])

    with pytest.raises(store.LockLost) as caught:
        wakes()
    assert site.called == [("node-a",)]
    said = str(caught.value)
    assert "held by nobody" in said
    assert "this one has stopped, and its next step was not begun" in said
    assert "What this run had changed before: Start Harbor on node-a." in said
    assert "-> Look at the other run" in said


def test_what_begins_beside_others_asks_too(site: Site) -> None:
    run, start = run_of(site)

    def wakes() -> None:
        with bootstrap.alone(run, PLAN):
            site.other_run("node-a")
            with run.beside(start, ["node-a", "node-b"]):
                pass

    with pytest.raises(store.LockLost):
        wakes()
    assert site.called == []


def test_a_lock_that_ran_out_and_that_nobody_took_is_renewed_by_the_next_step(site: Site) -> None:
    run, start = run_of(site)
    with bootstrap.alone(run, PLAN):
        for node in site.nodes.values():
            site.age(node)
        run.on(start, "node-a")
        assert all(node.state("lock")["expires_at"] > time.time() for node in site.nodes.values())
    assert site.called == [("node-a",)]


def test_that_a_later_word_of_this_run_is_there_already_is_no_loss(site: Site) -> None:
    run, start = run_of(site)
    with bootstrap.alone(run, PLAN):
        path = site.nodes["node-b"].directory / "lock.json"
        lock = json.loads(path.read_text())
        path.write_text(json.dumps({**lock, "sent": lock["sent"] + 60}))
        run.on(start, "node-a")
    assert site.called == [("node-a",)]


def test_a_node_that_cannot_be_asked_stops_what_goes_forward_and_not_what_goes_back(site: Site) -> None:
    """The way back needs the one node of the old Harbor; without it that stays read-only."""
    run, start = run_of(site)
    with bootstrap.alone(run, PLAN):
        site.nodes["node-b"].away = True
        with pytest.raises(store.NotMirrored, match="node-b"):
            run.on(start, "node-a")
        assert site.called == []
        with run.going_back():
            run.on(start, "node-a")
        assert run.held is not None
        assert run.held.everywhere
    assert site.called == [("node-a",)]


def test_the_way_back_is_closed_too_once_another_run_has_been_there(site: Site) -> None:
    run, start = run_of(site)

    def wakes() -> None:
        with bootstrap.alone(run, PLAN):
            site.other_run("node-a")
            with run.going_back():
                run.on(start, "node-b")

    with pytest.raises(store.LockLost):
        wakes()
    assert site.called == []


def test_a_connection_that_breaks_once_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run, start = run_of(site)
    node = site.nodes["node-b"]

    def come_back(_: float) -> None:
        node.away = False

    monkeypatch.setattr(held, "time", SimpleNamespace(monotonic=time.monotonic, sleep=come_back))
    with bootstrap.alone(run, PLAN):
        node.away = True
        run.on(start, "node-a")
    assert site.called == [("node-a",)]


def test_an_answer_that_is_old_when_it_comes_is_asked_for_again_and_never_believed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = [1000.0], []

    def slow(*_: Any, **__: Any) -> None:
        asked.append(clock[0])
        clock[0] += MAX_INTENT_AGE_S + 5

    monkeypatch.setattr(held, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(store, "confirm", slow)
    with pytest.raises(StoodStill, match="nothing was done"):
        held.require_held(SITE, held.Held("op-1", ("node-a",)).plain())
    assert len(asked) == 3


def test_a_dry_run_takes_no_lock_and_asks_for_none(site: Site) -> None:
    run, start = run_of(site)
    run.dry_run = True
    with bootstrap.alone(run, PLAN):
        run.on(start, "node-a")
    assert run.held is None
    assert not (site.nodes["node-a"].directory / "lock.json").exists()


def test_a_failover_between_the_look_and_the_lock_voids_the_plan(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = run_of(site)
    plans = {"now": PLAN}
    monkeypatch.setattr(bootstrap, "observe_site", lambda *_, **__: SimpleNamespace(nodes=(), unreachable=()))
    monkeypatch.setattr(bootstrap, "plan_bootstrap", lambda *_, **__: plans["now"])
    bootstrap.require_same(run, PLAN)
    plans["now"] = Plan("node-b", ("node-a",), PLAN.harbor, first_time=False)
    with pytest.raises(Refused, match="the primary was node-a, and is node-b"):
        bootstrap.require_same(run, PLAN)
