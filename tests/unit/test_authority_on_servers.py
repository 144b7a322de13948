"""Programs that come late, twice, or for somebody who was replaced; on real PostgreSQL."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import guard_look
from tasks.guard.on_node.guard_look import pending_promotion
from tasks.guard.on_node.guard_promoted import settle_own_promotion
from tasks.guard.on_node.guard_rules import PRIMARY, PROMOTED, STANDBY, TOLD_TO_PROMOTE
from tasks.on_node import operation_file
from tasks.on_node.pg_told import TOLD, say_told
from tasks.operation.record import OperationKind, OperationRecord, Phase, to_json
from tasks.postgres.on_node import pg_compensate, pg_hold, pg_promote
from tests.unit.local_pair import PORTS, Clusters, clusters, wait_for

pytestmark = pytest.mark.servers

__all__ = ["clusters"]

# Something is mounted there on each Linux.
MOUNTED = "/dev/shm"


@pytest.fixture
def nas() -> Iterator[dict[str, str]]:
    """A NAS that is mounted, of a site that nobody else has."""
    site = f"test-{os.getpid()}"
    yield {"nas_path": MOUNTED, "site": site}
    shutil.rmtree(f"{MOUNTED}/.harbor-ha/{site}", ignore_errors=True)


RECORD = OperationRecord("op-1", OperationKind.SWITCHOVER, "demo", "a", "b", 1, 1.0, "o1", term=1)
O1 = {"holder": "o1:1", "op_id": "op-1", "ttl_s": 60.0, "site": "demo", "nas_path": None}
LIMITS = {"limit_s": 30, "patience_s": 0.0, "fast_s": 10.0, "immediate_s": 5.0, "kill_s": 5.0}


def record(pair: Clusters, name: str, phase: Phase, **who: Any) -> None:
    """Take the lock on a node and write a phase, as an orchestrator does."""
    caller = {**O1, **who}
    at = to_json(RECORD.at(phase, op_id=caller["op_id"], term=caller.get("term", 1)))
    for action in ("acquire", "write"):
        answer = pair.program(
            operation_file, name, action=action, record=at, dead=[], **{"term": 1, **caller}
        )
        assert answer["state"] in ("acquired", "written"), answer


def authority(phase: Phase, **who: Any) -> dict[str, Any]:
    return {"term": 1, "operation": "op-1", "holder": "o1:1", "phases": [phase.value], **who}


def promote(pair: Clusters, **more: Any) -> dict[str, Any]:
    given = {"from_timeline": 1, "operation": "op-1", "limit_s": 30, **more}
    return pair.program(pg_promote, "b", **given)


def receivers(pair: Clusters) -> str:
    return pair.sql("b", "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming';")


def in_recovery(pair: Clusters) -> bool:
    return pair.sql("b", "SELECT pg_is_in_recovery();") == "t"


def test_a_program_of_a_stalled_orchestrator_promotes_nothing_after_another_has_taken_over(
    clusters: Clusters,
) -> None:
    # O1 wrote `promoting` and stalled, O2 took over, closed the operation, and left a healthy primary.
    record(clusters, "b", Phase.PROMOTING)
    clusters.program(operation_file, "b", action="release", **O1)
    second = {"holder": "o2:7", "op_id": "op-2", "term": 2}
    record(clusters, "b", Phase.STARTED, **second)
    assert "term 2 (op-2)" in promote(clusters, authority=authority(Phase.PROMOTING))["outdated"]
    assert in_recovery(clusters)


def test_a_program_that_comes_when_the_operation_is_closed_promotes_nothing(clusters: Clusters) -> None:
    record(clusters, "b", Phase.PROMOTING)
    closed = to_json(RECORD.at(Phase.ABORTED))
    clusters.program(operation_file, "b", action="close", record=closed, **O1)
    assert "held by nobody" in promote(clusters, authority=authority(Phase.PROMOTING))["outdated"]
    assert in_recovery(clusters)


def test_an_intent_of_more_than_half_a_minute_ago_promotes_nothing(clusters: Clusters) -> None:
    record(clusters, "b", Phase.PROMOTING)
    path = clusters.root / "b.state" / "lock.json"
    lock = json.loads(path.read_text())
    lock["written"]["uptime"] -= 31
    path.write_text(json.dumps(lock))
    assert "more than 30 s ago" in promote(clusters, authority=authority(Phase.PROMOTING))["outdated"]
    assert in_recovery(clusters)


def test_a_promoted_node_knows_by_itself_that_it_was_accepted(clusters: Clusters) -> None:
    record(clusters, "b", Phase.PROMOTING)
    answer = promote(clusters, authority=authority(Phase.PROMOTING))
    assert answer["state"] == "promoted", answer
    accepted = json.loads((clusters.root / "b.state" / "accepted.json").read_text())
    assert (accepted["primary"], accepted["timeline"], accepted["term"]) == ("b", 2, 1)


def test_the_run_that_goes_on_is_told_what_the_standby_is(clusters: Clusters) -> None:
    record(clusters, "b", Phase.PROMOTING)
    held = clusters.program(pg_hold, "b", authority=authority(Phase.PROMOTING))
    assert held == {"state": "standby", "timeline": 1}
    assert promote(clusters, authority=authority(Phase.PROMOTING))["state"] == "promoted"
    held = clusters.program(pg_hold, "b", authority=authority(Phase.PROMOTING))
    assert held == {"state": "primary", "timeline": 2}


def test_a_standby_that_was_told_to_promote_itself_does_not_pass_for_one_that_stays(
    clusters: Clusters,
) -> None:
    # Killed between the request and its effect: SQL says "in recovery", and a moment later it is a primary.
    record(clusters, "b", Phase.PROMOTING)
    clusters.sql("b", "SELECT pg_wal_replay_pause();")
    answer = promote(clusters, authority=authority(Phase.PROMOTING, phases=["stopping"]))
    assert "outdated" in answer
    state = clusters.root / "b.state"
    now = json.loads((state / "lock.json").read_text())["written"]
    (state / "promotion.json").write_text(json.dumps({**now, "operation": "op-1"}))
    held = clusters.program(pg_hold, "b", authority=authority(Phase.PROMOTING))
    assert held["state"] == "pending"
    # A start forgets the request, in PostgreSQL and here.
    clusters.stop("b")
    clusters.start("b")
    assert clusters.program(pg_hold, "b", authority=authority(Phase.PROMOTING))["state"] == "standby"
    assert not (state / "promotion.json").exists(), (
        "what is void would let the guard accept a promotion by hand"
    )


def test_a_standby_that_was_told_to_promote_itself_says_so_to_an_old_primary_that_asks(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_look, "reaches", lambda address, port: "open")
    given = clusters.given("a", replication_user="postgres", passfile="/nonexistent")

    def asked() -> str:
        return guard_look.ask(given, "b", str(clusters.root), PORTS["b"]).state

    assert asked() == STANDBY
    say_told(clusters.given("b"))
    assert asked() == TOLD_TO_PROMOTE
    clusters.stop("b")
    clusters.start("b")
    assert asked() == STANDBY, "a start forgets it"
    record(clusters, "b", Phase.PROMOTING)
    # The word is out before the request: what the promotion left behind is what was said during it.
    assert promote(clusters, authority=authority(Phase.PROMOTING))["state"] == "promoted"
    assert clusters.sql("b", f"SELECT {TOLD};") == "t"
    assert asked() == PROMOTED
    clusters.stop("b")
    clusters.start("b")
    assert asked() == PRIMARY


def test_a_promotion_that_comes_true_when_its_run_is_gone_is_accepted_by_the_node_itself(
    clusters: Clusters,
) -> None:
    # The replay took longer than the run waited, nobody called again, and the old primary came back into touch.
    record(clusters, "b", Phase.PROMOTING)
    given = clusters.given("b", operation="op-1", from_timeline=1, authority=authority(Phase.PROMOTING))
    pg_promote.note_request(given)
    assert settle_own_promotion(given) == "", "it is a standby still"
    accepted = clusters.root / "b.state" / "accepted.json"
    assert not accepted.exists()
    clusters.sql("b", "SELECT pg_promote();")
    assert settle_own_promotion(given) == "accepted"
    told = json.loads(accepted.read_text())
    sysid = clusters.sql("b", "SELECT system_identifier FROM pg_control_system();")
    assert told == {"primary": "b", "timeline": 2, "term": 1, "system_identifier": sysid}
    assert settle_own_promotion(given) == "", "once is enough"


def test_what_a_standby_was_told_is_on_the_nas_until_it_has_forgotten_it(
    clusters: Clusters, nas: dict[str, str]
) -> None:
    """An old primary that is switched on meanwhile, and cannot ask this server, finds it there."""
    record(clusters, "b", Phase.PROMOTING)
    more = {"operation": "op-1", "from_timeline": 1, "authority": authority(Phase.PROMOTING), **nas}
    given = clusters.given("b", **more)
    pg_promote.note_request(given)
    shared = Path(nas["nas_path"], ".harbor-ha", nas["site"], "promotion.json")
    told = json.loads(shared.read_text())
    assert (told["node"], told["term"], told["from_timeline"]) == ("b", 1, 1)
    assert pending_promotion({"nas_accepted": str(shared.with_name("accepted.json"))}) == told
    assert settle_own_promotion(given) == "", "it stands"
    clusters.stop("b")
    clusters.start("b")
    away = {**given, "nas_path": "/nowhere"}
    assert settle_own_promotion(away) == "void"
    note = clusters.root / "b.state" / "promotion.json"
    assert json.loads(note.read_text())["void"], "a NAS that is away is told later"
    assert settle_own_promotion(given) == "void"
    assert not shared.exists()
    assert not note.exists()
    clusters.sql("b", "SELECT pg_promote();")
    assert settle_own_promotion(given) == "", "what was taken back is no acceptance of what a hand has done"


def test_an_old_primary_is_not_taken_back_for_an_operation_that_is_not_at_taking_back(
    clusters: Clusters,
) -> None:
    record(clusters, "a", Phase.STOPPING)
    clusters.stop("a")
    (clusters.root / "a" / "standby.signal").write_text("")
    given = {"timeline": 1, "take_back": True, **LIMITS}
    late = clusters.program(pg_compensate, "a", authority=authority(Phase.TAKING_BACK), **given)
    assert "the operation is at `stopping`" in late["outdated"]
    assert (clusters.root / "a" / "standby.signal").exists()


def test_a_standby_that_hears_a_primary_again_is_not_promoted_whatever_was_fenced_before(
    clusters: Clusters,
) -> None:
    # The orchestrator stalled for 20 s between the record and this program, and the old primary booted meanwhile.
    wait_for(lambda: receivers(clusters) == "1", 30.0, lambda: clusters.log("b"))
    record(clusters, "b", Phase.PROMOTING)
    silent = ["127.0.0.1", 1]
    answer = promote(clusters, unheard=silent, authority=authority(Phase.PROMOTING))
    assert answer["state"] == "heard", answer
    assert in_recovery(clusters)
    clusters.stop("a")
    wait_for(lambda: receivers(clusters) == "0", 30.0, lambda: clusters.log("b"))
    assert promote(clusters, unheard=silent, authority=authority(Phase.PROMOTING))["state"] == "promoted"


def test_a_standby_that_finds_the_old_primarys_port_open_is_not_promoted(clusters: Clusters) -> None:
    # The machine booted between the last look and this program; its server was in crash recovery, and nothing
    # streamed from it yet: a client's write went into it after the promotion.
    record(clusters, "b", Phase.PROMOTING)
    clusters.stop("a")
    with socket.create_server(("127.0.0.1", 0)) as booted:
        here = ["127.0.0.1", booted.getsockname()[1]]
        answer = promote(clusters, unheard=here, authority=authority(Phase.PROMOTING))
        assert answer["state"] == "heard", answer
        assert in_recovery(clusters)
    answer = promote(clusters, unheard=here, authority=authority(Phase.PROMOTING))
    assert answer["state"] == "promoted", answer


def test_where_durability_is_required_commits_wait_again_as_soon_as_the_promotion_is_proven(
    clusters: Clusters,
) -> None:
    # Writes went on with one copy after every failover, although the site had promised two.
    clusters.stop("a")
    names = "FIRST 1 (ha_node_a)"
    assert promote(clusters, wait_for=names)["state"] == "promoted"
    assert clusters.sql("b", "SHOW synchronous_standby_names;") == names
    hanging = "SET statement_timeout = '1s'; CREATE TABLE later (x int);"
    done = subprocess.run(
        [
            "timeout",
            "3",
            f"{clusters.bin}/psql",
            "-XAtqh",
            str(clusters.root),
            "-p",
            "5997",
            "-U",
            "postgres",
            "postgres",
            "-c",
            hanging,
        ],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 124
    # Proven once more, by the run that goes on after a killed one: its own write must not hang either.
    assert promote(clusters, wait_for=names)["state"] == "promoted"
    assert clusters.sql("b", "SHOW synchronous_standby_names;") == names
