"""PostgreSQL's part of failover, switchover and rejoin, on real servers that are really killed."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from lab.site_lab import Lab
from tasks.guard.install import install_guard
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.operation.files import DURABILITY
from tasks.postgres import durability, promote, proof, rejoin, standby, stop
from tasks.postgres.layout import layout_of
from tasks.postgres.lost_commits import lost_commits
from tasks.postgres.on_node import pg_follow
from tasks.postgres.run_on_node import run_on_node
from tasks.postgres.sql import execute, value
from tests.lab.postgres_pair import Pair, wait_for


@pytest.fixture
def pair(lab: Lab) -> Iterator[Pair]:
    """A primary and a standby that follows; the nodes get the site's own settings back afterwards."""
    made = Pair(lab)
    made.build()
    made.settle()
    yield made
    configured = Pair(lab).site
    if made.site != configured:
        lab.heal()
        for node in made.nodes:
            if not lab.is_running(node.name):
                lab.start(node.name)
            install_guard(configured, node)


def operation() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def shut_down(pair: Pair, primary: Host) -> dict[str, object]:
    data = stop.stop_for_switchover(pair.site, primary).data
    return {key: data[key] for key in ("checkpoint", "timeline", "sysid")}


def test_a_switchover_moves_the_primary_without_a_rewind_and_without_a_lost_row(pair: Pair) -> None:
    primary, other = pair.roles()
    timeline, row = pair.timeline(primary), operation()
    pair.write(primary, row)
    promote.checkpoint(pair.site, primary)

    proven = shut_down(pair, primary)
    assert not stop.stop_for_switchover(pair.site, primary).changed
    stop.prove_shutdown(pair.site, other, **proven)  # type: ignore[arg-type]
    assert pair.promote(other, operation()) == timeline + 1

    rejoin.follow(pair.site, primary, other)
    assert not rejoin.follow(pair.site, primary, other).changed
    assert row in pair.rows(primary)
    slots = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE slot_name ~ '^ha_'"
    assert value(pair.site, primary, slots) == ""
    assert value(pair.site, other, slots) == f"ha_{primary.name.replace('-', '_')}"


def test_a_switchover_that_is_given_up_leaves_the_old_primary_on_its_timeline(pair: Pair) -> None:
    primary, other = pair.roles()
    timeline = pair.timeline(primary)
    shut_down(pair, primary)

    assert stop.compensate(pair.site, primary, timeline=timeline).changed
    assert not stop.compensate(pair.site, primary, timeline=timeline).changed

    assert pair.timeline(primary) == timeline
    proof.replicate_marker(pair.site, other, primary)


def test_a_primary_that_crashed_or_hangs_is_restarted_where_it_is(pair: Pair) -> None:
    primary, other = pair.roles()
    timeline = pair.timeline(primary)
    pair.kill(primary)
    stop.restart_primary(pair.site, primary, timeline=timeline, limit_s=20)
    primary.run(["pkill", "-STOP", "-x", "postgres"])
    stop.restart_primary(pair.site, primary, timeline=timeline, limit_s=20)

    proof.prove_write(pair.site, primary)
    assert pair.timeline(primary) == timeline
    proof.replicate_marker(pair.site, other, primary)


def test_a_standby_that_missed_the_shutdown_checkpoint_is_not_taken_for_complete(pair: Pair) -> None:
    primary, other = pair.roles()
    timeline = pair.timeline(primary)
    unit = layout_of(pair.site).unit
    other.run(["systemctl", "stop", unit])
    proven = shut_down(pair, primary)
    other.run(["systemctl", "start", unit])

    with pytest.raises(stop.NotReplayed, match="only"):
        stop.prove_shutdown(pair.site, other, limit_s=2, **proven)  # type: ignore[arg-type]

    stop.compensate(pair.site, primary, timeline=timeline)
    proof.replicate_marker(pair.site, other, primary)


def test_a_server_that_hears_no_signal_is_fenced_all_the_same(pair: Pair) -> None:
    primary, other = pair.roles()
    primary.run(["pkill", "-STOP", "-x", "postgres"])

    fenced = stop.fence_by_ssh(pair.site, primary, graceful_s=1)

    assert fenced.data["how"] == "killed"
    assert not fenced.data["clean"]
    assert pair.servers(primary) == 0
    refused = primary.run(["systemctl", "start", layout_of(pair.site).unit], check=False)
    assert "masked" in refused.stderr
    assert not stop.fence_by_ssh(pair.site, primary).changed
    pair.promote(other, operation())


def test_a_promoted_standby_does_not_wait_for_the_primary_that_it_replaced(pair: Pair) -> None:
    primary, other = pair.roles()
    timeline = pair.timeline(primary)
    slot = f"ha_{primary.name.replace('-', '_')}"
    path = f"{layout_of(pair.site).conf}/conf.d/20-harbor-ha-sync.conf"
    other.put(path, f"synchronous_standby_names = 'FIRST 1 ({slot})'\n")
    execute(pair.site, other, "SELECT pg_reload_conf()")
    pair.kill(primary)
    stop.fence_by_ssh(pair.site, primary)

    started = time.monotonic()
    op = operation()
    done = promote.promote(pair.site, other, from_timeline=timeline, operation=op)
    assert time.monotonic() - started < 4
    assert done.data["timeline"] == timeline + 1
    again = promote.promote(pair.site, other, from_timeline=timeline, operation=op)
    assert not again.changed
    assert again.data["timeline"] == timeline + 1


