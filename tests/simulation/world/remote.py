"""What an orchestrator reaches: programs on nodes, their SQL, Harbor, the load balancer, the fence command."""

import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from tasks.balancer.states import BalancerError, NodeState, Served
from tasks.errors import (
    HarborHaError,
    HostUnreachable,
    RemoteCommandFailed,
    RemoteConnectionLost,
    RemoteTimeout,
)
from tasks.hosts.connection import Completed
from tasks.hosts.local import LocalCommandFailed
from tests.simulation.engine import Killed
from tests.simulation.world.here import machine, world
from tests.simulation.world.machines import SYSTEM, Node
from tests.simulation.world.power import power_off
from tests.simulation.world.processes import hears, lsn
from tests.simulation.world.site import Write
from tests.simulation.world.texts import SIM_JSON

CONNECT_LIMIT_S = 1.5
_MAIN = re.compile(r'^if __name__ == "__main__":\n((?:[ \t]+[^\n]*\n|\n)*)', re.MULTILINE)


class Captured:
    """Stands for `json` and `sys` in the last lines of a program: its input, and what it prints."""

    def __init__(self, payload: Any) -> None:
        self.payload, self.answer = payload, None
        self.stdin = None
        self.stdout = self
        self.argv = [""]

    def flush(self) -> None:
        pass

    def load(self, _: Any) -> Any:
        return self.payload

    def dump(self, value: Any, _: Any) -> None:
        self.answer = SIM_JSON.loads(SIM_JSON.dumps(value))

    def dumps(self, value: Any) -> Any:
        return SIM_JSON.loads(SIM_JSON.dumps(value))


class Programs:
    """Runs a node's program as it is, by the last lines of its module."""

    def __init__(self) -> None:
        self._lines: dict[str, Any] = {}

    def run(self, module: ModuleType, payload: Any) -> Any:
        """Run it here and now; the actor is on the node."""
        code = self._lines.get(module.__name__)
        if code is None:
            with open(module.__file__ or "", encoding="utf-8") as source:
                found = _MAIN.search(source.read())
            assert found is not None, f"{module.__name__} has no main lines"
            text = "if True:\n" + found[1]
            code = self._lines[module.__name__] = compile(text, module.__name__, "exec")
        captured = Captured(payload)
        here = {
            **module.__dict__,
            "json": captured,
            "sys": captured,
            "print": lambda value: captured.dump(value, None),
        }
        exec(code, here)  # noqa: S102 - the last lines of our own module
        return captured.answer


PROGRAMS = Programs()


class SimHost:
    """Stands for `tasks.hosts.connection.Host`."""

    silent = False

    def __init__(self, name: str, jump: str = "") -> None:
        self.name, self.jump = name, jump
        self.address = world().nodes[name].address

    @property
    def node(self) -> Node:
        return world().nodes[self.name]

    def python(
        self, source: str, payload: Any = None, *, timeout: float = 30.0, user: str | None = None
    ) -> Any:
        import importlib

        module = importlib.import_module(source.partition("\n")[0][2:])
        return self.do(module.__name__.rpartition(".")[2], lambda: PROGRAMS.run(module, payload), timeout)

    def do(self, what: str, work: Callable[[], Any], timeout: float, seconds: float = 0.1) -> Any:
        """Have something done on the node, and wait for it as SSH does."""
        here, node, origin = world(), self.node, machine().name
        here.boundary(f"before {what} on {self.name}")
        engine = here.engine
        if not self._reached(origin):
            engine.sleep(CONNECT_LIMIT_S)
            raise HostUnreachable("No answer within 1.5 s.", where=self.name)
        late = here.noise.late_program.pop(self.name, 0.0)
        if late:
            here.note(f"{what} is delivered to {self.name} {late:.0f} s late")
        actor = engine.spawn(f"{what} on {self.name}", node, work, here.rng.uniform(0.02, seconds * 2) + late)
        here.programs.append(actor)
        done = engine.join(actor, timeout)
        if not done and not late:
            engine.kill(actor)
        lost = not self._reached(origin)
        if lost:
            engine.sleep(2.0)
        here.boundary(f"after {what} on {self.name}")
        if not done:
            raise RemoteTimeout(f"{what} did not end within {timeout:.0f} s.", where=self.name)
        if lost or isinstance(actor.error, Killed):
            raise RemoteConnectionLost(f"The connection broke during {what}.", where=self.name)
        if isinstance(actor.error, (NotImplementedError, AssertionError, AttributeError, NameError)):
            raise actor.error
        if isinstance(actor.error, HarborHaError | AssertionError):
            raise actor.error
        if actor.error is not None:
            raise RemoteCommandFailed(what, self.name, 1, f"{type(actor.error).__name__}: {actor.error}")
        return actor.result

    def _reached(self, origin: str) -> bool:
        here = world()
        if self.jump:
            return self.node.lives and here.ssh(origin, self.jump) and here.ssh(self.jump, self.name)
        return here.ssh(origin, self.name)

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        def work() -> str:
            here, node = world(), self.node
            text = " ".join(argv)
            found = re.search(r" host=(\d[\d.]+) port=\d+ dbname=postgres replication=true", text)
            if "tail" in text:
                return log_of(here, node)
            if found is not None:
                peer = here.nodes[here.name_at(found[1])]
                if not here.path(node.name, peer.name) or peer.server is None or not peer.server.answers:
                    raise OSError("could not connect")
            return ""

        return Completed(tuple(argv), 0, self.do(argv[0], work, 10.0), "")

    def read(self, path: str) -> bytes | None:
        text = self.do("read", lambda: self.node.files.get(path), 10.0)
        return None if text is None else text.encode()


