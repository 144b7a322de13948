"""Prefect is dead when the primary dies: the watcher runs the failover itself, once, and not for one refused call."""

import sys
from types import SimpleNamespace
from typing import Any

from deployments.watch.alone import WithoutPrefect, spawn
from flows.rules.watch import Order

ORDER = Order("node-a", "node-a-2", "the standby hears nothing and nobody answers")
WHY = "Prefect does not answer"


class Machine:
    """What is started here, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.started: list[list[str]] = []
        self.ended: list[Any] = []

    def start(self, argv: Any) -> Any:
        self.started.append(list(argv))
        made = SimpleNamespace(poll=lambda: None)
        self.ended.append(made)
        return made


def made() -> tuple[Machine, WithoutPrefect]:
    machine = Machine()
    return machine, WithoutPrefect(machine.start, lambda: machine.now)


def test_one_call_that_a_busy_server_refused_starts_nothing() -> None:
    machine, alone = made()
    alone("main", ORDER, WHY)
    machine.now += 120
    alone("main", ORDER, WHY)
    assert machine.started == [], "two refusals far apart are two busy moments"


def test_a_second_refusal_runs_the_failover_without_prefect() -> None:
    machine, alone = made()
    for _ in range(2):
        alone("main", ORDER, WHY)
        machine.now += 5
    (argv,) = machine.started
    assert argv[:5] == [sys.executable, "-m", "deployments.cli", "run", "failover"]
    assert argv[-1] == "--without-prefect"
    assert "expected_primary=node-a" in argv


def test_while_it_runs_no_second_one_is_started_and_another_site_is_none_of_its_business() -> None:
    machine, alone = made()
    for _ in range(30):
        alone("main", ORDER, WHY)
        machine.now += 5
    assert len(machine.started) == 1
    for _ in range(2):
        alone("other", ORDER, WHY)
    assert len(machine.started) == 2


def test_after_one_that_changed_nothing_the_next_waits_a_minute() -> None:
    machine, alone = made()
    for _ in range(2):
        alone("main", ORDER, WHY)
        machine.now += 5
    machine.ended[0].poll = lambda: 5
    for _ in range(10):
        alone("main", ORDER, WHY)
        machine.now += 5
    assert len(machine.started) == 1
    for _ in range(2):
        alone("main", ORDER, WHY)
        machine.now += 5
    assert len(machine.started) == 2


def test_a_process_is_really_started_and_is_not_of_this_session() -> None:
    process = spawn(
        [sys.executable, "-c", "import os, sys; sys.exit(7 if os.getsid(0) == os.getpid() else 1)"]
    )
    assert process.wait(30) == 7
