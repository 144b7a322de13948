"""Real servers that stand still in part: what they go on saying, and what must not be concluded from it."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tasks.operation.record import Phase
from tasks.postgres.on_node import pg_hold
from tests.unit.local_pair import Clusters, clusters, real_clusters
from tests.unit.test_authority_on_servers import authority, promote, record

pytestmark = pytest.mark.servers

__all__ = ["clusters"]

TIMEOUT_S = 2


@pytest.fixture
def attentive() -> Iterator[Clusters]:
    """A streaming pair that misses each other after two seconds."""
    limit = f"{TIMEOUT_S}s"
    with real_clusters(wal_sender_timeout=limit, wal_receiver_timeout=limit) as made:
        made.copy()
        yield made


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Have processes stand still. One that has ended meanwhile (the backend of a query just answered) is still too."""
    try:
        tell(pids, signal.SIGSTOP)
        yield
    finally:
        tell(pids, signal.SIGCONT)


def tell(pids: list[int], number: signal.Signals) -> None:
    """Signal those that are there: the postmaster, going on first, buries a backend that ended while it stood."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes(pair: Clusters, name: str) -> list[int]:
    """The postmaster and its children."""
    postmaster = pair.postmaster(name)
    with open(f"/proc/{postmaster}/task/{postmaster}/children", encoding="ascii") as listed:
        return [postmaster, *map(int, listed.read().split())]


def test_a_sender_says_that_it_is_there_while_nothing_else_of_its_primary_runs(attentive: Clusters) -> None:
    # A data disk that hangs holds whoever writes; the sender has nothing to read and answers from memory.
    sender = int(attentive.sql("a", "SELECT pid FROM pg_stat_replication;"))
    position = "SELECT pg_last_wal_receive_lsn();"
    with stopped([pid for pid in processes(attentive, "a") if pid != sender]):
        before, until = attentive.sql("b", position), time.monotonic() + 3 * TIMEOUT_S
        while time.monotonic() < until:
            seen = attentive.look("b").server
            assert seen is not None
            assert seen.receiver is not None
            assert seen.receiver.fresh
        assert attentive.sql("b", position) == before


def test_a_promoted_standby_whose_sql_stalls_does_not_pass_for_one_that_was_never_promoted(
    clusters: Clusters,
) -> None:
    # The run that goes on took the old primary back beside it: 50 acknowledged rows were gone.
    record(clusters, "b", Phase.PROMOTING)
    assert promote(clusters, authority=authority(Phase.PROMOTING))["state"] == "promoted"
    with stopped([clusters.postmaster("b")]):
        held = clusters.program(pg_hold, "b", authority=authority(Phase.PROMOTING))
        assert held["state"] == "down", held
    held = clusters.program(pg_hold, "b", authority=authority(Phase.PROMOTING))
    assert held == {"state": "primary", "timeline": 2}