def test_a_diverged_primary_is_rewound_once_and_what_only_it_had_is_listed(pair: Pair) -> None:
    primary, other = pair.roles()
    row, lost, op = operation(), operation(), operation()
    pair.write(primary, row)
    proof.replicate_marker(pair.site, other, primary)
    pair.lab.cut(primary.name, other.name)
    pair.write(primary, lost)
    pair.kill(primary)
    fenced = stop.fence_by_ssh(pair.site, primary)
    assert not fenced.data["clean"]
    pair.promote(other, op)
    pair.lab.heal()

    listed = lost_commits(pair.site, primary, other, operation=op)
    assert listed.data["known"]
    assert ["postgres.story"] in [commit["relations"] for commit in listed.data["commits"]]

    rewound = rejoin.rewind(pair.site, primary, other, operation=op)
    assert rewound.changed
    assert not rejoin.rewind(pair.site, primary, other, operation=op).changed
    assert "pg_control" in primary.run(["ls", str(rewound.data["evidence"])]).stdout
    assert lost_commits(pair.site, primary, other, operation=op).data["total"] == listed.data["total"]
    rejoin.follow(pair.site, primary, other)
    assert row in pair.rows(primary)
    assert lost not in pair.rows(primary)


def test_a_diverged_primary_that_runs_as_a_standby_is_not_taken_for_one(pair: Pair) -> None:
    """It is beyond every position of the new primary, on its own timeline; only the row tells."""
    primary, other = pair.roles()
    pair.lab.cut(primary.name, other.name)
    pair.write(primary, operation())
    execute(pair.site, primary, "SELECT pg_switch_wal()")
    stop.fence_by_ssh(pair.site, primary, graceful_s=1)
    pair.promote(other, operation())
    pair.lab.heal()

    run_on_node(pair.site, primary, node_program(pg_follow), limit=60, limit_s=60)
    with pytest.raises(proof.MarkerNotReplayed):
        proof.replicate_marker(pair.site, primary, other, timeout=3)

    stop.fence_by_ssh(pair.site, primary)
    kept = standby.clone(pair.site, primary, other).data["kept"]
    assert kept
    rejoin.follow(pair.site, primary, other)
    primary.run(["rm", "-rf", kept])


def test_a_former_primary_that_boots_finds_the_new_one_and_stays_down(pair: Pair) -> None:
    primary, other = pair.roles()
    unit = layout_of(pair.site).unit
    pair.lab.stop(primary.name)
    pair.promote(other, operation())
    pair.lab.start(primary.name)

    shown = ["systemctl", "show", "-p", "Result", "-p", "ActiveState", unit]
    wait_for(lambda: "exec-condition" in primary.run(shown).stdout, 30, "the boot guard")
    assert pair.servers(primary) == 0
    assert not pair.is_primary(primary)


def test_writes_go_on_without_the_standby_and_that_was_recorded_before(pair: Pair) -> None:
    pair.site.postgres.durability = "preferred"
    primary, other = pair.roles()
    for node in pair.nodes:
        install_guard(pair.site, node)
    wait_for(lambda: pair.state(primary, DURABILITY).get("state") == "SYNC", 20, "synchronous replication")

    pair.lab.stop(other.name)
    started = time.monotonic()
    pair.write(primary, operation())
    seconds, written_at = time.monotonic() - started, time.time()
    assert 5 < seconds <= 15
    record = pair.state(primary, DURABILITY)
    assert record["state"] == "ASYNC_DEGRADED"
    assert record["at"] <= written_at

    pair.lab.start(other.name)
    wait_for(lambda: pair.state(primary, DURABILITY).get("state") == "SYNC", 30, "synchronous again")
    assert durability.relax(pair.site, primary).data["state"] == "ASYNC_DEGRADED"


def test_an_isolated_primary_stops_itself_and_comes_back_when_nobody_took_over(pair: Pair) -> None:
    pair.site.failover.self_fence_s = 5
    primary, other = pair.roles()
    timeline = pair.timeline(primary)
    for node in pair.nodes:
        install_guard(pair.site, node)
    for machine in (other.name, "redis", "lb"):
        pair.lab.cut(primary.name, machine)

    seconds = wait_for(lambda: pair.servers(primary) == 0, 5 + 10, "the self-fence")
    assert seconds > 3
    assert pair.state(primary, "self_fence")["why"]

    pair.lab.heal()
    wait_for(lambda: pair.is_primary(primary), 20, "the primary's return")
    assert pair.timeline(primary) == timeline
    proof.replicate_marker(pair.site, other, primary)


_TAKE = """
import sys
from pathlib import Path
from blocks.site_file import read_site_file
from tasks.hosts.connection import connect
from tasks.operation import store
site = read_site_file(Path(sys.argv[1]))
hosts = [connect(node) for node in site.nodes if node.runs_postgres]
for host in hosts:
    host.run(["true"])
print("ready", flush=True)
input()
try:
    store.acquire(site, *hosts, op_id=sys.argv[2])
    print("won", flush=True)
except store.LockHeld:
    print("lost", flush=True)
input()
"""


def test_of_two_orchestrators_at_the_same_instant_exactly_one_wins(pair: Pair) -> None:
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", _TAKE, str(pair.lab.site_file)]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": root}
    takers = [
        subprocess.Popen([*argv, operation()], stdin=pipe, stdout=pipe, text=True, env=environment, cwd=root)
        for _ in range(2)
    ]
    try:
        said = [_next_line(taker) for taker in takers]
        assert said == ["ready", "ready"]
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("\n")
            taker.stdin.flush()
        assert sorted(_next_line(taker) for taker in takers) == ["lost", "won"]
    finally:
        for taker in takers:
            taker.kill()
            taker.wait()
            for stream in (taker.stdin, taker.stdout):
                if stream is not None:
                    stream.close()


def _next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
