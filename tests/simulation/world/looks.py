"""What a look sees of the truth: `NodeFacts` and `Witnesses` as the real probe and the real questions give them."""

from dataclasses import replace
from typing import Any

from tasks.balancer.states import NodeState, Served
from tasks.clock import Moment
from tasks.guard.on_node.heard import SILENT_S
from tasks.observation.look import OFF_PATIENCE_S, SiteLook, with_pause
from tasks.observation.redis import Client, address_of
from tasks.observation.witnesses import Answers, witnesses_of
from tasks.operation.files import HEARD, LOCK, PAUSED, shared_path
from tasks.operation.holder import known_dead
from tasks.operation.witnesses import Witnesses
from tasks.postgres.controldata import ControlData
from tasks.postgres.facts import (
    Archiver,
    Cluster,
    Disk,
    Guard,
    HarborOnNode,
    NodeFacts,
    Receiver,
    Sender,
    Server,
    Slot,
)
from tasks.postgres.history import Fork, TimelineHistory
from tasks.postgres.layout import slot_of
from tasks.postgres.lsn import Lsn
from tests.simulation.world.here import SIM_TIME, machine, world
from tests.simulation.world.machines import SYSTEM, Data, Node
from tests.simulation.world.site import MASK, SYNC_FILE
from tests.simulation.world.symptoms import SYMPTOMS
from tests.simulation.world.texts import SIM_JSON

GUARD_VERSION = "simulated"
STATE_DIR = "/var/lib/harbor-ha/"
SSH_LIMIT_S = 2.0
GB = 1 << 30
# A receiver ends when its primary has said nothing for wal_receiver_timeout.
RECEIVER_TIMEOUT_S = 5.0


def look(site: Any, budget_s: float = 0.0, *, slow_s: float = SSH_LIMIT_S) -> SiteLook:
    """Stand for `tasks.observation.look.look`; slow_s: seconds until who does not answer is given up."""
    here = world()
    origin, began = machine().name, SIM_TIME.monotonic()
    moment = Moment(began, SIM_TIME.time())
    seen, slow = [], False
    for node in here.nodes.values():
        facts, late = _reach(origin, node, moment)
        slow = slow or late
        seen.append(facts)
    here.engine.sleep(slow_s if slow else here.rng.uniform(0.15, 0.4))
    databases = frozenset(here.databases)
    shown = with_pause([_without_dead_lock(facts) for facts in seen], databases)
    return SiteLook(shown, databases, SIM_TIME.monotonic() - began)


def look_with_witnesses(
    site: Any, node: str, budget_s: float = 0.0, *, said_off: bool = False
) -> tuple[SiteLook, Witnesses]:
    """Stand for `tasks.observation.look.look_with_witnesses`."""
    answers = ask_witnesses(site, [node])
    here, origin = world(), machine().name
    here.on_look(node, here.ssh(origin, node) or bool(here.ways(origin, node)))
    seen = look(site, slow_s=OFF_PATIENCE_S if said_off else SSH_LIMIT_S)
    return seen, witnesses_of(site, node, answers, seen.every)


def ask_witnesses(site: Any, nodes: list[str], limit_s: float = 0.0) -> Answers:
    """Stand for `tasks.observation.witnesses.ask_witnesses`."""
    here, origin = world(), machine().name
    asked = here.site.balancer.kind != "none" and here.service(origin, "balancer") == "open"
    redis = here.service(origin, "redis") == "open"
    return Answers(
        observed_at=Moment(SIM_TIME.monotonic(), SIM_TIME.time()),
        ports={name: here.port(origin, name) for name in nodes if name in here.databases},
        balancer={name: _served(name) for name in nodes} if asked else None,
        clients=tuple(_client(node) for node in here.nodes.values()) if redis else None,
        resolved={name: frozenset([here.nodes[name].address]) for name in nodes},
        problems={} if asked and redis else {"balancer": "timed out"},
    )


def _served(name: str) -> NodeState:
    here = world()
    if name in here.drained:
        return NodeState(Served.DRAINED)
    up = here.check_up(name)
    return NodeState(Served.UP if up else Served.DOWN, alive=up)


def _client(node: Node) -> Client:
    return Client(address_of(node.address), int(world().engine.now - node.redis_at))


