"""Processes and SQL of a node as its programs see them."""

import re
import signal
import subprocess as real_subprocess
from typing import Any

from tasks.guard.on_node.guard_promoted import SERVES_SQL
from tasks.on_node.pg_run import Failed
from tasks.on_node.pg_told import told_path
from tests.simulation.world.here import machine, node, world
from tests.simulation.world.machines import SYSTEM, Node
from tests.simulation.world.site import MASK, Write

COPY_S = 20.0
REWIND_S = 8.0


def lsn(position: int) -> str:
    """Print a position as PostgreSQL does."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def servers_in(data: str) -> list[int]:
    """Stand for `pg_disk.servers_in`."""
    place = node()
    return [place.server.pid] if place.server is not None and data == place.data_path else []


def unknown_servers(data: str) -> str:
    """Stand for `pg_disk.unknown_servers`: everything may be read."""
    return ""


def send(place: Node, pid: int, number: int) -> None:
    """Deliver a signal to a server."""
    server, here = place.server, world()
    if server is None or server.pid != pid:
        raise ProcessLookupError(pid)
    if number == signal.SIGKILL:
        here.stop(place, "killed")
    elif number == signal.SIGQUIT and not server.hung:
        here.stop(place, "immediate")
    elif number == signal.SIGINT and not server.hung:
        if server.state == "recovering":
            here.stop(place, "while recovering")
            return
        server.stopping = True
        here.changed()

        def end() -> None:
            if place.server is server and place.on and place.disk == "ok":
                here.stop(place, "fast")

        here.engine.at(0.3, end)


def signal_all(pids: list[int], number: int) -> None:
    """Stand for `pg_disk.signal_all`."""
    for pid in pids:
        try:
            send(node(), pid, number)
        except ProcessLookupError:
            continue


def control(p: dict[str, Any], limit: float = 20) -> dict[str, str]:
    """Stand for `pg_disk.control`: what pg_controldata prints."""
    place = node()
    deadline = world().engine.now + limit
    while place.disk == "hang":
        # With the disk its answer comes.
        if world().engine.now >= deadline:
            raise real_subprocess.TimeoutExpired("pg_controldata", limit)
        world().engine.sleep(0.5)
    data = place.dirs.get(p["data"])
    if data is None:
        return {}
    return {
        "Database system identifier": SYSTEM,
        "Database cluster state": data.state,
        "Latest checkpoint location": lsn(data.checkpoint),
        "Latest checkpoint's TimeLineID": str(data.control_timeline),
        "Min recovery ending loc's timeline": str(data.branch.timeline if data.min_recovery else 0),
        "Minimum recovery ending location": lsn(data.min_recovery),
        "Bytes per WAL segment": str(16 << 20),
    }


class SimGlob:
    """Stands for `glob`, which looks for history files only."""

    @staticmethod
    def glob(pattern: str) -> list[str]:
        data = node().data
        if data is None or not pattern.endswith(".history"):
            return []
        numbers = [data.branch.timeline, *(timeline for timeline, _ in data.branch.forks())]
        return [f"{pattern.rpartition('/')[0]}/{number:08X}.history" for number in numbers if number > 1]


def systemctl(*words: str) -> str:
    """Stand for `pg_run.systemctl`."""
    place, here = node(), world()
    if words[0] == "start":
        here.programs.append(here.engine.spawn(f"start on {place.name}", place, lambda: here.start(place)))
    elif words[0] == "stop":
        here.stop(place, "fast")
    elif words[0] == "is-active":
        return "active" if place.server else "inactive"
    return ""


def start(p: dict[str, Any], limit: float, hopeless: Any = None) -> str | None:
    """Stand for `pg_run.start`: start the unit and wait until it answers SQL."""
    place, here = node(), world()
    why = here.start(place)
    deadline = here.engine.now + limit
    while why is None:
        server = place.server
        if server is None:
            return "it ended at once"
        if server.answers:
            return None
        if here.engine.now > deadline:
            return f"it did not answer within {limit:.0f} s"
        here.engine.sleep(0.3)
    return why


def mask(p: dict[str, Any]) -> bool:
    """Stand for `pg_run.mask`."""
    from tests.simulation.world.files import write_durably

    if MASK in node().files:
        return False
    write_durably(MASK, "/dev/null")
    return True


def unmask(p: dict[str, Any]) -> bool:
    """Stand for `pg_run.unmask`."""
    from tests.simulation.world.files import remove_durably

    return remove_durably(MASK)


def psql(p: dict[str, Any], sql: str, limit: float = 5.0, database: str = "postgres") -> str:
    """Stand for `pg_run.psql`."""
    place, here = node(), world()
    server, data = place.server, place.data
    if server is not None and (server.hung or place.disk == "hang"):
        here.engine.sleep(limit + 1)
        raise Failed("psql did not end within %.0f s" % (limit + 1))
    if server is None or data is None or not server.answers:
        raise Failed("the database system is not there or is starting up")
    recovering = server.state == "standby"
    if "IDENTIFY_SYSTEM" in sql:
        return f"{SYSTEM}|{data.branch.timeline}|{lsn(data.end)}|"
    if "'standby' ELSE 'primary '" in sql:
        return "standby" if recovering else f"primary {data.branch.timeline}"
    if sql.strip().startswith("SELECT ('x' ||"):
        return str(data.branch.timeline)
    if sql == SERVES_SQL:
        return f"{'t' if recovering else 'f'}|{'' if recovering else data.branch.timeline}|{SYSTEM}"
    if "pg_walfile_name" in sql and sql.strip().startswith("SELECT pg_is_in_recovery()"):
        return "t|" if recovering else f"f|{data.branch.timeline}"
    if "DECLARE until" in sql:
        return _await_replay(sql, place)
    if "pg_stat_wal_receiver" in sql:
        return "t" if hears(here, place) else "f"
    if sql.strip().startswith("SELECT pg_is_in_recovery()"):
        return "t" if recovering else "f"
    if "pg_postmaster_start_time" in sql:
        return ("t" if told(place) else "f") if "current_setting" in sql else str(server.started)
    if sql.strip() in ("SELECT 1",) or "ALTER SYSTEM RESET" in sql:
        return "1"
    raise NotImplementedError(f"the simulation does not know this SQL: {sql[:200]}")


def hears(here: Any, place: Node) -> bool:
    """Tell whether a standby's receiver streams and heard of its primary within 8 s."""
    server = place.server
    return (
        server is not None
        and server.state == "standby"
        and server.upstream is not None
        and here.engine.now - server.heard_at < 8.0
    )