def log_of(here: Any, node: Node) -> str:
    """Say what the log of a standby says of why it does not follow."""
    data = node.data
    for other in here.primaries:
        if other is node or data is None or other.data is None or not here.path(node.name, other.name):
            continue
        left = other.data.end if other.data.branch is data.branch else other.data.branch.left_at(data.branch)
        if left is None or data.end > left:
            return "new timeline 9 forked off current database system timeline 8 before current recovery point 0/0"
        if data.end < other.data.floor:
            return "requested WAL segment 000000010000000000000001 has already been removed"
    return ""


def sim_connect(target: Any, via: Any = None) -> SimHost:
    """Stand for `connect`."""
    return SimHost(target.name, via.name if via is not None else "")


# --- SQL -------------------------------------------------------------------------------------------------------


def execute(
    site: Any,
    host: SimHost,
    statements: str,
    *,
    database: str = "postgres",
    timeout: float = 30.0,
    **given: str,
) -> list[list[str]]:
    """Stand for `tasks.postgres.sql.execute`."""
    rows: list[list[str]] = host.do(
        "SQL", lambda: _answer(host.node, statements, given, timeout), timeout + 1
    )
    return rows


def _answer(node: Node, sql: str, given: dict[str, str], timeout: float) -> list[list[str]]:
    here = world()
    server, data = node.server, node.data
    if server is not None and (server.hung or node.disk == "hang"):
        here.engine.sleep(timeout + 2)
    if server is None or data is None or not server.answers:
        raise OSError("psql: could not connect to the server")
    recovering = server.state == "standby"
    if "CHECKPOINT;" in sql:
        if not recovering and node.disk != "ok":
            raise OSError("PANIC: could not write")
        here.checkpoint(node)
        return [
            [
                "t" if recovering else "f",
                str(data.control_timeline),
                "" if recovering else str(data.branch.timeline),
            ]
        ]
    if "pg_is_in_recovery() AND slot_name" in sql:
        if not recovering or not data.slots:
            return []
        gone, data.slots = list(data.slots), {}
        return [[name] for name in gone]
    if "'dropped'" in sql:
        return _ensure_slots(here, node, given["wanted"])
    if "pg_create_physical_replication_slot(:'slot'" in sql:
        return _make_slot(here, node, given["slot"])
    if "pg_stat_wal_receiver" in sql:
        return [["t" if hears(here, node) else "f"]]
    if "pg_database_size" in sql:
        return [["50000000"]]
    if "json_build_object('timeline'" in sql:
        forks = data.branch.forks()
        text = "".join(f"{number}\t{lsn(at)}\tsimulated\n" for number, at in forks)
        found = {"timeline": data.branch.timeline, "history": text, "lsn": lsn(data.end)}
        return [[SIM_JSON.dumps(found)]]
    if "FROM pg_control_system()" in sql and "pg_walfile_name" not in sql:
        return [[SYSTEM]]
    if "pg_walfile_name" in sql:
        return [[str(data.branch.timeline), SYSTEM]]
    if "harbor_ha.heartbeat" in sql and "INSERT" in sql:
        if not node.accepts:
            raise OSError("cannot execute INSERT in a read-only transaction")
        data.end += 200
        here.markers[given["operation"]] = (data.branch, data.end)
        here.on_write(Write("proof", node.name, data.branch, data.end, here.engine.now, node.name))
        return [[lsn(data.end)]]
    if "harbor_ha.token" in sql:
        return _read_marker(here, node, given["token"])
    if "pg_database" in sql or "pg_class" in sql:
        return []
    raise NotImplementedError(f"the simulation does not know this SQL: {sql[:300]}")


