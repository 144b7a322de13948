"""What rejoin does to a node, on real PostgreSQL."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from blocks.site_file import read_site_file
from flows.rules.rejoin import Rejoin, classify_rejoin
from tasks import clock
from tasks.postgres import promote
from tasks.postgres.on_node import base_backup, pg_follow, pg_lost_commits, pg_rewind
from tests.unit.local_host import local_host
from tests.unit.local_pair import PORTS, Clusters, clusters, real_clusters, wait_for
from tests.unit.site_on_disk import NOW, correct_site

pytestmark = pytest.mark.servers

__all__ = ["clusters"]


def clone(pair: Clusters, name: str, primary: str, **more: Any) -> dict[str, Any]:
    """Clone one cluster from the other, as `tasks.postgres.standby.clone` asks for it."""
    given = {
        "conninfo": "user=postgres",
        "primary": str(pair.root),
        "port": str(PORTS[primary]),
        "slot": f"ha_node_{name}",
        "needed_bytes": 1,
        "record": str(pair.root / f"{name}.state" / "cluster.json"),
        "record_text": "{}",
        "sysid": pair.sql(primary, "SELECT system_identifier FROM pg_control_system();"),
        "limit_s": 60,
        **more,
    }
    return pair.program(base_backup, name, **given)


def history(pair: Clusters, primary: str) -> dict[str, Any]:
    """What the programs are told of the primary's history."""
    timeline = int(pair.sql(primary, "SELECT timeline_id FROM pg_control_checkpoint();"))
    path = pair.root / primary / "pg_wal" / f"{timeline:08X}.history"
    return {
        "primary_timeline": timeline,
        "history": path.read_text() if timeline > 1 else "",
        "primary_lsn": pair.sql(primary, "SELECT pg_current_wal_lsn();"),
    }


def lost(pair: Clusters, name: str, primary: str, operation: str = "rejoin-1") -> dict[str, Any]:
    """Ask what only one cluster has."""
    given = {"operation": operation, "kept_only": False, "limit_s": 60, **history(pair, primary)}
    return pair.program(pg_lost_commits, name, **given)


def rewind(pair: Clusters, name: str, primary: str) -> dict[str, Any]:
    """Rewind one cluster to the other."""
    source = f"host={pair.root} port={PORTS[primary]} user=postgres dbname=postgres"
    given = {"operation": "rejoin-1", "source": source, "passfile": "/nowhere", "recovery_s": 60}
    return pair.program(pg_rewind, name, rewind_s=60, **given, **history(pair, primary))


def test_a_postmaster_pid_that_a_power_cut_left_does_not_end_a_clone(clusters: Clusters) -> None:
    """ "The server is still running" was said after the whole copy, and no process was there."""
    stale = (clusters.root / "b" / "postmaster.pid").read_text()
    clusters.stop("b", "immediate")
    (clusters.root / "b" / "postmaster.pid").write_text(stale)
    done = clone(clusters, "b", "a")
    assert "problem" not in done, done
    assert pg_follow_of(clusters, "b")["state"] == "standby"


def pg_follow_of(pair: Clusters, name: str, limit_s: float = 30) -> dict[str, Any]:
    """Start a cluster as a standby."""
    return pair.program(pg_follow, name, limit_s=limit_s)


def test_a_server_that_runs_is_seen_before_anything_is_copied(clusters: Clusters) -> None:
    done = clone(clusters, "b", "a")
    assert str(clusters.postmaster("b")) in done["problem"]
    assert not (clusters.root / "b.new").exists()


def test_two_primaries_of_one_timeline_number_are_not_nothing_lost(clusters: Clusters) -> None:
    """Both go on from timeline 1 to their own timeline 2: 25 rows were only on one of them."""
    clusters.stop("b")
    clusters.run("cp", "-a", f"{clusters.root}/b", f"{clusters.root}/b.twin")
    clusters.sql("a", "CREATE TABLE more (x int);")
    clusters.start("b")
    clusters.promote("b")
    clusters.sql("b", "CREATE TABLE only_here AS SELECT generate_series(1, 25);")
    clusters.stop("b")
    # a becomes timeline 2 too: it is stopped, told to recover, and promoted.
    clusters.stop("a")
    clusters.run("touch", f"{clusters.root}/a/standby.signal")
    clusters.start("a")
    clusters.promote("a")
    found = lost(clusters, "b", "a")
    assert (found["known"], found["timeline" if found["known"] else "total"]) == (False, 0)
    assert "they are two" in found["why"]


