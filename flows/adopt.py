"""A Harbor that somebody has already becomes a site, with all that is in it; it can be put back by one command."""

from datetime import UTC, datetime
from typing import Any, NoReturn

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.bootstrap import alone, build_pair, describe, prepare_machines, prove, require_same, start_harbor
from flows.machinery.bootstrap_report import decided, found
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.rules.preflight import Plan, plan_bootstrap
from flows.rules.take_over import take_over_objections, view_of_old
from flows.rules.take_over_external import external_view_of
from flows.rules.take_over_plan import how_long, what_becomes_of
from tasks.errors import HarborHaError, HostUnreachable, Refused, RemoteConnectionLost, RemoteTimeout
from tasks.harbor import adoption
from tasks.harbor import steps as harbor
from tasks.harbor.adoption import KEPT_AT, PUT_BACK, NotAtThisPoint, OldHarbor
from tasks.hosts.connection import connect
from tasks.hosts.observation import SiteSeen, observe_site
from tasks.operation.store import LockLost
from tasks.postgres import steps as postgres
from tasks.step import Step


@flow(
    name="adopt",
    flow_run_name="adoption into {site}",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
)
@ends_named
def adopt(site: str, dry_run: bool = False, set_aside: bool = False) -> dict[str, Any]:
    """Take over the Harbor that runs on one of the site's nodes, and build the site around it.

    The old Harbor serves until its images are on the NAS; then it is read-only for a last pass, and down for the copy
    of its database. Nothing in its directories is changed, and one command puts it back. Killed at any moment, the
    next run goes on.

    Args:
        site: Name of the saved site. Its install_dir and data_volume are other directories than the old Harbor's.
        dry_run: Look, say what was found, what would become of it and how long it takes, and change nothing.
        set_aside: The old Harbor was put back after an adoption, and what was pushed to the site since is not wanted:
            the site's database is renamed, and the old Harbor is copied anew.
    """
    run = Protocol.begin("adopt", site, dry_run)
    seen = run.watch("Look at all nodes", lambda: observe_site(run.site, wait=not dry_run), describe)
    old = look_into(run, seen)
    plan = decide(run, seen, old, set_aside=set_aside)
    with alone(run, plan):
        require_same(run, plan, old.node)
        prepare_machines(run, plan)
        if old.external and not run.site.node(old.node).runs_postgres:
            # Its database is dumped from here.
            run.on(postgres.install, old.node)
        # Loading the new images takes minutes; the old Harbor serves meanwhile, and all through the copy.
        with run.beside(harbor.install, plan.harbor):
            build_pair(run, plan)
        make_room(run, plan, old)
        keep(run, plan, old)
        move(run, plan, old)
        install(run, plan, old)
        # Put back meanwhile, it would serve beside the site's.
        run.on(harbor.note_adoption, old.node, phase="moved")
        start_harbor(run, plan)
        prove(run, plan)
        run.on(harbor.note_adoption, old.node, phase="done")
    return publish(run, headline(run, old), sections(run, seen, old, plan))


def look_into(run: Protocol, seen: SiteSeen) -> OldHarbor:
    """Find the one old Harbor among the nodes, and look deeper into it.

    Raises:
        Refused: there is none, or more than one.
    """
    home = run.site.harbor.install_dir.rstrip("/")
    holders = [node for node in seen.nodes if node.harbor is not None and node.harbor.directory != home]
    if len(holders) != 1:
        reason = (
            f"{' and '.join(node.name for node in holders)} each have a Harbor of their own -> one site "
            "takes over one; take the others down"
            if holders
            else f"no node has a Harbor outside of {home} -> run `bootstrap`, which builds the site and completes it; "
            f"for a Harbor that lies in {home} set harbor.install_dir to another directory"
        )
        refuse(run, seen, [*seen.unreachable, reason])
    (holder,) = holders
    assert holder.harbor is not None
    given, host = holder.harbor, connect(run.site.node(holder.name))
    return run.watch(
        "Look into the old Harbor",
        lambda: adoption.look(run.site, host, given),
        lambda old: f"Harbor {old.found.version or '?'} in {old.found.directory or '?'}",
        holder.name,
    )


def decide(run: Protocol, seen: SiteSeen, old: OldHarbor, *, set_aside: bool = False) -> Plan:
    """Make the plan, or publish every reason against it.

    Raises:
        Refused: something speaks against the adoption, or against building the site.
    """
    external = external_view_of(run.site, old)
    reasons = [*take_over_objections(view_of_old(run.site, old, seen.nodes, set_aside=set_aside), external)]
    try:
        plan = plan_bootstrap(run.site, seen, datetime.now(UTC), adopting=old.node)
    except Refused as refused:
        reasons += refused.reasons
    if reasons:
        refuse(run, seen, reasons)
    return plan


def refuse(run: Protocol, seen: SiteSeen, reasons: list[str]) -> NoReturn:
    """Publish every reason, and end.

    Raises:
        Refused: always.
    """
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    headline = f"Refused, nothing was changed: {reasons[0]}{more}"
    publish(run, headline, {"Refused because": reasons, "Found": found(run.site, seen)})
    raise Refused(f"No Harbor can be adopted into {run.site.name} as it is.", reasons)


def make_room(run: Protocol, plan: Plan, old: OldHarbor) -> None:
    """Set aside what an adoption before this one has left in the pair, if the old Harbor was put back after it."""
    if old.found.adoption != "returned":
        return
    run.on_each(harbor.stop_site_harbor, plan.harbor)
    run.on(harbor.set_pair_aside, old.node, plan.primary)


