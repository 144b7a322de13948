"""pg_auto_failover with its monitor: its settings, what the monitor says of the nodes, and its planned switchover."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.peers.machines import WATCHER, Machines, wait_for
from lab.topology import PAIR

DATA = "/var/lib/postgresql/peer"
_MONITOR_DATA = "/var/lib/postgresql/monitor"
_UNIT = "pgautofailover.service"
_BOOTSTRAP_S = 120.0
_SWITCH_S = 90.0
_NODES = "SELECT nodename, reportedstate, goalstate, health FROM pgautofailover.node"


@dataclass(frozen=True)
class Timing:
    """What decides how fast it is.

    Attributes:
        monitor: settings of the monitor, milliseconds and a count, without their prefix. None are its defaults.
        partition_s: after how long alone a primary stops itself; None is the default, 20 s. It has to be less than the
            monitor's primary_demote_timeout: that is why no two primaries accept writes.
        period_s: seconds between two health checks.
    """

    monitor: Mapping[str, int]
    partition_s: int | None
    period_s: float

    def __str__(self) -> str:
        settings = dict(self.monitor)
        if self.partition_s is not None:
            settings["network_partition_timeout"] = self.partition_s
        return ", ".join(f"{name} {value}" for name, value in settings.items()) or "no setting changed"


DEFAULT = Timing({}, None, 5.0)
# Its documentation gives no least values. A node reports once a second, whatever is set: two missed reports are the
# least that means something, and who is alone for two seconds must be down before the other is promoted.
FASTEST = Timing(
    {
        "health_check_period": 1000,
        "health_check_timeout": 1000,
        "health_check_max_retries": 1,
        "health_check_retry_delay": 500,
        "node_considered_unhealthy_timeout": 2000,
        "primary_demote_timeout": 3000,
    },
    partition_s=2,
    period_s=1.0,
)


class AutoFailover:
    """A pair under pg_auto_failover.

    Args:
        nodes: bare machines.
        timing: its settings.
    """

    data = DATA

    def __init__(self, nodes: Machines, timing: Timing) -> None:
        self.nodes = nodes
        self.timing = timing

    @property
    def period_s(self) -> float:
        """Seconds between two looks of its own."""
        return self.timing.period_s

    def install(self) -> str:
        """Set it up on bare machines; returns its version and settings.

        Raises:
            LabError: a step failed, or there is no secondary after a while.
        """
        nodes = self.nodes
        self._create(WATCHER, "monitor", _MONITOR_DATA)
        self._run_unit(WATCHER, _MONITOR_DATA)
        wait_for(self._monitor_answers, _BOOTSTRAP_S, "the monitor of pg_auto_failover answers")
        for statement in monitor_statements(self.timing.monitor):
            self._ask(statement)
        uri = f"postgres://autoctl_node@{nodes.address(WATCHER)}:5432/pg_auto_failover?sslmode=prefer"
        for node in PAIR:
            self._create(node, "postgres", DATA, "--monitor", uri, "--name", node, "--pg-hba-lan")
            if self.timing.partition_s is not None:
                wanted = ("timeout.network_partition_timeout", str(self.timing.partition_s))
                nodes.run_as_postgres(node, "pg_autoctl", "config", "set", "--pgdata", DATA, *wanted)
            self._run_unit(node, DATA)
        wait_for(lambda: self.roles() is not None, _BOOTSTRAP_S, "pg_auto_failover has a secondary")
        return f"pg_auto_failover {nodes.version('pg-auto-failover-cli')}; {self.timing}"

    def roles(self) -> tuple[str, str] | None:
        """The primary and the standby, when the monitor says that both are well."""
        return roles(self._ask(_NODES))

    def switch_over(self, primary: str, standby: str) -> None:
        """Exchange the roles, as its documentation does.

        Raises:
            LabError: it did not.
        """
        command = ("pg_autoctl", "perform", "switchover", "--pgdata", _MONITOR_DATA)
        self.nodes.run_as_postgres(WATCHER, *command, timeout=_SWITCH_S)

    def _create(self, machine: str, kind: str, data: str, *more: str) -> None:
        program = f"{self.nodes.programs}/pg_ctl"
        place = ("--pgctl", program, "--pgdata", data, "--hostname", self.nodes.address(machine))
        # A network that nobody else is on.
        rights = ("--auth", "trust", "--no-ssl")
        command = ("pg_autoctl", "create", kind, *place, *rights, *more)
        self.nodes.run_as_postgres(machine, *command, timeout=_BOOTSTRAP_S)

    def _run_unit(self, machine: str, data: str) -> None:
        unit = self.nodes.run_as_postgres(machine, "pg_autoctl", "-q", "show", "systemd", "--pgdata", data)
        self.nodes.write(machine, f"/etc/systemd/system/{_UNIT}", unit)
        self.nodes.run(machine, "systemctl", "enable", "--now", _UNIT)

    def _monitor_answers(self) -> bool:
        ready = ["pg_isready", "-q", "-h", self.nodes.address(WATCHER)]
        return self.nodes.lab.exec(WATCHER, ready, check=False).returncode == 0

    def _ask(self, statement: str) -> str:
        psql = ("psql", "-X", "-d", "pg_auto_failover", "-AtF", "|", "-v", "ON_ERROR_STOP=1", "-f", "-")
        command = ("sudo", "-u", "postgres", *psql)
        return self.nodes.run(WATCHER, *command, stdin=statement, timeout=20.0)


def monitor_statements(settings: Mapping[str, int]) -> list[str]:
    """The statements that give the monitor its settings; none for none."""
    if not settings:
        return []
    sets = [f"ALTER SYSTEM SET pgautofailover.{name} = {value}" for name, value in settings.items()]
    return [*sets, "SELECT pg_reload_conf()"]


def roles(answer: str) -> tuple[str, str] | None:
    """Read the monitor's nodes, a line each: name, state, goal, health.

    Returns:
        the primary and the secondary, when both are as they should be and were healthy at the last check; else None.
    """
    rows = [line.split("|") for line in answer.splitlines() if line]
    states = {state: name for name, state, goal, health in rows if state == goal and health == "1"}
    if len(rows) != 2 or states.keys() != {"primary", "secondary"}:
        return None
    return states["primary"], states["secondary"]
