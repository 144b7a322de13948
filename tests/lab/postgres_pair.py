"""A real PostgreSQL pair on the lab's nodes, and the accidents that the tests do to it."""

import json
import time
from collections.abc import Callable
from typing import Any

from blocks import HarborSite
from blocks.site_file import read_site_file
from lab.site_lab import Lab
from tasks.errors import HarborHaError
from tasks.guard.install import accept_primary, install_guard
from tasks.hosts import nas
from tasks.hosts.connection import Host, connect
from tasks.operation.files import ACCEPTED, path_of
from tasks.postgres import archive, cluster, packages, promote, rejoin, standby, stop
from tasks.postgres.layout import layout_of
from tasks.postgres.probe import probe
from tasks.postgres.sql import execute, value


class Pair:
    """The two database nodes of a lab; which one is the primary is asked each time."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.site: HarborSite = read_site_file(lab.site_file)
        self.nodes = [connect(node) for node in self.site.nodes if node.runs_postgres]

    def build(self) -> None:
        """Make the pair if the nodes are bare, as bootstrap does."""
        first, second = self.nodes
        for node in self.nodes:
            nas.mount(self.site, node)
            packages.install(self.site, node)
            archive.install(self.site, node)
        if second.read(layout_of(self.site).record) is not None:
            return
        cluster.create(self.site, first)
        cluster.configure(self.site, first)
        cluster.start(self.site, first)
        cluster.create_roles(self.site, first)
        standby.create_slot(self.site, first, second.name)
        standby.copy_configuration(self.site, second, first)
        cluster.configure(self.site, second)
        standby.build(self.site, second, first)
        cluster.start(self.site, second)

    def settle(self) -> None:
        """Bring the pair to a primary and a standby that follows, whatever a test left behind."""
        primaries = [node for node in self.nodes if self.is_primary(node)]
        if not primaries:
            accepted = self.state(self.nodes[0], ACCEPTED)
            last = next(node for node in self.nodes if node.name == accepted["primary"])
            stop.restart_primary(self.site, last, timeline=int(accepted["timeline"]), limit_s=30)
            primaries = [last]
        assert len(primaries) == 1, [node.name for node in primaries]
        primary = primaries[0]
        other = self.peer(primary)
        for node in self.nodes:
            install_guard(self.site, node)
        self.accept(primary)
        try:
            rejoin.follow(self.site, other, primary)
        except HarborHaError:
            self.clone(other, primary)

    def clone(self, node: Host, primary: Host) -> None:
        """Build the standby anew."""
        stop.fence_by_ssh(self.site, node, graceful_s=2)
        standby.clone(self.site, node, primary)
        rejoin.follow(self.site, node, primary)
        node.run(["sh", "-c", 'rm -rf "$1".kept.*', "sh", layout_of(self.site).data])

    def accept(self, primary: Host) -> None:
        """Record the primary on both nodes, as the flows do after a promotion."""
        server = probe(self.site, primary).server
        assert server is not None
        accept_primary(
            self.site,
            *self.nodes,
            primary=primary.name,
            timeline=server.timeline,
            sysid=server.system_identifier,
        )

    def is_primary(self, node: Host) -> bool:
        """Whether its server answers and is not in recovery."""
        try:
            return value(self.site, node, "SELECT pg_is_in_recovery()", timeout=5) == "f"
        except HarborHaError:
            return False

    def roles(self) -> tuple[Host, Host]:
        """The primary and the standby."""
        primary = next(node for node in self.nodes if self.is_primary(node))
        return primary, self.peer(primary)

    def peer(self, node: Host) -> Host:
        """The other one."""
        return next(other for other in self.nodes if other is not node)

    def timeline(self, node: Host) -> int:
        """The timeline of its server, or of its control file."""
        timeline = probe(self.site, node).timeline
        assert timeline is not None
        return timeline

    def write(self, node: Host, row: str) -> None:
        """Commit a row with a table of its own kind."""
        execute(
            self.site,
            node,
            "CREATE TABLE IF NOT EXISTS story (row text); INSERT INTO story VALUES (:'row')",
            row=row,
        )

    def rows(self, node: Host) -> list[str]:
        """The rows that were written."""
        return [row[0] for row in execute(self.site, node, "SELECT row FROM story")]

    def kill(self, node: Host) -> None:
        """Kill the postmaster, which cannot write anything any more."""
        node.run(
            ["sh", "-c", 'kill -9 "$(head -n 1 "$1")"', "sh", f"{layout_of(self.site).data}/postmaster.pid"]
        )

    def servers(self, node: Host) -> int:
        """How many server processes run."""
        return int(node.run(["pgrep", "-c", "-x", "postgres"], check=False).stdout)

    def state(self, node: Host, name: str) -> dict[str, Any]:
        """A state file of the node; empty when there is none."""
        found: dict[str, Any] = json.loads(node.read(path_of(name)) or b"{}")
        return found

    def promote(self, node: Host, operation: str) -> int:
        """Promote a standby and return its new timeline."""
        timeline = probe(self.site, node).timeline
        assert timeline is not None
        done = promote.promote(self.site, node, from_timeline=timeline, operation=operation)
        self.accept(node)
        return int(done.data["timeline"])


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    """Wait for a condition and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s, f"{what}: not within {limit_s} s"
        time.sleep(0.2)
    return time.monotonic() - started
