"""What happens to a site, as far as the lab itself does not offer it."""

import contextlib
from collections.abc import Iterator

from tests.lab.faults.stage import Stage, wait_for


def kill_postgres(stage: Stage, node: str) -> None:
    """Kill the postmaster with SIGKILL; it can be started again."""
    stage.shell(node, f'kill -9 "$(head -n 1 {stage.layout.data}/postmaster.pid)"')
    wait_for(lambda: not stage.shell(node, "pgrep -x postgres", check=False), 10.0, "it still runs")


def kill_postgres_for_good(stage: Stage, node: str) -> None:
    """Kill it so that no start helps: its program is gone, as after a botched upgrade."""
    program = f"{stage.layout.bin}/postgres"
    stage.shell(node, f"mv {program} {program}.broken")
    kill_postgres(stage, node)


def repair_postgres(stage: Stage, node: str) -> None:
    """Put the program back, as an operator does before rejoin."""
    program = f"{stage.layout.bin}/postgres"
    stage.shell(node, f"[ ! -e {program}.broken ] || mv -f {program}.broken {program}")


def freeze(stage: Stage, node: str, process: str) -> None:
    """Stop a server process by its title (`walreceiver`, `startup`) with SIGSTOP."""
    pid = stage.shell(node, f"pgrep -f 'postgres: .*{process}' | head -1")
    assert pid, f"no {process} on {node}"
    stage.shell(node, f"kill -STOP {pid}")


def thaw(stage: Stage, node: str) -> None:
    """Let all stopped server processes go on."""
    stage.shell(node, "pkill -CONT -u postgres", check=False)


def stand_still(stage: Stage, node: str, seconds: float) -> None:
    """Stop a node's PostgreSQL, and whoever talks to it on its machine, for some seconds."""
    stage.shell(node, f"pkill -STOP -u postgres; sleep {seconds}; pkill -CONT -u postgres", check=False)


def lose_packets(stage: Stage, node: str, other: str, seconds: float, part: float = 0.3) -> None:
    """Lose a part of the packets between a node and another machine, both ways, for some seconds.

    The nodes have no `netem`; the packet filter drops by chance, where a cut of the lab drops all.
    """
    address = stage.lab.node_address(other)
    chance = f"-m statistic --mode random --probability {part} -j DROP"
    rules = (
        f"-t raw {{}} PREROUTING -s {address} {chance}",
        f"-t mangle {{}} POSTROUTING -d {address} {chance}",
    )
    begin, end = ("; ".join(f"iptables -w 10 {rule.format(way)}" for rule in rules) for way in ("-I", "-D"))
    stage.shell(node, f"set -e; trap '{end}' EXIT; {begin}; sleep {seconds}")


def terminate_all(stage: Stage, node: str) -> None:
    """End every connection of a server, those of replication too."""
    stage.execute(
        node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )


def freeze_command(stage: Stage, node: str, process: str) -> list[str]:
    """The program that freezes a server process, to be run in the middle of a flow."""
    script = f"kill -STOP $(pgrep -f 'postgres: .*{process}' | head -1)"
    return ["docker", "exec", stage.lab.topology.container(node), "bash", "-c", script]


def write_wal(stage: Stage, node: str, megabytes: int) -> None:
    """Write that much WAL on a primary."""
    stage.execute(
        node,
        "CREATE TABLE IF NOT EXISTS faults.bulk (filler text); "
        f"INSERT INTO faults.bulk SELECT repeat(md5(i::text), 32) FROM generate_series(1, {megabytes * 1024}) i; "
        "TRUNCATE faults.bulk;",
    )


def isolate(stage: Stage, node: str, *others: str) -> None:
    """Cut a node off from the given machines; without any, from all."""
    for other in others or ("orchestrator", stage.peer(node), "lb", "redis"):
        stage.lab.cut(node, other)


def open_transaction(stage: Stage, node: str) -> None:
    """Leave a transaction open that has written a row."""
    stage.execute(node, "CREATE TABLE IF NOT EXISTS faults.open (i int); TRUNCATE faults.open;")
    script = (
        "(echo 'BEGIN; INSERT INTO faults.open VALUES (1);'; sleep 600) | setpriv --reuid postgres psql -Xq &"
    )
    stage.shell(node, f"cd /; {script} sleep 1")


def forget_old_wal(stage: Stage, node: str) -> None:
    """Remove all WAL of a stopped server but the last segment, as a cleaning script does."""
    wal = f"{stage.layout.data}/pg_wal"
    stage.shell(node, f"cd {wal} && ls | grep -E '^[0-9A-F]{{24}}$' | sort | head -n -1 | xargs -r rm -f")
    stage.shell(node, f"rm -f {stage.layout.archive}/*")


def put_another_database(stage: Stage, node: str) -> None:
    """Stop the server and put a database of somebody else's in its place."""
    data = stage.layout.data
    stage.shell(
        node,
        f"systemctl stop {stage.layout.unit}; mv {data} {data}.aside && install -d -o postgres -m 700 {data} && "
        f"setpriv --reuid postgres --regid postgres --init-groups {stage.layout.bin}/initdb -D {data} >/dev/null && "
        f"echo untouched > {data}/mine",
    )


def take_away_the_other_database(stage: Stage, node: str) -> None:
    """Put the node's own database back."""
    data = stage.layout.data
    stage.shell(node, f"rm -rf {data} && mv {data}.aside {data} && systemctl start {stage.layout.unit}")


@contextlib.contextmanager
def small_disk(stage: Stage, node: str) -> Iterator[None]:
    """Move a stopped standby's cluster, with its control file lost, to a disk with no room for a second one."""
    data = stage.layout.data
    parent = data.rpartition("/")[0]
    stage.shell(node, f"systemctl stop {stage.layout.unit}; mv {data} /data/aside")
    stage.shell(node, f"mkdir -p {parent} && mount -t tmpfs -o size=16m tmpfs {parent}")
    try:
        yield
    finally:
        stage.shell(node, f"umount {parent}; mv /data/aside {data} && systemctl start {stage.layout.unit}")