def test_a_standby_of_the_primarys_timeline_has_lost_nothing(clusters: Clusters) -> None:
    clusters.stop("b")
    found = lost(clusters, "b", "a")
    assert (found["known"], found["total"]) == (True, 0)


def fill(pair: Clusters, name: str, segments: int = 8) -> None:
    """Write so much WAL, and let the server drop what it need not keep."""
    pair.sql(name, "CREATE TABLE IF NOT EXISTS filled (x int);")
    for _ in range(segments):
        pair.sql(name, "INSERT INTO filled VALUES (1); SELECT pg_switch_wal();")
    pair.sql(name, "CHECKPOINT; CHECKPOINT;")


def test_whether_the_wal_is_there_is_told_by_positions_and_not_by_the_slot(clusters: Clusters) -> None:
    """The clone that failed had made the slot anew; the next rejoin followed, and waited for WAL that was gone."""
    clusters.stop("b")
    clusters.sql("a", "SELECT pg_drop_replication_slot('ha_node_b');")
    fill(clusters, "a")
    clusters.sql("a", "SELECT pg_create_physical_replication_slot('ha_node_b', true);")
    a, b = clusters.look("a"), clusters.look("b")
    decision = classify_rejoin(b, a, clock.now(), slot="ha_node_b")
    assert decision.kind is Rejoin.CLONE, decision
    assert decision.rule == "needed WAL is gone"


def test_a_standby_whose_wal_is_kept_follows(clusters: Clusters) -> None:
    clusters.stop("b")
    fill(clusters, "a")
    a, b = clusters.look("a"), clusters.look("b")
    assert classify_rejoin(b, a, clock.now(), slot="ha_node_b").kind is Rejoin.FOLLOW


def test_wal_that_is_gone_ends_the_start_at_once_and_not_after_300_s(clusters: Clusters) -> None:
    """A standby that is not consistent yet answers nobody, and asks for the same segment for ever."""
    clusters.stop("b")
    clusters.sql("a", "SELECT pg_drop_replication_slot('ha_node_b');")
    clusters.sql("a", "SELECT pg_create_physical_replication_slot('ha_node_b', true);")
    # A copy whose WAL is not all there is consistent at its end only.
    done = clone(clusters, "b", "a")
    assert "problem" not in done, done
    for segment in (clusters.root / "b" / "pg_wal").glob("00000001" + "?" * 16):
        segment.unlink()
    clusters.sql("a", "SELECT pg_drop_replication_slot('ha_node_b');")
    fill(clusters, "a")
    clusters.sql("a", "SELECT pg_create_physical_replication_slot('ha_node_b', true);")
    begun = time.monotonic()
    told = pg_follow_of(clusters, "b", limit_s=60)
    assert told.get("cannot_follow"), told
    assert time.monotonic() - begun < 20


def test_a_standby_that_is_not_consistent_is_told_by_the_removed_segment(clusters: Clusters) -> None:
    clusters.sql("b", "SELECT pg_wal_replay_pause();")
    clusters.sql("a", "CREATE TABLE more AS SELECT generate_series(1, 100000) AS x; CHECKPOINT;")
    clusters.stop("b", "immediate")
    clusters.sql("a", "SELECT pg_drop_replication_slot('ha_node_b');")
    fill(clusters, "a")
    clusters.sql("a", "SELECT pg_create_physical_replication_slot('ha_node_b', true);")
    begun = time.monotonic()
    told = pg_follow_of(clusters, "b", limit_s=60)
    assert time.monotonic() - begun < 20
    log_from = told["log_from"]
    wait_for(
        lambda: bool(pg_follow.CANNOT_FOLLOW.search(clusters.log("b")[log_from:])),
        20.0,
        lambda: clusters.log("b")[log_from:],
    )


