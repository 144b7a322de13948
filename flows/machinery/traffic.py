"""Let Harbor's clients work with the new primary, and finish what may wait."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from blocks import HarborSite
from flows.machinery.operation import Operation
from tasks.balancer import steps as balancer
from tasks.fencing import steps as fencing
from tasks.harbor import steps as harbor
from tasks.harbor.proof import BY_POLICY, FAILED, OK
from tasks.harbor.versions import habits, parse_version
from tasks.operation.record import OperationKind, Phase, acceptance
from tasks.postgres import ha_steps as postgres
from tasks.postgres.layout import peers_of


@contextmanager
def next_cores(work: Operation, *, answer_s: float = 0.0) -> Iterator[None]:
    """Have every Harbor's next core run beside its old one while the body goes on: clients wait for a core's start.

    The old ones and the proxies are not touched, so nothing has to be fenced yet; the next ones cannot write before
    their database is promoted. A core that does not start on a read-only database is only made. What fails is made
    up for when traffic is opened. Inside of another one it does nothing.

    Args:
        answer_s: how long to wait for their answers, in seconds; that one is late is no failure.
    """
    site = work.run.site
    if work.preparing or site.failover.repoint != "edit":
        yield
        return
    given: dict[str, Any] = {"database_host": site.node(work.held.target).address}
    step = harbor.stage
    if starts_early(site):
        step, given["answer_s"] = harbor.start_next, answer_s
    with work.run.beside(step, harbor_paths(work), required=False, **given):
        work.preparing = True
        try:
            yield
        finally:
            work.preparing = False


def starts_early(site: HarborSite) -> bool:
    """Tell whether this site's core starts while its database is still a standby."""
    return habits(parse_version(site.harbor.version)).starts_read_only


def unstage(work: Operation) -> list[str]:
    """Point every Harbor at the old primary again; nothing was promoted.

    Returns:
        which could not be, in words: it would use a standby, now or from its next start on, and nobody had said so.
    """
    site = work.run.site
    address = site.node(work.held.expected_primary).address
    if site.failover.repoint != "edit":
        return []
    work.run.try_each(harbor.repoint_core, harbor_paths(work), database_host=address)
    _, failed = work.run.try_each(harbor.restart_jobservice, harbor_paths(work), database_host=address)
    away = [
        f"the Harbor of {node}, which is not reached, may be set to {work.held.target}: "
        "run bootstrap when it is back, which points every Harbor at the primary"
        for node in unreachable_harbors(work)
        if node not in work.never_staged
    ]
    # What core uses is seen by every look.
    return [*jobs_left_behind(failed, f"may use the database of {work.held.target}"), *away]


def open_traffic(work: Operation, *, follow: Callable[[Operation], None] | None = None) -> None:
    """Point every reachable Harbor at the new primary, all at once, and see whether a client can write.

    A node whose Harbor does not follow is taken out of the load balancer and reported; it is no reason to
    roll back.

    Args:
        follow: makes a standby of the old primary; where writes wait for one, that comes before a client's write.
    """
    # Whoever comes next must know the new primary before any client writes to it.
    work.advance(Phase.OPENING, accepted=accepted_text(work))
    failed = repoint(work, harbor_paths(work))
    work.run.try_each(balancer.hurry, [path for path in harbor_paths(work) if path not in failed])
    for path, error in failed.items():
        node = path.split(" ")[0]
        work.sections.setdefault("Left behind", []).append(
            f"{error} {node} is taken out of the load balancer."
        )
        # Written before it is done: whoever goes on with a killed run has to know whom it may serve again.
        work.advance(Phase.OPENING, drained=(*work.held.drained, node))
        work.run.try_each(fencing.drain, [node], by=work.in_time())
    see_write(work, follow)


def repoint(work: Operation, paths: list[str]) -> dict[str, str]:
    """Point the Harbor of these nodes at the target; return what failed, by path."""
    site = work.run.site
    way: Literal["edit", "prepare"] = site.failover.repoint
    step = harbor.repoint_core if way == "edit" else harbor.repoint_by_prepare
    return work.run.try_each(step, paths, database_host=site.node(work.held.target).address)[1]


def serve_left_behind(work: Operation) -> None:
    """Try once more where Harbor did not follow when traffic was opened; who follows now is served again.

    The new primary's own Harbor was left out that way, and no flow is there to bring a primary's Harbor back. An old
    primary that was fenced waits for rejoin.
    """
    record = work.held
    fenced = record.expected_primary if record.kind is OperationKind.FAILOVER else ""
    for path in harbor_paths(work):
        node = path.split(" ")[0]
        if node not in record.drained or node == fenced or repoint(work, [path]):
            continue
        _, failed = work.run.try_each(balancer.undrain, [node], by=work.in_time())
        if not failed:
            told = f"{node} is taken out of the load balancer."
            left = [line for line in work.sections.pop("Left behind", []) if not line.endswith(told)]
            work.sections.update({"Left behind": left} if left else {})


