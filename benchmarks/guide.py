"""The published procedure by hand, as a script types it: no pause between two commands, no mistake, nobody to wake up.

It begins at the moment of the power cut: that nobody has noticed yet is not counted. It asks no one whether the old
primary is dead, and lists no loss.
"""

import time

from benchmarks.figures import Figure, table
from benchmarks.lab_site import ROUNDS, clients, repeat, stage_of
from lab.faults.clients import Clients
from lab.faults.stage import Stage, wait_for
from tasks.balancer.states import Served
from tasks.postgres.layout import PASSFILE, slot_of

_PROMOTE = """set -e; cd /
runuser -u postgres -- psql -XAtqc "SELECT pg_promote(true, 60)" >/dev/null
{bin}/pg_controldata -D {data} | grep -q 'in production'
"""
_POINT = "cd {harbor} && sed -i 's/{old}/{new}/g' harbor.yml"
_PREPARE = "cd {harbor} && ./prepare"
_DOWN = "cd {harbor} && docker-compose down"
_UP = "cd {harbor} && docker-compose up -d"
_WIPE = "systemctl stop {unit}; find {data} -mindepth 1 -delete"
# With a fast checkpoint, which the procedure does not ask for, and without which it would wait for minutes.
_COPY = """cd / && runuser -u postgres -- env PGPASSFILE={passfile} {bin}/pg_basebackup -w -h {new} -p {port} \
-U {user} -Fp -Xs -R -c fast -D {data}"""
_START = "touch {data}/standby.signal; chown postgres: {data}/standby.signal; systemctl start {unit}"


class ByHand:
    """Whoever types: one command after the other on one node, each with its seconds.

    Args:
        stage: the site.
        old, new: the primary that is gone, and the other node.
    """

    def __init__(self, stage: Stage, old: str, new: str) -> None:
        self.stage, self.spent = stage, dict[str, float]()
        site, layout = stage.site, stage.layout
        self._words = {
            "bin": layout.bin,
            "data": layout.data,
            "unit": layout.unit,
            "port": str(layout.port),
            "passfile": PASSFILE,
            "user": site.postgres.replication.user,
            "harbor": site.harbor.install_dir,
            "old": site.node(old).address,
            "new": site.node(new).address,
        }

    def types(self, name: str, node: str, *scripts: str) -> None:
        """Run some commands on a node.

        Raises:
            LabError: one failed.
        """
        begun = time.monotonic()
        for script in scripts:
            text = script.format(**self._words)
            self.stage.lab.exec(node, ["bash", "-c", text], timeout=300)
        self.spent[name] = time.monotonic() - begun

    def point_harbor(self, node: str) -> None:
        """Have a node's Harbor use the new primary."""
        self.types("harbor.yml and prepare", node, _POINT, _PREPARE)
        self.types("compose down", node, _DOWN)
        self.types("compose up", node, _UP)

    def told(self) -> str:
        """Where the seconds went."""
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.spent.items())


def run(lab: str, rounds: int = ROUNDS) -> list[str]:
    """Measure the procedure's failover after a power cut, and its rejoin; returns lines for a reader.

    Raises:
        CannotRun: there is no lab on this machine.
    """
    stage = stage_of(lab)
    push = Figure("power cut, by the guide: from the cut to the first push")
    commit = Figure("    to the first commit")
    rejoin = Figure("rejoin by the guide, until served again")

    def once() -> None:
        stage.restore()
        old, new = stage.primary, stage.standby
        with clients(stage, "guide") as seen:
            cut = time.time()
            stage.lab.stop(old)
            fail_over(stage, seen, (old, new), cut, (push, commit))
        stage.lab.start(old)
        prepare(stage, old, new)
        rejoin_by_hand(stage, old, new, rejoin)
        settle(stage, old)
        stage.flow("bootstrap").wait(600).result  # noqa: B018

    stopped = repeat(rounds, once)
    return [*table([push, commit, rejoin]), *stopped]


def fail_over(
    stage: Stage, seen: Clients, pair: tuple[str, str], cut: float, figures: tuple[Figure, Figure]
) -> None:
    """Promote by hand and point the Harbor that is left to it."""
    hand = ByHand(stage, *pair)
    hand.types("promote", pair[1], _PROMOTE)
    hand.point_harbor(pair[1])
    figures[0].add(seen.first_push_after(cut, 120.0), hand.told())
    figures[1].add(seen.first_commit_on(pair[1], cut))


def rejoin_by_hand(stage: Stage, old: str, new: str, figure: Figure) -> None:
    """Wipe the old primary, copy the new one, point its Harbor to it; until the balancer serves it again."""
    hand = ByHand(stage, old, new)
    begun = time.time()
    copy_by_hand(hand, old)
    hand.point_harbor(old)
    wait_for(lambda: stage.served()[old] == Served.UP, 120.0, f"{old} is not served")
    figure.add(time.time() - begun, hand.told())


def copy_by_hand(hand: ByHand, old: str) -> float:
    """Wipe a node's database and copy the primary's; returns the seconds until it follows."""
    begun = time.monotonic()
    hand.types("wipe", old, _WIPE)
    hand.types("base backup", old, _COPY)
    hand.types("start", old, _START)
    wait_for(lambda: follows(hand.stage, old), 60.0, f"{old} does not follow")
    return time.monotonic() - begun


def follows(stage: Stage, node: str) -> bool:
    """Whether a node is a standby that hears its primary."""
    server = stage.look().node(node).server
    return server is not None and server.receiver is not None and server.receiver.fresh


def prepare(stage: Stage, old: str, new: str) -> None:
    """Give the new primary the slot that this site's settings name: the guide knows none, and needs no step for it."""
    make = f"SELECT pg_create_physical_replication_slot('{slot_of(old)}', true)"
    have = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot_of(old)}'"
    stage.execute(new, f"{make} WHERE NOT EXISTS ({have})")


def settle(stage: Stage, old: str) -> None:
    """Have the site's own records say what was done past them, and drop what the copy wrote over its settings."""
    stage.execute(old, "ALTER SYSTEM RESET ALL; SELECT pg_reload_conf();")
    stage.flow("rejoin", node=old).wait(600)
