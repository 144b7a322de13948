"""A former primary comes back after a fixed divergence: by our rejoin, and by the guide's wipe and base backup."""

from benchmarks.figures import Figure, longest, table
from benchmarks.guide import ByHand, copy_by_hand, settle
from benchmarks.lab_site import ROUNDS, expect, repeat, stage_of
from lab.faults import accidents
from lab.faults.stage import Stage

SIZES_GB = (0.1, 1.0, 4.0)
# What ours may take of the guide's time at the largest size.
BOUND = 0.1
DIVERGED_MB = 8
_STEP_MB = 100
_FILL = """
CREATE TABLE IF NOT EXISTS faults.size (id bigint, filler text);
ALTER TABLE faults.size ALTER filler SET STORAGE PLAIN;
INSERT INTO faults.size SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, {rows}) i;
"""
_ROWS_A_MB = 1000
_FOLLOWS = "Start as a standby"
# Our fence keeps a server from starting; whoever goes by the guide has no such fence to undo.
_UNFENCE = "systemctl unmask {unit}; sed -i 's/^\\(disabled\\|manual\\)/auto/' {conf}/start.conf"
# What both ways leave beside the data directory, and in the archives: the disk is not what is measured.
_CLEAR = "rm -rf {data}.kept.* /var/lib/harbor-ha/diverged/*; find {archive} -type f -delete"


def run(lab: str, sizes: tuple[float, ...] = SIZES_GB, rounds: int = ROUNDS) -> list[str]:
    """Measure both ways at each size; returns lines for a reader.

    Raises:
        CannotRun: there is no lab on this machine.
    """
    stage, lines = stage_of(lab), list[str]()
    for size in sizes:
        stage.restore()
        told = grow(stage, size)
        ours = Figure(f"ours, {told}: from the call until it follows")
        guide = Figure("    the guide's wipe and base backup")

        def once(ours: Figure = ours, guide: Figure = guide) -> None:
            our_way(stage, ours)
            their_way(stage, guide)

        stopped = repeat(rounds, once)
        lines += [*table([ours, guide]), *stopped]
        if ours.seconds and guide.seconds:
            bound = f", bound {BOUND}" if size == max(SIZES_GB) else ""
            lines.append(f"ours by the guide's: {ours.median / guide.median:.2f}{bound}")
    # What is measured on this lab afterwards has a small database again.
    stage.restore()
    stage.execute(stage.primary, "DROP TABLE IF EXISTS faults.size")
    return lines


def grow(stage: Stage, gigabytes: float) -> str:
    """Fill the primary's database up to a size and have the standby follow; returns what was reached."""
    wanted, primary = int(gigabytes * 1024), stage.primary
    while (missing := wanted - megabytes(stage, primary)) > 0:
        rows = min(missing, _STEP_MB) * _ROWS_A_MB
        stage.execute(primary, _FILL.format(rows=rows))
        clear(stage)
    # Of gigabytes it takes longer than a statement may elsewhere.
    checkpoint = ["runuser", "-u", "postgres", "--", "psql", "-Xqd", "postgres", "-c", "CHECKPOINT"]
    stage.lab.exec(primary, checkpoint, timeout=300)
    stage.restore()
    return f"{megabytes(stage, primary) / 1024:.1f} GB"


def megabytes(stage: Stage, node: str) -> int:
    """The size of all databases of a node."""
    return int(stage.value(node, "SELECT (sum(pg_database_size(oid)) / 1048576)::bigint FROM pg_database"))


def clear(stage: Stage) -> None:
    """Remove what earlier rounds left on the nodes' disks."""
    script = _CLEAR.format(data=stage.layout.data, archive=stage.layout.archive)
    for node in stage.nodes:
        stage.shell(node, script)


def diverge(stage: Stage) -> tuple[str, str]:
    """Have the primary write what its standby never gets, replace it, and repair it; returns it and the new one."""
    stage.restore()
    clear(stage)
    stage.check()
    old, new = stage.primary, stage.standby
    stage.lab.cut(old, new)
    accidents.write_wal(stage, old, DIVERGED_MB)
    accidents.kill_postgres_for_good(stage, old)
    stage.lab.heal()
    expect(stage.failover(old, accept_data_loss=True), f"{new} is the primary")
    accidents.repair_postgres(stage, old)
    return old, new


def our_way(stage: Stage, figure: Figure) -> None:
    """Call rejoin on a diverged primary; the time is that until the standby is proven to follow."""
    old, _ = diverge(stage)
    run = stage.flow("rejoin", node=old).wait(600)
    run.result  # noqa: B018
    follows = max(step["begin"] + step["seconds"] for step in run.records() if step["title"] == _FOLLOWS)
    figure.add(follows, longest(run.records(), follows))


def their_way(stage: Stage, figure: Figure) -> None:
    """Wipe a diverged primary and copy the other one, as the guide does."""
    old, new = diverge(stage)
    stage.shell(old, _UNFENCE.format(unit=stage.layout.unit, conf=stage.layout.conf))
    hand = ByHand(stage, old, new)
    figure.add(copy_by_hand(hand, old), hand.told())
    settle(stage, old)