def _await_replay(sql: str, place: Node) -> str:
    here = world()
    found = re.search(r"> '([0-9A-F]+)/([0-9A-F]+)'", sql)
    assert found is not None
    wanted = (int(found[1], 16) << 32) | int(found[2], 16)
    deadline = here.engine.now + 10
    while True:
        server, data = place.server, place.data
        if server is None or data is None:
            raise Failed("terminating connection")
        beyond = data.end > wanted
        if server.state != "standby" or beyond or here.engine.now > deadline:
            recovering = "t" if server.state == "standby" else "f"
            return f"{recovering}|{lsn(data.end)}|{'t' if beyond else 'f'}|{SYSTEM}"
        here.engine.sleep(1.0)


def session(p: dict[str, Any], script: str) -> dict[str, str]:
    """Stand for `pg_promote.session`: promote where it is asked for, wait, write."""
    place, here = node(), world()
    server = place.server
    if server is None or not server.answers:
        return {"error": "could not connect"}
    said: dict[str, str] = {}
    if "pg_promote" in script and server.state == "standby":
        here.promote(place)
        said["asked"] = "t"
    deadline = here.engine.now + p["limit_s"]
    while server.state == "standby" or not server.answers:
        if place.server is not server:
            return {**said, "error": "server closed the connection"}
        if here.engine.now > deadline:
            return {**said, "error": "late"}
        here.engine.sleep(0.3)
    data = place.data
    assert data is not None
    said["promoted"] = str(data.branch.timeline)
    if not place.accepts:
        return {**said, "error": "No space left on device"}
    data.end += 200
    here.on_write(Write("proof", place.name, data.branch, data.end, here.engine.now, place.name))
    said["wrote"] = lsn(data.end)
    return said


def run(argv: list[str], limit: float, stdin: str = "", more: dict[str, str] | None = None) -> str:
    """Stand for `pg_run.run`: a peer is asked as the replication role, or a disk is synced."""
    place, here = node(), world()
    if argv[0] == "sync":
        return ""
    found = re.search(r"host=(\S+)", " ".join(argv))
    if found is None:
        raise NotImplementedError(f"the simulation does not know this program: {argv}")
    peer = here.nodes[here.name_at(found[1])]
    server, data = peer.server, peer.data
    if not here.path(place.name, peer.name) or peer.frozen or server is None or data is None or server.hung:
        here.engine.sleep(min(limit, 2.0))
        raise Failed("timeout expired")
    if not server.answers:
        raise Failed("the database system is starting up")
    role = f"{'t' if server.state == 'standby' else 'f'}|{'t' if told(peer) else 'f'}"
    return f"{SYSTEM}|{data.branch.timeline}|{lsn(data.end)}|\n{role}\n"