def keep(run: Protocol, plan: Plan, old: OldHarbor) -> None:
    """Keep what makes the old Harbor what it is: how to put it back, its keys, its settings."""
    run.on(harbor.begin_adoption, old.node, planned=old.found.adoption)
    if old.external:
        run.on(harbor.rehearse_dump, old.node)
    run.on(harbor.keep_secrets, old.node)
    run.on(harbor.keep_settings, old.node)
    run.on_each(harbor.bind_registry, plan.harbor)
    run.on(harbor.share_secrets, *first(plan, old))
    run.on(harbor.share_override, *first(plan, old))


def move(run: Protocol, plan: Plan, old: OldHarbor) -> None:
    """Bring images and rows to the site. Where that fails the old Harbor serves again before the flow ends.

    Raises:
        what failed.
    """
    if old.found.adoption == "moved":
        return
    if old.found.adoption != "moving":
        run.on(harbor.require_empty_pair, plan.primary)
        run.on(harbor.copy_images, old.node)
    try:
        run.on(harbor.refuse_writes, old.node)
        run.on(harbor.copy_images_again, old.node)
        # Its operator may have put it back since, without asking anybody: then it serves, and is not stopped again.
        run.on(harbor.note_adoption, old.node, phase="moving")
        # What was on its way when it became read-only has arrived by now, or never will.
        run.on(harbor.stop_old_writers, old.node, directory=old.found.directory)
        run.on(harbor.copy_images_again, old.node)
        run.on(harbor.note_adoption, old.node, phase="moving")
        run.on(taking_over(old), old.node, plan.primary, directory=old.found.directory)
        run.on(harbor.allow_writes, plan.primary)
    except Exception as error:
        serve_again(run, plan, old, error)
        raise
    run.on(harbor.note_adoption, old.node, phase="moved")


def taking_over(old: OldHarbor) -> Step:
    """Choose the step that copies its database."""
    return harbor.migrate_from_external if old.found.database_host else harbor.migrate_from_bundled


def serve_again(run: Protocol, plan: Plan, old: OldHarbor, error: Exception) -> None:
    """Put the old Harbor back after a failure, if the pair has certainly none of its rows.

    Once it serves again its rows change, and a copy in the pair would be an old one that looks like a whole one. So
    after a COMMIT, or where nobody can tell, it stays down, and the next run goes on from there.

    Where somebody else goes on with it, or its operator has put it back, it is theirs: nothing is done to it.

    Raises:
        HarborHaError: it stays down, or putting it back failed too; the remedy names the command.
    """
    if isinstance(error, NotAtThisPoint):
        return
    if isinstance(error, LockLost):
        error.meaning += (
            f" The old Harbor on {old.node} was left as it is, read-only or down: the other run decides about it; "
            f"`{PUT_BACK}` puts it back."
        )
        return
    if isinstance(error, RemoteTimeout | RemoteConnectionLost | HostUnreachable):
        raise stays_down(old, error) from error
    try:
        with run.going_back():
            run.on(harbor.require_empty_pair, plan.primary)
    except HarborHaError:
        raise stays_down(old, error) from error
    try:
        with run.going_back():
            run.on(harbor.put_back_old, old.node)
    except HarborHaError as worse:
        raise HarborHaError(
            f"The adoption failed ({error}), and so did putting the old Harbor back ({worse}).",
            where=old.node,
            meaning="The old Harbor may be read-only or down; its data is as it was.",
            remedy=f"Run `{PUT_BACK}` on {old.node}, or run `adopt` again, which goes on.",
        ) from error


def stays_down(old: OldHarbor, error: Exception) -> HarborHaError:
    """Say why the old Harbor was not put back, and what is done about it."""
    return HarborHaError(
        f"The adoption failed: {error}",
        where=old.node,
        meaning="The old Harbor is read-only or down and was left so: the pair has its rows, or may have them.",
        remedy=f"Run `adopt` again, which goes on; or `{PUT_BACK}` on {old.node} to have the old one back.",
    )


def install(run: Protocol, plan: Plan, old: OldHarbor) -> None:
    """Make room for the site's Harbor, and point it at the pair."""
    run.on(harbor.take_down_old, old.node)
    run.on_each(harbor.configure, plan.harbor, database_host=run.site.node(plan.primary).address)
    run.on_each(harbor.prepare_configuration, plan.harbor)


def first(plan: Plan, old: OldHarbor) -> list[str]:
    """List Harbor's nodes with the old Harbor's before the others."""
    return sorted(plan.harbor, key=lambda name: name != old.node)


def headline(run: Protocol, old: OldHarbor) -> str:
    """Say in one sentence how it ended."""
    if run.dry_run:
        return f"Would adopt Harbor {old.found.version} in {old.found.directory} on {old.node} into {run.site.name}."
    return (
        f"Harbor {old.found.version} of {old.node} is the site {run.site.name}, which takes pushes at "
        f"https://{run.site.harbor.hostname}."
    )


def sections(run: Protocol, seen: SiteSeen, old: OldHarbor, plan: Plan) -> dict[str, list[str]]:
    """Tell what was found, what became of it, and how it is put back."""
    back = [
        f"`{PUT_BACK}` on {old.node} starts the old Harbor again as it was; on the other nodes stop the site's Harbor "
        "first, so that no push goes astray",
        f"its configuration is also in {KEPT_AT}/configuration; remove {old.found.directory}, the data volume "
        f"{old.found.data_volume} and {KEPT_AT} yourself, when nobody wants it back",
    ]
    return {
        "What becomes of it": what_becomes_of(run.site, old),
        "Expected" if run.dry_run else "Was expected": how_long(old),
        "To put it back": back,
        "Decided": decided(run.site, plan),
        "Found before": found(run.site, seen),
    }
