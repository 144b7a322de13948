"""A whole site at one moment, condensed for the verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flows.rules.admission import accepted_primary, latest_record, live_lock, pause_reason
from flows.rules.advice import (
    again_command,
    command,
    failover_command,
    rejoin_commands,
    untold_losses,
)
from flows.rules.policy import Policy
from flows.rules.promotion import MIN_FREE_SHARE, OVERRIDES, RECOVERY_TARGET
from flows.rules.table import describe_bytes
from tasks.clock import Moment
from tasks.operation.holder import describe
from tasks.operation.record import RecordDamaged
from tasks.postgres.facts import NOISE, NodeFacts, Sender, Slot
from tasks.postgres.layout import slot_of

CERTIFICATE_WARNING = timedelta(days=21)
MAX_CLOCK_SKEW_S = 2.0
# Segments of 16 MB that wait for the archiver; a backlog of a hundred is a disk that fills.
MAX_ARCHIVE_BACKLOG = 20
# What wal_keep_size keeps without any slot.
MAX_HELD_BYTES = 1 << 30


@dataclass(frozen=True)
class SiteView:
    """What the verdict looks at. A text is empty when there is nothing to say.

    The last five are the commands that its remedies ask for, whole.
    """

    nodes: int
    reached: int
    primaries: int
    primary: str
    heard: bool
    superseded: str
    read_only: str
    unreached: str
    unready_standbys: str
    lagging: str
    not_synchronous: str
    hanging_commits: str
    harbors: int
    healthy_harbors: int
    ill_harbors: str
    wrong_database: str
    write_failed: str
    balancer_down: str
    held_back: str
    slots: str
    archiver: str
    disks: str
    certificates: str
    clocks: str
    nas: str
    images_denied: str
    projects_denied: str
    overrides: str
    autostart: str
    guards_away: str
    guards_other: str
    self_fences: str
    wanted_self_fence: str
    blind_witnesses: str
    noisy: str
    problems: str
    busy: str
    unfinished: str
    paused: str
    damaged: str
    failover: str
    rejoin: str
    bootstrap: str
    again: str
    end_pause: str


def site_view(
    nodes: Sequence[NodeFacts],
    addresses: Mapping[str, str],
    policy: Policy,
    now: Moment,
    *,
    write_error: str | None = None,
    balancer_up: Mapping[str, bool] | None = None,
    guard_version: str | None = None,
    blind_witnesses: Sequence[str] = (),
    site: str = "SITE",
) -> SiteView:
    """Condense the facts of all nodes.

    Args:
        nodes: facts of every node, database or not.
        addresses: address by node name, to tell which database a Harbor uses.
        policy: the site's settings.
        now: the moment of the verdict.
        write_error: why a real write through the load balancer failed; None: it worked, or was not tried.
        balancer_up: the load balancer's checks by node; None when it was not asked.
        guard_version: the guard that this orchestrator installs; None: not compared.
        blind_witnesses: who does not see a node that is in service, as sentences.
        site: its name, for the commands.
    """
    primaries = [node for node in nodes if node.is_primary]
    primary = primaries[0] if len(primaries) == 1 else None
    standbys = [node for node in nodes if node.is_standby]
    harbors = [node for node in nodes if node.harbor is not None]
    ill = [node for node in harbors if node.harbor and node.harbor.health != "healthy"]
    busy, unfinished, damaged = _operations(nodes, now)
    unready, superseded = _unready(nodes, primary), _superseded(nodes, primaries)
    unstarted = [n for n in nodes if n.server and (n.masked or n.start_conf not in (None, "auto"))]
    return SiteView(
        nodes=len(nodes),
        reached=sum(node.reachable for node in nodes),
        primaries=len(primaries),
        primary=", ".join(node.name for node in primaries) or "none",
        heard=any(_fresh(node) for node in standbys),
        superseded=", ".join(superseded),
        read_only=_names(n for n in primaries if n.server and n.server.read_only),
        unreached="; ".join(f"{n.name} ({n.error})" for n in nodes if not n.reachable),
        unready_standbys="; ".join(f"{name} ({why})" if name else why for name, why in unready),
        lagging=_lagging(primary, policy),
        not_synchronous=_not_synchronous(primary, policy),
        hanging_commits=_hanging(primary),
        harbors=len(harbors),
        healthy_harbors=len(harbors) - len(ill),
        ill_harbors="; ".join(_illness(node) for node in ill),
        wrong_database=_wrong_database(harbors, primary, addresses),
        write_failed=write_error or "",
        balancer_down=", ".join(name for name, up in sorted((balancer_up or {}).items()) if not up),
        held_back=_held_back(primary),
        slots=_slots(primary),
        archiver="; ".join(filter(None, (_archiving(node) for node in primaries))),
        disks="; ".join(filter(None, (_disks(node) for node in nodes))),
        certificates="; ".join(filter(None, (_certificate(node, now) for node in harbors))),
        clocks=_names(n for n in nodes if abs(n.clock_skew_s or 0.0) > MAX_CLOCK_SKEW_S),
        nas=_names(n for n in harbors if not n.nas_mounted or n.nas_disk is None),
        images_denied=_denied(harbors, projects=False),
        projects_denied=_denied(harbors, projects=True),
        overrides="; ".join(filter(None, (_overrides(node) for node in nodes))),
        autostart=_names(unstarted),
        guards_away="; ".join(_guards_away(nodes)),
        guards_other=", ".join(_guards_other(nodes, guard_version)),
        self_fences=", ".join(_self_fences(nodes, policy)),
        wanted_self_fence=_seconds(policy.self_fence_s),
        blind_witnesses="; ".join(blind_witnesses) if policy.rests_on_witnesses else "",
        noisy="; ".join(f"{n.name}: {n.problems[NOISE]}" for n in nodes if NOISE in n.problems),
        problems="; ".join(f"{n.name}: {part}: {why}" for n in nodes for part, why in _other_problems(n)),
        busy=busy,
        unfinished=unfinished,
        paused="; ".join(sorted({pause_reason(node) for node in nodes} - {""})),
        damaged=damaged,
        failover=failover_command(site, nodes),
        rejoin=rejoin_commands(
            site,
            [
                *superseded,
                *(name for name, _ in unready),
                *_owners_of_slots(primary, addresses),
                *(node.name for node in unstarted if node.is_standby),
            ],
        ),
        bootstrap=command("bootstrap", site),
        again=again_command(site, nodes),
        end_pause=command("pause", site, end="true"),
    )


def _names(nodes: Iterable[NodeFacts]) -> str:
    return ", ".join(node.name for node in nodes)


def _fresh(node: NodeFacts) -> bool:
    receiver = node.server.receiver if node.server else None
    return receiver is not None and receiver.fresh


def _operations(nodes: Sequence[NodeFacts], now: Moment) -> tuple[str, str, str]:
    """Return the operation in progress, the unfinished one, and what is damaged, in words."""
    try:
        lock, record = live_lock(nodes, now), latest_record(nodes)
    except RecordDamaged as error:
        return "", "", str(error)
    words = f"{record.kind} {record.op_id} ({record.phase})" if record and record.open else ""
    if lock is not None:
        return words or f"operation {lock.op_id} of {describe(lock.holder)}", "", ""
    return "", "; ".join(filter(None, (words, *untold_losses(nodes)))), ""


def _superseded(nodes: Sequence[NodeFacts], primaries: Sequence[NodeFacts]) -> list[str]:
    """Name a primary that the nodes know to have been replaced: another one was accepted on a newer timeline."""
    accepted = accepted_primary([node for node in nodes if not node.is_primary])
    recorded = accepted_primary(nodes)
    best = max(filter(None, (accepted, recorded)), key=lambda claim: claim[1], default=None)
    if best is None:
        return []
    name, timeline = best
    return [n.name for n in primaries if n.name != name and (n.timeline or 0) < timeline]


def _unready(nodes: Sequence[NodeFacts], primary: NodeFacts | None) -> list[tuple[str, str]]:
    """Name the nodes with a cluster that is neither the primary nor a standby that hears and follows it, and why."""
    bad = []
    for node in nodes:
        if node is primary or not node.reachable or (node.cluster is None and node.server is None):
            continue
        if node.is_primary:
            continue
        if node.server is None:
            bad.append((node.name, "its server does not answer"))
        elif not _fresh(node):
            bad.append((node.name, "hears nothing from a primary"))
        elif primary is not None and node.timeline != primary.timeline:
            bad.append((node.name, "on another timeline"))
        elif node.server.replay_paused:
            bad.append((node.name, "replay is paused"))
    if primary is not None and not any(node.is_standby for node in nodes) and not bad:
        bad.append(("", "there is no standby"))
    return bad


def _streaming(primary: NodeFacts | None) -> list[Sender]:
    server = primary.server if primary else None
    return [sender for sender in server.senders if sender.state == "streaming"] if server else []


def _lagging(primary: NodeFacts | None, policy: Policy) -> str:
    late = [s for s in _streaming(primary) if s.lag_bytes is None or s.lag_bytes > policy.max_lag_bytes]
    return ", ".join(f"{sender.application_name} ({describe_bytes(sender.lag_bytes)})" for sender in late)


def _not_synchronous(primary: NodeFacts | None, policy: Policy) -> str:
    if primary is None or policy.durability == "async":
        return ""
    return "" if any(s.sync_state in ("sync", "quorum") for s in _streaming(primary)) else primary.name


def _hanging(primary: NodeFacts | None) -> str:
    waits = primary is not None and primary.server is not None and bool(primary.server.sync_names.strip())
    return primary.name if primary is not None and waits and not _streaming(primary) else ""


def _illness(node: NodeFacts) -> str:
    harbor = node.harbor
    if harbor is None or harbor.health is None:
        return f"{node.name} ({node.problems.get('harbor_health', 'no answer')})"
    parts = [name for name, state in sorted(harbor.components.items()) if state != "healthy"]
    return f"{node.name} (unhealthy: {', '.join(parts) or 'no component named'})"


def _wrong_database(
    harbors: Sequence[NodeFacts], primary: NodeFacts | None, addresses: Mapping[str, str]
) -> str:
    if primary is None:
        return ""
    right = {primary.name, addresses.get(primary.name)}
    bad = []
    for node in harbors:
        if node.harbor is None:
            continue
        used = (node.harbor.running_database, node.harbor.configured_database)
        if any(host is not None and host not in right for host in used):
            bad.append(f"{node.name} (runs with {used[0]}, configured {used[1]})")
        elif node.harbor.jobs_behind:
            bad.append(f"{node.name} (its jobservice has run since before its core was replaced)")
    return "; ".join(bad)


def _bad_slots(primary: NodeFacts | None) -> list[Slot]:
    server = primary.server if primary else None
    slots = server.slots if server else ()
    return [slot for slot in slots if not slot.active or slot.wal_status in ("lost", "unreserved")]


def _slots(primary: NodeFacts | None) -> str:
    bad = _bad_slots(primary)
    return ", ".join(f"{s.name} ({'active' if s.active else 'inactive'}, {s.wal_status})" for s in bad)


def _owners_of_slots(primary: NodeFacts | None, names: Iterable[str]) -> list[str]:
    bad = {slot.name for slot in _bad_slots(primary)}
    return [name for name in names if slot_of(name) in bad]


def _held_back(primary: NodeFacts | None) -> str:
    """Name the inactive slots that keep dead rows, or more WAL than the primary keeps anyway."""
    server = primary.server if primary else None
    held = []
    for slot in server.slots if server else ():
        parts = []
        if slot.has_xmin:
            age = "" if slot.xmin_age is None else f" of {slot.xmin_age:,} transactions"
            parts.append(f"dead rows{age}")
        if (slot.held_bytes or 0) > MAX_HELD_BYTES:
            parts.append(f"{describe_bytes(slot.held_bytes)} of WAL")
        if parts and not slot.active:
            held.append(f"{slot.name} ({' and '.join(parts)})")
    return ", ".join(held)


def _archiving(node: NodeFacts) -> str:
    backlog = node.cluster.ready_count if node.cluster else 0
    if node.server and node.server.archiver.failing:
        return f"{node.name} fails at {node.server.archiver.last_failed_wal}, {backlog} segments wait"
    return f"{node.name}: {backlog} segments wait" if backlog > MAX_ARCHIVE_BACKLOG else ""


def _disks(node: NodeFacts) -> str:
    disks = (("data", node.data_disk), ("NAS", node.nas_disk))
    low = [(name, disk) for name, disk in disks if disk and disk.free_share < MIN_FREE_SHARE]
    return ", ".join(f"{node.name} {name} {disk.free_share:.0%} free" for name, disk in low)


def _denied(harbors: Sequence[NodeFacts], *, projects: bool) -> str:
    """Name what the registry may not use of a NAS that is there: the projects' directories, or what is above them."""
    found = []
    for node in harbors:
        paths = [path for path in node.images_denied if ("/repositories/" in path) is projects]
        if node.nas_mounted and paths:
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            found.append(f"{node.name} ({', '.join(paths[:3])}{more})")
    return "; ".join(found)


