"""A primary that does not answer, on real PostgreSQL: waited for, stopped gently, killed last."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows.rules.primary import Server, server_state
from tasks.postgres.on_node import pg_compensate
from tests.unit.local_pair import Clusters, real_clusters, wait_for

pytestmark = pytest.mark.servers


@pytest.fixture
def alone() -> Iterator[Clusters]:
    """One running primary."""
    with real_clusters() as made:
        yield made


def restart(pair: Clusters, **more: Any) -> dict[str, Any]:
    """What restart-first does."""
    given = {"limit_s": 20.0, "patience_s": 0.0, "fast_s": 3.0, "immediate_s": 3.0, "kill_s": 5.0}
    return pair.program(pg_compensate, "a", **{"timeline": 1, "take_back": False, **given, **more})


@contextmanager
def asleep(pid: int, seconds: float) -> Iterator[None]:
    """Stop a process for some seconds."""
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGCONT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_slow_server_that_answers_after_all_is_not_stopped(alone: Clusters) -> None:
    """It got SIGQUIT at once while it committed."""
    before = alone.postmaster("a")
    with asleep(before, 4.0):
        answer = restart(alone, patience_s=15.0)
    assert answer["state"] == "primary", answer
    assert alone.postmaster("a") == before


def test_a_server_with_a_stopped_backend_is_stopped_and_started_again(alone: Clusters) -> None:
    backend = alone.sql("a", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer';")
    before = alone.postmaster("a")
    os.kill(int(backend), signal.SIGSTOP)
    os.kill(before, signal.SIGSTOP)
    answer = restart(alone, limit_s=30.0)
    assert answer["state"] == "primary", answer
    assert alone.postmaster("a") != before
    assert "database system was not properly shut down" in alone.log("a"), "it had to be killed"


def test_a_hanging_server_gets_the_gentle_stop_first(alone: Clusters) -> None:
    """A fast stop leaves nothing to recover; SIGQUIT came first."""
    alone.run("sh", "-c", f"mv {alone.root}/.s.PGSQL.5996 {alone.root}/hidden")
    before = alone.postmaster("a")
    assert restart(alone)["state"] == "primary"
    assert alone.postmaster("a") != before
    assert "received fast shutdown request" in alone.log("a")
    assert "not properly shut down" not in alone.log("a")


@contextmanager
def slow_recovery(pair: Clusters, seconds: float) -> Iterator[int]:
    """Crash it, and let its startup process sleep for so long in the middle of the recovery."""
    pair.sql("a", "CREATE TABLE t AS SELECT generate_series(1, 300000) AS x;")
    pair.stop("a", "immediate")
    pair.start("a", wait=False)
    wait_for(lambda: (pair.root / "a" / "postmaster.pid").exists(), 10, lambda: pair.log("a"))
    found: list[int] = []

    def startup() -> bool:
        main = pair.postmaster("a")
        children = pair.run("ps", "-o", "pid=,args=", "--ppid", str(main), check=False).splitlines()
        found[:] = [int(line.split()[0]) for line in children if "startup" in line]
        return bool(found)

    wait_for(startup, 10, lambda: pair.log("a"))
    with asleep(found[0], seconds):
        yield pair.postmaster("a")


def test_a_server_in_crash_recovery_is_seen_as_starting_and_waited_for(alone: Clusters) -> None:
    with slow_recovery(alone, 7.0) as before:
        facts = alone.look("a")
        assert server_state(facts) is Server.STARTING, facts
        answer = restart(alone)
    assert answer["state"] == "primary", answer
    assert alone.postmaster("a") == before, "it was killed in its recovery"


@pytest.mark.parametrize("take_back", [False, True])
def test_a_recovery_that_outlasts_the_budget_is_left_to_it(alone: Clusters, take_back: bool) -> None:
    with slow_recovery(alone, 8.0) as before:
        begun = time.monotonic()
        answer = restart(alone, limit_s=2.0, take_back=take_back)
        assert time.monotonic() - begun < 7
        assert "still in crash recovery" in answer["problem"]
        assert alone.postmaster("a") == before
