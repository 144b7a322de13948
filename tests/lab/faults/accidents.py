"""What happens to a site, as far as the lab itself does not offer it."""

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