def see_write(work: Operation, follow: Callable[[Operation], None] | None = None) -> None:
    """See whether a client can write again; what it finds is told, and nothing that follows depends on it."""
    run, target = work.run, work.held.target
    if run.site.postgres.durability == "required":
        if follow is None:
            told = "Writes wait for a standby, as durability is `required` -> run rejoin now"
            work.sections.setdefault("Clients", []).append(told)
            return
        run.on(postgres.ensure_slots, target, peers=[peer.name for peer in peers_of(run.site, target)])
        follow(work)
    try:
        said = run.on(harbor.write_through_balancer).data
    except Exception as error:
        said = {"answer": FAILED, "why": str(error) or type(error).__name__}
    if said.get("answer") != OK:
        refused = "Harbor refuses" if said.get("answer") == BY_POLICY else "Nobody has seen accepted"
        work.sections.setdefault("Clients", []).append(
            f"{refused} a write through the load balancer: {said.get('why')} The database is up."
        )


def finish(work: Operation, *, follow: Callable[[Operation], None] | None = None) -> None:
    """Do what clients do not wait for: jobservice, the acceptance, a checkpoint, slots, the record's end."""
    record, run = work.held, work.run
    work.advance(Phase.SETTLING, accepted=accepted_text(work))
    target, site = record.target, run.site
    if follow is not None:
        follow(work)
    run.on(postgres.ensure_slots, target, peers=[peer.name for peer in peers_of(site, target)])
    run.on(postgres.checkpoint, target)
    serve_left_behind(work)
    restart_jobs(work, harbor_paths(work), site.node(target).address)
    for node in unreachable_harbors(work):
        # When it comes back its Harbor still knows the old primary; rejoin brings that one back to clients.
        run.try_each(fencing.drain, [node], by=work.in_time())
        if node != record.expected_primary:
            told = f"{node} is still drained at the load balancer, since it was not reached: "
            work.sections.setdefault("Left behind", []).append(f"{told}when it is back, run bootstrap")
    work.close()


def accepted_text(work: Operation) -> str:
    """Say who is the primary from now on, as the nodes and the NAS keep it."""
    record = work.held
    timeline = record.promoted_timeline or work.seen.node(record.target).timeline or 0
    return acceptance(record.target, timeline, record.system_identifier or "", record.term)


def put_back(work: Operation) -> list[str]:
    """Undo what was done before a promotion that does not come: Harbor, the load balancer; return what stays."""
    record, left = work.held, []
    if record.staged:
        left += unstage(work)
    for node in record.drained:
        _, failed = work.run.try_each(balancer.undrain, [node], by=work.in_time())
        left += [f"{node} is still drained at the load balancer: {error}" for error in failed.values()]
    if record.fence is not None:
        left.append(
            f"{record.expected_primary} stays fenced ({record.fence.rung}) and nothing was promoted: "
            "run failover again when the reason is gone"
        )
    return left


def restart_jobs(work: Operation, paths: list[str], database_host: str) -> None:
    """Restart each Harbor's jobservice, one node after the other.

    Harbor's health says `unhealthy` meanwhile, and a load balancer that reads it takes the node out: all at once
    closed the site to its clients for three seconds after it had just been opened.
    """
    for path in paths:
        done, failed = work.run.try_each(harbor.restart_jobservice, [path], database_host=database_host)
        # Nothing shows it later: jobservice has asked core for the database when it started.
        if failed:
            work.sections.setdefault("Left behind", []).extend(jobs_left_behind(failed))
        restarted = any(outcome.changed for outcome in done.values())
        if restarted and path != paths[-1]:
            work.run.try_each(harbor.wait_healthy, [path])


def jobs_left_behind(failed: Mapping[str, str], does: str = "still uses the old database") -> list[str]:
    """Say which jobservice could not be restarted, and what it does therefore."""
    by_hand = "`docker restart harbor-jobservice` there"
    return [
        f"the jobservice of {path.split(' ')[0]} {does}: {error} -> {by_hand}"
        for path, error in failed.items()
    ]


def harbor_paths(work: Operation) -> list[str]:
    """Name the reachable nodes that run Harbor, with the way there."""
    return [
        work.path(node)
        for node in work.seen.every
        if node.reachable and work.run.site.node(node.name).runs_harbor
    ]


def unreachable_harbors(work: Operation) -> list[str]:
    """Name the Harbor nodes that are not reached."""
    return [
        node.name
        for node in work.seen.every
        if not node.reachable and work.run.site.node(node.name).runs_harbor
    ]