def told(place: Node) -> bool:
    """Tell whether this start of a server was told to promote itself, as its configuration says."""
    path = told_path({"conf": "/etc/postgresql/15/main"})
    return place.server is not None and f"'{place.server.started}'" in place.files.get(path, "")


def reaches(address: str, port: int) -> str:
    """Stand for `guard_look.reaches`."""
    place, here = node(), world()
    site = here.site
    if address == site.redis.host:
        seen = here.service(place.name, "redis")
    elif address == site.balancer.address:
        seen = here.service(place.name, "balancer")
    else:
        seen = here.port(place.name, here.name_at(address))
    if seen == "silent":
        here.engine.sleep(0.3)
    return seen


def opens(address: str, port: int) -> bool:
    """Stand for `pg_promote.opens`."""
    place, here = node(), world()
    seen = here.port(place.name, here.name_at(address))
    if seen == "silent":
        here.engine.sleep(0.5)
    return seen == "open"


class SimSubprocess:
    """Stands for `subprocess` in the guard, which stops and starts Harbor's containers."""

    SubprocessError = real_subprocess.SubprocessError

    TimeoutExpired = real_subprocess.TimeoutExpired
    PIPE, DEVNULL, STDOUT = real_subprocess.PIPE, real_subprocess.DEVNULL, real_subprocess.STDOUT

    class Popen:
        def __init__(self, argv: list[str], **_: Any) -> None:
            SimSubprocess.act(argv)

        def wait(self, limit: float | None = None) -> int:
            return 0

        def kill(self) -> None:
            pass

    @staticmethod
    def call(argv: list[str], **_: Any) -> int:
        SimSubprocess.act(argv)
        return 0

    @staticmethod
    def run(argv: list[str], **_: Any) -> Any:
        SimSubprocess.act(argv)
        return real_subprocess.CompletedProcess(argv, 0, b"", b"")

    @staticmethod
    def act(argv: list[str]) -> None:
        text, place, here = " ".join(argv), node(), world()
        # Docker writes down what it stops; without a disk it stops nothing.
        if place.harbor is not None and "docker stop" in text and place.root == "ok":
            place.harbor.stop()
        elif place.harbor is not None and "docker start" in text:
            place.harbor.start()
        elif argv[:2] == ["systemctl", "stop"]:
            here.stop(place, "fast")
        here.changed()


def lives(owner: Any) -> bool:
    """Tell whether it is a living actor of this history that acts, and not what is left of a dead one's frames."""
    actor = world().engine.current
    return actor is not None and owner is actor and not actor.dying and not actor.done


class SimThreading:
    """Stands for `threading`: a thread that may hang, or sleep, is an actor of its own; another runs to its end."""

    class Thread:
        def __init__(self, target: Any = None, args: Any = (), daemon: bool = False, **_: Any) -> None:
            self.target, self.args = target, args
            self.actor: Any = None
            self.owner = world().engine.current

        def start(self) -> None:
            here, place = world(), machine()
            if place.name in here.noise.no_threads and self.owner is here.guards.get(place.name):
                raise RuntimeError("can't start new thread")
            if isinstance(place, Node) and place.disk != "hang" and here.has_nas(place.name):
                self.target(*self.args)
                return
            parent = here.engine.current
            assert parent is not None
            self.actor = here.engine.spawn(f"thread of {parent.name}", place, lambda: self.target(*self.args))
            parent.children = [child for child in parent.children if not child.done] + [self.actor]
            if isinstance(place, Node):
                here.programs.append(self.actor)

        def join(self, limit: float | None = None) -> None:
            if self.actor is not None and lives(self.owner):
                world().engine.join(self.actor, 3600.0 if limit is None else limit)

        def is_alive(self) -> bool:
            return self.actor is not None and not self.actor.done

    class Event:
        def __init__(self) -> None:
            self.told = False
            self.waiting: Any = None
            self.owner = world().engine.current

        def set(self) -> None:
            self.told = True
            if lives(self.owner) and self.waiting is not None:
                world().engine.wake(self.waiting)

        def wait(self, limit: float) -> bool:
            if not self.told:
                self.waiting = world().engine.current
                world().engine.sleep(limit)
                self.waiting = None
            return self.told
