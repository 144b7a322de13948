"""A site on the lab, for what can only be measured on real machines: brought up, made whole, and its clients."""

import functools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.faults.clients import Clients
from lab.faults.processes import Run
from lab.faults.stage import Stage, wait_for
from lab.site_lab import Lab
from tasks.balancer.states import Served
from tasks.errors import HarborHaError

NAME = "bench"
# Turns of an empty loop; a fifth of a second.
_LOOP = 5_000_000
ROUNDS = 5


class CannotRun(Exception):
    """Why this machine cannot measure something."""


class WrongEnd(Exception):
    """A flow did something else than what is measured."""


@functools.cache
def stage_of(name: str) -> Stage:
    """Bring the lab up and its site to a healthy pair; once a process, for all that is measured on it.

    Raises:
        CannotRun: there is no Docker engine.
    """
    why = no_docker()
    if why:
        raise CannotRun(why)
    lab = Lab(name)
    lab.up()
    stage = Stage(lab)
    stage.open()
    return stage


def no_docker() -> str:
    """Say why there is no lab on this machine; empty when there can be one."""
    if os.geteuid() != 0:
        return "the lab needs root"
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return "`docker` is not installed; `make demo` installs it"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer within 20 s"
    return "" if done.returncode == 0 else "the Docker engine does not answer"


def or_why(work: Callable[[], list[str]]) -> list[str]:
    """Measure; where that is not possible here, the reason is the row."""
    try:
        return work()
    except CannotRun as error:
        return [f"cannot run: {error}"]


def repeat(rounds: int, work: Callable[[], None]) -> list[str]:
    """Do something so many times; returns rows for below what was measured.

    They say how quick a processor was before each round, and why it was stopped before its end, if it was.
    """
    loops: list[float] = []
    for number in range(1, rounds + 1):
        loops.append(loop_s())
        try:
            work()
        except (AssertionError, HarborHaError, WrongEnd) as error:
            # Below it may stand a whole log, which is on disk.
            why = (str(error) or type(error).__name__).splitlines()[0]
            return [pace_of(loops), f"stopped in round {number} of {rounds}: {why}"]
    return [pace_of(loops)]


def loop_s() -> float:
    """Seconds for the same work on one processor each time.

    A machine that others share is half as quick at times, which no load shows, and all of a failover but its time-outs
    with it.
    """
    begin = time.perf_counter()
    for _ in range(_LOOP):
        pass
    return time.perf_counter() - begin


def pace_of(loops: list[float]) -> str:
    """Say how quick a processor was before each round."""
    each = ", ".join(f"{seconds:.2f}" for seconds in loops)
    return f"a loop of {_LOOP // 1_000_000} million turns took before each round: {each} s"


@contextmanager
def clients(stage: Stage, what: str) -> Iterator[Clients]:
    """Have clients write and push while something is done to a healthy pair; both get through first."""
    made = Clients(stage)
    try:
        made.start_loads(f"{time.time():.0f}-{what}", each_node=True)
        wait_for(lambda: len(made.acknowledged()) > 5, 20.0, "the writer does not get through")
        wait_for(lambda: len(made.pushed()) > 3, 30.0, "no push gets through")
        yield made
    finally:
        made.end_loads()


def expect(run: Run, text: str) -> None:
    """Measure nothing that did not work.

    Raises:
        WrongEnd: the flow's headline lacks the text.
        AssertionError: it ended with an error.
    """
    if text not in run.headline:
        raise WrongEnd(run.headline)


def until_served(stage: Stage, node: str, run: Run, limit: float = 120.0) -> float:
    """Seconds from the call of a run until the load balancer serves a node and goes on doing so.

    Raises:
        AssertionError: the node was served all the time, or is not within the limit.
    """
    since, was_out = 0.0, False
    deadline = time.monotonic() + limit
    while not (run.out.exists() and since):
        up = stage.served()[node] == Served.UP
        was_out, since = was_out or not up, (since or time.time()) if up else 0.0
        assert time.monotonic() < deadline, f"{node} is not served {limit:.0f} s after the call"
        time.sleep(0.1)
    assert was_out, f"{node} was served all the time"
    return since - float(run.answer["begun"])