def _ensure_slots(here: Any, node: Node, wanted: str) -> list[list[str]]:
    from tasks.postgres.layout import slot_of

    data = node.data
    assert data is not None
    rows = []
    for name in here.databases:
        if slot_of(name) in wanted.split(","):
            if data.slots.get(name) is True:
                rows.append(["dropped", slot_of(name)])
                del data.slots[name]
            if name not in data.slots:
                rows.append(["created", slot_of(name)])
                data.slots[name] = False
    if rows:
        here.moved()
    return rows


def _make_slot(here: Any, node: Node, slot: str) -> list[list[str]]:
    from tasks.postgres.layout import slot_of

    data = node.data
    assert data is not None
    for name in here.databases:
        if slot_of(name) == slot and name not in data.slots:
            data.slots[name] = False
            here.moved()
            return [[slot]]
    return []


def _read_marker(here: Any, node: Node, token: str) -> list[list[str]]:
    branch, at = here.markers[token]
    deadline = here.engine.now + 30
    while True:
        server, data = node.server, node.data
        if server is None or data is None:
            raise OSError("terminating connection")
        found = data.has(branch, at)
        if found or server.state != "standby" or here.engine.now > deadline:
            return [["true" if found and server.state == "standby" else "false", lsn(data.end)]]
        here.engine.sleep(1.5)


# --- the load balancer and the fence command ----------------------------------------------------------------------


class SimBalancer:
    """Stands for what `balancer_of` gives."""

    pace_s = 0.1

    def _asked(self) -> None:
        here = world()
        here.boundary("ask the load balancer")
        if here.service(machine().name, "balancer") != "open":
            here.engine.sleep(2.0)
            raise BalancerError("The load balancer does not answer.", where="load balancer")
        here.engine.sleep(0.05)

    def status(self, nodes: Sequence[str] = (), limit_s: float | None = None) -> dict[str, NodeState]:
        self._asked()
        here = world()
        return {
            name: NodeState(
                Served.DRAINED if name in here.drained else Served.UP if here.check_up(name) else Served.DOWN,
                0,
                "",
            )
            for name, node in here.nodes.items()
            if node.harbor is not None
        }

    def drain(self, node: str) -> None:
        self._asked()
        world().drained.add(node)
        world().note(f"the load balancer drains {node}")

    def admit(self, node: str) -> None:
        self._asked()
        world().drained.discard(node)
        world().note(f"the load balancer admits {node}")


def balancer_of(site: Any) -> SimBalancer | None:
    """Stand for `balancer_of`."""
    return None if site.balancer.kind == "none" else SimBalancer()


def run_local(argv: Sequence[str], *, timeout: float, env: Any = None) -> str:
    """Stand for `run_local`: the site's fence command."""
    here = world()
    here.boundary("before the fence command")
    node, how = here.nodes[argv[-1]], here.noise.fence
    here.on_fence(node.name)
    here.engine.sleep(here.rng.uniform(1.0, 4.0))
    if how == "fails":
        raise LocalCommandFailed("it ended with status 1")
    if how != "lies":
        power_off(here, node)
    here.engine.sleep(timeout if how == "times out after acting" else 1.0)
    here.boundary("after the fence command")
    if how == "times out after acting":
        raise LocalCommandFailed(f"it did not end in {timeout:.0f} s")
    here.note(f"the fence command confirms that {node.name} is off" + (" - a lie" if how == "lies" else ""))
    return "off"