def test_wal_that_the_server_dropped_is_rewound_and_listed_out_of_its_own_archive() -> None:
    """`wal_archive: disk` was read by nobody."""
    with real_clusters() as pair:
        for name in PORTS:
            command = f"test ! -e {pair.root}/{name}.archive/%f && cp %p {pair.root}/{name}.archive/%f"
            pair.configure(name, archive_mode="on", archive_command=command)
        pair.stop("a")
        pair.start("a")
        pair.copy()
        pair.promote("b")
        pair.sql("a", "SELECT pg_drop_replication_slot('ha_node_b'); CREATE TABLE only_here (x int);")
        fill(pair, "a", 10)
        pair.stop("a")
        kept = sorted(path.name for path in (pair.root / "a" / "pg_wal").glob("00000001" + "?" * 16))
        fork = history(pair, "b")["history"].split()[1]
        assert kept[0] > fork_segment(fork), "the server must have dropped what is needed"
        found = lost(pair, "a", "b")
        assert found["known"], found
        assert found["total"] >= 10
        done = rewind(pair, "a", "b")
        assert done.get("state") == "rewound", done
        evidence = {path.name for path in (pair.root / "a.state" / "diverged" / "rejoin-1").iterdir()}
        assert fork_segment(fork) in evidence
        assert not (pair.root / "a.conf" / "harbor-ha-rewind.conf").exists()
        pair.sql("b", "SELECT pg_create_physical_replication_slot('ha_node_a', true);")
        assert pg_follow_of(pair, "a")["state"] == "standby"
        pair.caught_up("b", "a")


def fork_segment(lsn: str) -> str:
    """The segment of timeline 1 in which a position lies."""
    high, low = lsn.split("/")
    return f"00000001{int(high, 16):08X}{int(low, 16) >> 24:08X}"


def test_the_note_of_what_was_lost_is_kept_as_it_was(clusters: Clusters) -> None:
    clusters.stop("b")
    lost(clusters, "b", "a", "rejoin-2")
    kept = json.loads((clusters.root / "b.state" / "diverged" / "rejoin-2.commits.json").read_text())
    assert kept["total"] == 0


def of_this_machine(pair: Clusters, name: str, monkeypatch: pytest.MonkeyPatch, place: Path) -> HarborSite:
    """A site whose PostgreSQL on `local_host` is the cluster."""
    monkeypatch.setenv("PGHOST", str(pair.root))
    site = read_site_file(correct_site(place).write(), now=NOW)
    site.postgres.port = PORTS[name]
    return site


def slot_row(pair: Clusters, name: str) -> str:
    """The slot of `b` on a cluster: xmin and restart_lsn."""
    return pair.sql(name, "SELECT xmin, restart_lsn FROM pg_replication_slots WHERE slot_name = 'ha_node_b';")


def test_the_slot_of_a_lost_standby_holds_back_vacuum_until_a_clone_makes_it_anew(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = of_this_machine(clusters, "a", monkeypatch, tmp_path)
    wait_for(lambda: not slot_row(clusters, "a").startswith("|"), 20, lambda: slot_row(clusters, "a"))
    clusters.stop("b")
    clusters.sql("a", "CREATE TABLE dead AS SELECT generate_series(1, 10) AS x; DELETE FROM dead;")
    clusters.sql("a", "CREATE TABLE more (x int);")
    seen = clusters.look("a").server
    assert seen is not None
    assert [(s.has_xmin, s.active) for s in seen.slots] == [(True, False)]
    assert (seen.slots[0].xmin_age or 0) >= 3
    assert (seen.slots[0].held_bytes or 0) > 0
    kept = slot_row(clusters, "a")
    assert not promote.ensure_slots(site, local_host(), peers=["node-b"]).changed
    assert slot_row(clusters, "a") == kept, "a node that goes on as it is needs its WAL"
    assert promote.ensure_slots(site, local_host(), peers=["node-b"], anew=["node-b"]).changed
    assert slot_row(clusters, "a").startswith("|"), "no xmin any more"


def test_a_standby_that_follows_again_frees_vacuum_by_itself(clusters: Clusters) -> None:
    wait_for(lambda: not slot_row(clusters, "a").startswith("|"), 20, lambda: slot_row(clusters, "a"))
    clusters.stop("b")
    before = slot_row(clusters, "a").split("|")[0]
    clusters.sql("a", "CREATE TABLE dead AS SELECT generate_series(1, 10) AS x;")
    assert pg_follow_of(clusters, "b")["state"] == "standby"
    wait_for(
        lambda: int(slot_row(clusters, "a").split("|")[0]) > int(before), 20, lambda: slot_row(clusters, "a")
    )