def _without_dead_lock(facts: NodeFacts) -> NodeFacts:
    lock = facts.state.get(LOCK)
    if not isinstance(lock, dict) or not known_dead(str(lock.get("holder"))):
        return facts
    return replace(facts, state={name: value for name, value in facts.state.items() if name != LOCK})


def _reach(origin: str, node: Node, moment: Moment) -> tuple[NodeFacts, bool]:
    here = world()
    if here.ssh(origin, node.name):
        return shown(facts_of(node, moment, "direct")), node.disk == "hang"
    for other in here.ways(origin, node.name):
        return shown(facts_of(node, moment, f"via {other}")), True
    return NodeFacts(node.name, moment, error="direct: timed out"), True


def shown(facts: NodeFacts) -> NodeFacts:
    """Add what looks show beside the truth."""
    for name, symptom in sorted(world().noise.symptoms):
        if name == facts.name:
            facts = SYMPTOMS[symptom](facts)
    return facts


def facts_of(node: Node, moment: Moment, way: str) -> NodeFacts:
    """Say what the probe says of a node that it runs on."""
    here = world()
    problems: dict[str, str] = {}
    hang = node.disk == "hang"
    server, data = node.server, node.data
    if hang:
        problems["cluster"] = "late: no answer within 4 s"
    if server is not None and not (server.answers and not hang):
        starting = server.state == "recovering" and not server.hung
        problems["server"] = "the database system is starting up" if starting else "no SQL was answered"
    state = {}
    for path, text in node.files.items():
        if path.startswith(STATE_DIR) and path.endswith(".json") and "/" not in path[len(STATE_DIR) :]:
            state[path[len(STATE_DIR) : -5]] = _json(text)
    heard = heard_of(node)
    if heard is not None:
        state[HEARD] = heard
    peers = [name for name in here.databases if name != node.name]
    return NodeFacts(
        name=node.name,
        observed_at=moment,
        reachable_by=(way,),
        problems=problems,
        cluster=None if hang or data is None else cluster_of(node, data),
        server=server_of(node) if server is not None and server.answers and not hang else None,
        start_conf=(node.files.get("/etc/postgresql/15/main/start.conf") or "").strip() or None,
        masked=MASK in node.files,
        data_disk=None if hang else Disk(100 * GB, 0 if node.disk == "full" else 50 * GB),
        nas_mounted=True,
        nas_disk=Disk(100 * GB, 50 * GB) if here.has_nas(node.name) else None,
        harbor=harbor_of(node),
        tcp={name: here.port(node.name, name) for name in peers},
        state=state,
        shared=shared_of(node),
        guard=guard_of(node),
        clock_skew_s=here.wall(node) - moment.wall,
        boot_id=f"{node.boot_id()}-0000:0",
        uptime_s=here.engine.now - node.booted_at,
    )


def heard_of(node: Node) -> dict[str, Any] | None:
    """Give the note of the durability service: when this standby last had a sign of life of its primary."""
    here, server = world(), node.server
    if server is None or server.state != "standby" or not server.answers or server.life_at is None:
        return None
    silent = here.engine.now - server.life_at
    if silent <= SILENT_S:
        return None
    return {"silent": True, "at": here.wall(node) - silent, "server": str(server.started), "lsn": "0/0"}


def shared_of(node: Node) -> dict[str, Any]:
    """Give the NAS's copies of what our flows recorded."""
    here = world()
    text = here.nas_files.get(shared_path(here.nas_path, here.site.name, PAUSED))
    return {PAUSED: _json(text)} if text and here.has_nas(node.name) else {}


def guard_of(node: Node) -> Guard | None:
    """Say what the guard told last. A guard that sleeps here because nothing changed would have told a moment ago."""
    here = world()
    actor = here.guards.get(node.name)
    if actor is None:
        return None
    text = node.files.get("/run/harbor-ha/guard.json")
    if text is None:
        return Guard(False)
    told = SIM_JSON.loads(text)
    age = here.engine.now - node.booted_at - float(told["uptime"])
    return Guard(True, 1.0 if not actor.done else age, told["version"], told["self_fence_s"])


def _json(text: str) -> Any:
    try:
        return SIM_JSON.loads(text)
    except ValueError:
        return {"damaged": True}


