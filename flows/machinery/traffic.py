"""Let Harbor's clients work with the new primary, and finish what may wait."""

from collections.abc import Callable, Mapping
from typing import Literal

from flows.machinery.operation import Operation
from tasks.balancer import steps as balancer
from tasks.fencing import steps as fencing
from tasks.harbor import steps as harbor
from tasks.harbor.proof import BY_POLICY, FAILED, OK
from tasks.operation.record import OperationKind, Phase, acceptance
from tasks.postgres import ha_steps as postgres
from tasks.postgres.layout import peers_of
from tasks.step import Step, node_of


def unstage(work: Operation) -> list[str]:
    """Point every Harbor at the old primary again; nothing was promoted.

    Returns:
        which could not be, in words: it would use a standby, now or from its next start on, and nobody had said so.
    """
    site = work.run.site
    address = site.node(work.held.expected_primary).address
    if site.failover.repoint != "edit":
        return []
    paths = harbor_paths(work)
    # Whom the last look did not reach has what was begun there all the same, and may be back by now: one that had stood
    # still for two seconds kept its next core.
    again = [path for path in sorted(work.readied) if node_of(path) not in {node_of(one) for one in paths}]
    done, _ = work.run.try_each(
        harbor.repoint_core, [*paths, *again], database_host=address, by=work.in_time()
    )
    back = [path for path in again if path in done]
    _, failed = work.run.try_each(
        harbor.restart_jobservice, [*paths, *back], database_host=address, by=work.in_time()
    )
    away = [
        f"the Harbor of {node}, which is not reached, may be set to {work.held.target}: "
        "run bootstrap when it is back, which points every Harbor at the primary"
        for node in unreachable_harbors(work)
        if node not in work.never_staged and node not in {node_of(path) for path in back}
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
    # An old primary that lives has begun no next core yet; the others serve without it.
    failed = work.run.in_turn(
        repointing(work),
        balancer.hurry,
        harbor_paths(work),
        database_host=address_of_target(work),
        by=work.in_time(),
    )
    for path, error in failed.items():
        node = node_of(path)
        work.sections.setdefault("Left behind", []).append(
            f"{error} {node} is taken out of the load balancer."
        )
        # Written before it is done: whoever goes on with a killed run has to know whom it may serve again.
        work.advance(Phase.OPENING, drained=(*work.held.drained, node))
        work.run.try_each(fencing.drain, [node], by=work.in_time())
    if not any(node_of(path) == work.held.target for path in failed):
        serve_target(work)
    see_write(work, follow)


def serve_target(work: Operation) -> None:
    """Have the new primary's own Harbor served, whoever had drained it: it may be the only one that is left.

    A rejoin that could not tell the load balancer had left it drained, and the failover that took over from it knew
    of no drain: it promoted that node, and no client reached it.
    """
    target = work.held.target
    if not work.run.site.node(target).runs_harbor:
        return
    done, failed = work.run.try_each(balancer.end_drain, [target], by=work.in_time())
    for error in failed.values():
        told = (
            f"{target} is still drained at the load balancer, if it was before: {error} -> run bootstrap then"
        )
        work.sections.setdefault("Left behind", []).append(told)
    if any(outcome.changed for outcome in done.values()):
        told = f"{target} was drained at the load balancer; it is served now, since its Harbor uses the new primary"
        work.sections.setdefault("Served", []).append(told)


def repoint(work: Operation, paths: list[str]) -> dict[str, str]:
    """Point the Harbor of these nodes at the target; return what failed, by path."""
    address, by = address_of_target(work), work.in_time()
    return work.run.try_each(repointing(work), paths, database_host=address, by=by)[1]


def repointing(work: Operation) -> Step:
    """Name the step by which this site's Harbors are pointed at another database."""
    way: Literal["edit", "prepare"] = work.run.site.failover.repoint
    return harbor.repoint_core if way == "edit" else harbor.repoint_by_prepare


def address_of_target(work: Operation) -> str:
    """Say where the database is that Harbor is to use."""
    return work.run.site.node(work.held.target).address


def serve_left_behind(work: Operation) -> None:
    """Try once more where Harbor did not follow when traffic was opened; who follows now is served again.

    The new primary's own Harbor was left out that way, and no flow is there to bring a primary's Harbor back. An old
    primary that was fenced waits for rejoin.
    """
    record = work.held
    fenced = record.expected_primary if record.kind is OperationKind.FAILOVER else ""
    for path in harbor_paths(work):
        node = node_of(path)
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
        done, failed = work.run.try_each(
            harbor.restart_jobservice, [path], database_host=database_host, by=work.in_time()
        )
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
