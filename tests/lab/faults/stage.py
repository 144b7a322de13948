"""A bootstrapped site under test: its flows, its accidents, and the way back to a healthy pair."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from blocks import HarborSite
from blocks.site_file import read_site_file
from blocks.store import remember, save_site
from flows.rules.admission import latest_record, live_lock
from lab.orchestrator import Orchestrator
from lab.site_lab import Lab
from tasks import clock
from tasks.balancer.balancer import balancer_of
from tasks.balancer.states import Served
from tasks.errors import HarborHaError
from tasks.guard.install import install_guard
from tasks.hosts.connection import Host, connect
from tasks.observation.budget import CALM_BUDGET_S
from tasks.observation.look import SiteLook, look
from tasks.postgres.facts import NodeFacts
from tasks.postgres.layout import Layout, layout_of
from tasks.postgres.sql import execute, value
from tests.lab.faults import sampler
from tests.lab.faults.processes import Nursery, Run

# Ten scenarios in a row are ten failovers in a row; the cooldown has a scenario of its own.
_SETTINGS = {"failover.cooldown_s": 0}
_HBA_MARK = "# writer of the fault suite"


class Stage:
    """One site on one lab.

    Args:
        lab: the lab, up.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.orchestrator = Orchestrator(lab.name)
        self.directory = lab.topology.directory / "faults"
        self.nursery = Nursery(self.orchestrator.environment, self.directory)
        self.site_file = self.directory / "site.yml"
        self._overridden = self._guards_differ = False

    # --- the site ---

    def open(self) -> None:
        """Bring the site up if it does not stand, with the suite's settings."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write_settings({})
        self.orchestrator.up(self.site_file, self.name, serve=False)
        if not self._stands():
            self.flow("bootstrap").wait(900).result  # noqa: B018
        self.restore()
        for node in self.nodes:
            self._admit_writer(node)
        self.execute(self.primary, sampler.TABLE)

    def close(self) -> None:
        """Leave a healthy site and no process."""
        self.nursery.stop()

    @property
    def name(self) -> str:
        """The site's name, which is the lab's."""
        return self.lab.name

    @property
    def site(self) -> HarborSite:
        """The site with the settings that are in force."""
        return read_site_file(self.site_file)

    @property
    def layout(self) -> Layout:
        """Where PostgreSQL has its things."""
        return layout_of(self.site)

    @property
    def nodes(self) -> list[str]:
        """The database nodes."""
        return [node.name for node in self.site.nodes if node.runs_postgres]

    def configure(self, **settings: Any) -> None:
        """Save the site with other settings: `failover__cooldown_s=600`; without any, with the suite's."""
        if self._write_settings({key.replace("__", "."): value for key, value in settings.items()}):
            applied = self.nursery.call("apply", f"{__name__}:apply", site_file=str(self.site_file))
            assert applied.result

    def _write_settings(self, settings: dict[str, Any]) -> bool:
        self._overridden = bool(settings)
        document = yaml.safe_load(self.lab.site_file.read_text())
        for path, setting in {**_SETTINGS, **settings}.items():
            *parents, last = path.split(".")
            place = document
            for parent in parents:
                place = place.setdefault(parent, {})
            place.pop(last, None)
            if setting is not None:
                place[last] = setting
        text = yaml.safe_dump(document)
        changed = not self.site_file.exists() or self.site_file.read_text() != text
        self.site_file.write_text(text)
        return changed

    @contextlib.contextmanager
    def settings(self, **settings: Any) -> Iterator[None]:
        """Have other settings for a while."""
        self.configure(**settings)
        try:
            yield
        finally:
            self.configure()

    # --- flows ---

    def flow(self, name: str, accident: dict[str, Any] | None = None, **parameters: Any) -> Run:
        """Call a flow in a process of its own; it is not waited for."""
        return self.nursery.flow(name, accident, site=self.name, **parameters)

    def failover(self, expected: str, accident: dict[str, Any] | None = None, **parameters: Any) -> Run:
        """Call failover and wait for its end."""
        return self.flow("failover", accident, expected_primary=expected, **parameters).wait()

    def check(self) -> dict[str, Any]:
        """Run check, which keeps the primary's position for a failover."""
        return self.flow("check").result

    # --- looking ---

    def host(self, node: str) -> Host:
        """A node over SSH."""
        return connect(self.site.node(node))

    def look(self) -> SiteLook:
        """Look at the whole site."""
        return look(self.site, CALM_BUDGET_S)

    def facts(self, node: str) -> NodeFacts:
        """Look at one node."""
        return self.look().node(node)

    @property
    def primary(self) -> str:
        """The one primary; an assertion when there is not exactly one."""
        found = [node.name for node in self.look().nodes if node.is_primary]
        assert len(found) == 1, f"primaries: {found}"
        return found[0]

    @property
    def standby(self) -> str:
        """The other node."""
        return self.peer(self.primary)

    def peer(self, node: str) -> str:
        """The database node that is not this one."""
        return next(name for name in self.nodes if name != node)

    def timeline(self, node: str) -> int:
        """The timeline of a primary."""
        return int(self.value(node, f"SELECT {_TIMELINE}"))

    def execute(self, node: str, sql: str, database: str = "postgres") -> list[list[str]]:
        """Run SQL on a node's own server."""
        return execute(self.site, self.host(node), sql, database=database)

    def value(self, node: str, sql: str) -> str:
        """Run a query for one value."""
        return value(self.site, self.host(node), sql, timeout=5.0)

    def shell(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a script as root on a node, past the network."""
        return self.lab.exec(node, ["bash", "-c", script], check=check).stdout.strip()

    def served(self) -> dict[str, str]:
        """Whom the load balancer serves, of the site's nodes."""
        balancer = balancer_of(self.site)
        assert balancer is not None
        names = [node.name for node in self.site.nodes]
        return {name: state.served.value for name, state in balancer.status().items() if name in names}

    def fork(self, node: str) -> str:
        """The position at which a primary left the timeline before its own."""
        file = f"pg_wal/{self.timeline(node):08X}.history"
        lines = (
            f"regexp_split_to_table(pg_read_file('{file}'), E'\\n') WITH ORDINALITY AS each (line, number)"
        )
        last = f"FROM {lines} WHERE line ~ '^[0-9]' ORDER BY number DESC LIMIT 1"
        return self.value(node, f"SELECT split_part(line, E'\\t', 2) {last}")

    def install_guard(self) -> None:
        """Bring the guards on the nodes to the settings in force, as bootstrap does."""
        self._guards_differ = self._overridden
        for node in self.nodes:
            install_guard(self.site, self.host(node))

    # --- the way back ---

    def restore(self, *, settings: bool = True) -> None:
        """Bring the site back to a healthy pair: undo what the accidents did, then let the flows work.

        Args:
            settings: give the site the suite's settings.
        """
        self.lab.heal()
        for machine in self.lab.machines():
            if not self.lab.is_running(machine):
                self.lab.start(machine)
        if settings:
            self.configure()
            if self._guards_differ:
                self.install_guard()
        for node in self.nodes:
            self.shell(node, _REPAIR.format(bin=self.layout.bin), check=False)
        if self.healthy():
            return
        self._heal_by_flows()
        wait_for(self.healthy, 60.0, lambda: f"the site is not healthy again: {self.troubles()}")

    def healthy(self) -> bool:
        """Whether nothing is to be done before the next scenario."""
        return not self.troubles()

    def wait_until_back(self, node: str) -> None:
        """Wait until a node that had lost its power is whole again, with no flow's help."""

        def down() -> str:
            return self.shell(
                node, "docker ps --all --filter status=exited --format '{{.Names}}'", check=False
            )

        def told() -> str:
            return f"{node} does not come back by itself: {self.troubles()}, stopped: {down().split()}"

        wait_for(lambda: self.healthy() and not down(), 120.0, told)

    def troubles(self) -> list[str]:
        """Say what is missing to a healthy pair."""
        seen = self.look()
        primaries = [node for node in seen.nodes if node.is_primary]
        if len(primaries) != 1:
            return [f"primaries: {[node.name for node in primaries]}"]
        primary = primaries[0]
        standby = seen.node(self.peer(primary.name))
        receiver = standby.server.receiver if standby.server else None
        address = self.site.node(primary.name).address
        found = []
        if receiver is None or not receiver.fresh or standby.timeline != primary.timeline:
            found.append(f"{standby.name} does not follow")
        elif standby.server is not None and standby.server.replay_paused:
            self.execute(standby.name, "SELECT pg_wal_replay_resume()")
        record = latest_record(seen.nodes)
        if record is not None and record.open:
            found.append(f"open: {record.kind} {record.op_id} {record.phase}")
        if live_lock(seen.nodes, clock.now()) is not None:
            found.append("a lock is left")
        if any(node.state.get("paused") for node in seen.nodes):
            found.append("paused")
        for node in seen.nodes:
            if node.harbor is None or node.harbor.running_database != address:
                found.append(f"the Harbor of {node.name} uses another database")
        try:
            found += [f"{name} is {state}" for name, state in self.served().items() if state != Served.UP]
        except HarborHaError as error:
            found.append(str(error))
        return found

    def _heal_by_flows(self) -> None:
        seen = self.look()
        record = latest_record(seen.nodes)
        primaries = [node.name for node in seen.nodes if node.is_primary]
        if any(node.state.get("paused") for node in seen.nodes):
            self.flow("pause", end=True).wait()
        if record is not None and record.open and record.kind.value == "switchover":
            self.flow("switchover", to=record.target).wait()
        elif record is not None and record.open and record.kind.value == "failover":
            self.failover(record.expected_primary, accept_data_loss=True)
        elif not primaries:
            self._start_last_primary(seen)
        elif len(primaries) > 1:
            newest = max(seen.nodes, key=lambda node: (node.is_primary, node.timeline or 0)).name
            self.shell(self.peer(newest), f"systemctl stop {self.layout.unit}")
        primaries = [node.name for node in self.look().nodes if node.is_primary]
        if len(primaries) == 1:
            self.flow("rejoin", node=self.peer(primaries[0])).wait()
        for node in self.nodes:
            balancer = balancer_of(self.site)
            assert balancer is not None
            balancer.admit(node)
        if len(primaries) != 1 or self.troubles():
            self.flow("bootstrap").wait(600)

    def _start_last_primary(self, seen: SiteLook) -> None:
        accepted = [node.state["accepted"] for node in seen.nodes if "accepted" in node.state]
        name = max(accepted, key=lambda claim: claim["timeline"])["primary"]
        self.shell(
            name, f"systemctl unmask {self.layout.unit}; systemctl start {self.layout.unit}", check=False
        )
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.facts(name).is_primary, 30.0)

    def _stands(self) -> bool:
        for machine in self.lab.machines():
            if not self.lab.is_running(machine):
                self.lab.start(machine)
        return all(
            self.lab.exec(node, ["test", "-e", f"{self.layout.conf}/pg_hba.conf"], check=False).returncode
            == 0
            for node in self.nodes
        )

    def _admit_writer(self, node: str) -> None:
        # In production only the nodes are admitted; the suite's writer stands beside them, to survive them.
        postgres, address = self.site.postgres, self.lab.node_address("orchestrator")
        line = f"host {postgres.database} {postgres.application.user} {address}/32 scram-sha-256 {_HBA_MARK}"
        file = f"{self.layout.conf}/pg_hba.conf"
        self.shell(node, f"grep -qF '{_HBA_MARK}' {file} || echo '{line}' >> {file}")
        self.execute(node, "SELECT pg_reload_conf()")


def apply(site_file: str) -> dict[str, str]:
    """Save a site, as `harbor-ha apply` does."""
    site = read_site_file(Path(site_file))
    save_site(site)
    remember(site)
    return {"headline": f"{site.name} is saved"}


def wait_for(
    condition: Callable[[], bool], limit: float, what: "Callable[[], str] | str" = "it did not happen"
) -> float:
    """Wait for a condition and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > limit:
            raise AssertionError(f"{what if isinstance(what, str) else what()} ({limit:.0f} s)")
        time.sleep(0.1)
    return time.monotonic() - started


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read a load's log; a line that is being written is left out."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"

_REPAIR = """
[ -e {bin}/postgres.broken ] && mv -f {bin}/postgres.broken {bin}/postgres
pkill -CONT -u postgres
systemctl is-active -q docker || systemctl start docker
true
"""