def history_of(data: Data) -> TimelineHistory | None:
    """Give the history of the directory's line; None when it was never promoted."""
    if data.branch.parent is None:
        return None
    # A branch that continues its parent's number, after a standby was started as a primary, has no file of its own.
    branch = data.branch
    while branch.parent is not None and branch.parent.timeline == branch.timeline:
        branch = branch.parent
    if branch.parent is None:
        return None
    return TimelineHistory(
        branch.timeline, tuple(Fork(number, Lsn(at), "simulated") for number, at in branch.forks())
    )


def cluster_of(node: Node, data: Data) -> Cluster:
    """Describe the data directory."""
    label = node.files.get(node.data_path + "/backup_label", "")
    method = "pg_rewind" if "pg_rewind" in label else "streamed" if "streamed" in label else None
    server = node.server
    status = None
    if server is not None:
        status = {"recovering": "starting", "primary": "ready", "standby": "standby"}[server.state]
        status = "stopping" if server.stopping else status
    return Cluster(
        major=15,
        control=ControlData(
            SYSTEM,
            data.state,
            Lsn(data.checkpoint),
            Lsn(data.checkpoint),
            data.control_timeline,
            Lsn(data.min_recovery),
            data.branch.timeline if data.min_recovery else 0,
            True,
        ),
        processes=(server.pid,) if server is not None else (),
        postmaster_status=status,
        standby_signal=node.signal,
        recovery_signal=False,
        backup_label_method=method,
        auto_conf=(),
        writable=node.disk in ("ok", "full"),
        ready_count=0,
        checkpoint_end=Lsn(data.checkpoint_end)
        if data.state == "shut down" and data.checkpoint_end
        else None,
        history=history_of(data),
    )


def server_of(node: Node) -> Server:
    """Describe a server that answers SQL."""
    here = world()
    server, data = node.server, node.data
    assert server is not None
    assert data is not None
    recovering = server.state == "standby"
    end = Lsn(data.end)
    receiver = None
    age = here.engine.now - server.heard_at
    if recovering and age < RECEIVER_TIMEOUT_S:
        sender = here.nodes[server.upstream].address if server.upstream else None
        receiver = Receiver(
            "streaming",
            sender,
            slot_of(node.name),
            data.branch.timeline,
            end,
            max(age, 0.0),
            RECEIVER_TIMEOUT_S,
        )
    waits = node.files.get(SYNC_FILE, "").partition("= '")[2].strip().strip("'")
    senders, found = [], set()
    if not recovering:
        for other in here.standbys_of(node):
            assert other.data is not None
            at = Lsn(other.data.end)
            name = slot_of(other.name)
            how = "async" if name not in waits else "potential" if "sync" in found else "sync"
            found.add(how)
            senders.append(Sender(name, other.address, "streaming", how, at, max(0, end - at), 0.1))
    streaming = {sender.application_name for sender in senders}
    slots = tuple(
        Slot(
            slot_of(name),
            "physical",
            slot_of(name) in streaming,
            end,
            "lost" if lost else "reserved",
            None,
            # What hot_standby_feedback has told of a standby that is away stays.
            slot_of(name) not in streaming,
        )
        for name, lost in data.slots.items()
    )
    return Server(
        version_num=150018,
        system_identifier=SYSTEM,
        in_recovery=recovering,
        started_at=server.started,
        data_directory=node.data_path,
        timeline=data.branch.timeline,
        write_lsn=None if recovering else end,
        receive_lsn=end if recovering else None,
        replay_lsn=end if recovering else None,
        replay_paused=False,
        read_only=server.read_only,
        sync_names=waits,
        archiver=Archiver(False, 0, None, None, None),
        receiver=receiver,
        senders=tuple(senders),
        slots=slots,
        free_senders=9,
        free_slots=9,
        hba_errors=0,
        base_backups=0,
        oldest_transaction_s=0.0,
        clients={},
        oldest_wal=Lsn(data.floor),
    )


def harbor_of(node: Node) -> HarborOnNode | None:
    """Describe the node's Harbor."""
    here = world()
    harbor = node.harbor
    if harbor is None:
        return None
    database = here.nodes[harbor.core]
    well = harbor.running and database.primary and here.path(node.name, database.name)
    return HarborOnNode(
        {},
        here.nodes[harbor.configured].address,
        database.address if harbor.running else None,
        ("healthy" if well else "unhealthy") if harbor.running else None,
        {"database": "healthy" if well else "unhealthy"} if harbor.running else {},
        None,
        jobs_behind=harbor.running and harbor.jobs != harbor.core,
    )