def _certificate(node: NodeFacts, now: Moment) -> str:
    end = node.harbor.certificate_end if node.harbor else None
    if end is None:
        return ""
    left = end - datetime.fromtimestamp(now.wall, UTC)
    return f"{node.name}: {left.days} days left" if left < CERTIFICATE_WARNING else ""


def _overrides(node: NodeFacts) -> str:
    names = node.cluster.auto_conf if node.cluster else ()
    bad = [name for name in names if name in OVERRIDES or name.startswith(RECOVERY_TARGET)]
    return f"{node.name}: {', '.join(bad)}" if bad else ""


def _guards_away(nodes: Sequence[NodeFacts]) -> list[str]:
    silent = [(node.name, node.guard) for node in nodes if node.guard is not None and not node.guard.runs]
    return [
        f"{name} (silent for {guard.age_s:.0f} s)" if guard.age_s is not None else f"{name} (never heard)"
        for name, guard in silent
    ]


def _guards_other(nodes: Sequence[NodeFacts], version: str | None) -> list[str]:
    running = [(node.name, node.guard) for node in nodes if node.guard is not None and node.guard.runs]
    return [name for name, guard in running if version is not None and guard.version != version]


def _self_fences(nodes: Sequence[NodeFacts], policy: Policy) -> list[str]:
    running = [(node.name, node.guard) for node in nodes if node.guard is not None and node.guard.runs]
    other = [(name, guard) for name, guard in running if guard.self_fence_s != policy.self_fence_s]
    return [f"{name} ({_seconds(guard.self_fence_s)})" for name, guard in other]


def _seconds(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:.0f} s"


def _other_problems(node: NodeFacts) -> list[tuple[str, str]]:
    """Return the parts of the look that failed and are not judged elsewhere."""
    judged = {"server", "harbor_health", "nas", "shared", NOISE}
    if "nas" in node.problems:
        judged.add("images")
    return [(part, why) for part, why in sorted(node.problems.items()) if part not in judged]
