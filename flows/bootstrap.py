"""Two bare machines become one Harbor site."""

import contextlib
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.machinery.bootstrap_report import decided, found, headline
from flows.machinery.ending import ends_named
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.rules.preflight import Plan, plan_bootstrap
from tasks.balancer import steps as balancer
from tasks.docker import steps as docker
from tasks.errors import HarborHaError, Refused
from tasks.guard import steps as guard
from tasks.harbor import steps as harbor
from tasks.hosts import steps as hosts
from tasks.hosts.connection import connect
from tasks.hosts.observation import SiteSeen, observe_site
from tasks.operation import store
from tasks.operation.held import Held
from tasks.pitr import steps as pitr
from tasks.pitr.settings import uses_repository
from tasks.postgres import steps as postgres


@flow(
    name="bootstrap",
    flow_run_name="bootstrap of {site}",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
)
@ends_named
def bootstrap(site: str, dry_run: bool = False) -> dict[str, Any]:
    """Build the site from bare hosts, or bring an existing one to its configuration.

    Looks at every node first and refuses with all reasons before anything is changed. Running it again
    changes nothing and says so; killed at any moment, the next run completes it.

    Args:
        site: Name of the saved site.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("bootstrap", site, dry_run)
    seen = run.watch("Look at all nodes", lambda: observe_site(run.site, wait=not dry_run), describe)
    plan = decide(run, seen)
    with alone(run, plan):
        require_same(run, plan)
        prepare_machines(run, plan)
        # Loading Harbor's images takes minutes and touches nothing that the pair needs.
        with run.beside(harbor.install, plan.harbor):
            build_pair(run, plan)
        install_harbor(run, plan)
        start_harbor(run, plan)
        prove(run, plan)
    sections = {"Decided": decided(run.site, plan), "Found before": found(run.site, seen)}
    return publish(run, headline(run, plan), sections)


def decide(run: Protocol, seen: SiteSeen) -> Plan:
    """Make the plan, or publish every reason against it.

    Raises:
        Refused: something speaks against building the site.
    """
    try:
        return plan_bootstrap(run.site, seen, datetime.now(UTC))
    except Refused as refused:
        more = f" (and {len(refused.reasons) - 1} more)" if len(refused.reasons) > 1 else ""
        first = f"Refused, nothing was changed: {refused.reasons[0]}{more}"
        publish(run, first, {"Refused because": refused.reasons, "Found": found(run.site, seen)})
        raise


@contextlib.contextmanager
def alone(run: Protocol, plan: Plan) -> Iterator[None]:
    """Hold the site's lock, so that no failover and no second bootstrap works on the same nodes.

    Without it no step of the body begins: a run that stood still for a minute has lost it, and does not know.

    Raises:
        LockHeld: another process works on the site.
        LockLost: another run has taken it.
    """
    if run.dry_run:
        yield
        return
    databases = [connect(run.site.node(name)) for name in (plan.primary, *plan.standbys)]
    op_id = f"bootstrap-{secrets.token_hex(4)}"
    run.watch(
        "Take the site's lock",
        lambda: store.acquire(run.site, *databases, op_id=op_id, required=[host.name for host in databases]),
        lambda outcome: outcome.detail,
    )
    run.held = Held(op_id, tuple(host.name for host in databases))
    try:
        # Loading images on a slow disk takes longer than the lock lasts.
        with store.renewed(run.site, *databases, op_id=op_id), run.telling_changes():
            yield
    finally:
        run.held = None
        # Left behind, it runs out; the error that ended the flow is the one to be told.
        with contextlib.suppress(HarborHaError):
            store.release(run.site, *databases, op_id=op_id)


def require_same(run: Protocol, plan: Plan, adopting: str | None = None) -> None:
    """Look again under the lock: until it was taken a failover may have made another node the primary.

    Raises:
        Refused: what was planned is not the plan any more.
    """
    if run.dry_run:
        return
    look = partial(observe_site, run.site, wait=False)
    seen = run.watch("Look again under the lock", look, describe)
    now = plan_bootstrap(run.site, seen, datetime.now(UTC), adopting=adopting)
    if (now.primary, now.standbys, now.first_time) != (plan.primary, plan.standbys, plan.first_time):
        raise Refused(
            f"{run.site.name} has changed since the first look: the primary was {plan.primary}, and is {now.primary}.",
            ["Another run has worked on the site meanwhile -> run this again; it looks anew"],
        )


def prepare_machines(run: Protocol, plan: Plan) -> None:
    """Put the NAS, PostgreSQL's programs and Docker on all nodes."""
    databases = [plan.primary, *plan.standbys]
    run.on_each(hosts.mount_nas, plan.harbor)
    run.on(hosts.prove_nas, *plan.harbor)
    run.on_each(postgres.install, databases)
    run.on_each(postgres.install_archiver, databases)
    if uses_repository(run.site):
        run.on_each(pitr.install, databases)
    run.on_each(docker.install, plan.harbor)
    # One after the other: what the first engine does not take reaches no second one.
    for node in plan.harbor:
        run.on(docker.configure, node)


def build_pair(run: Protocol, plan: Plan) -> None:
    """Bring up the primary, then the standbys, and prove that they replay what it writes."""
    primary, standbys = plan.primary, plan.standbys
    run.on(postgres.create_cluster, primary)
    run.on(postgres.configure, primary)
    run.on(postgres.start, primary)
    run.on(postgres.create_roles, primary)
    run.on(postgres.set_passwords, primary)
    if uses_repository(run.site):
        run.on(pitr.create_stanza, primary)
    for standby in standbys:
        run.on(postgres.create_slot, primary, standby_name=standby)
    run.on_each(postgres.copy_configuration, standbys, then=[primary])
    run.on_each(postgres.configure, standbys)
    run.on_each(postgres.build_standby, standbys, then=[primary])
    run.on_each(postgres.start, standbys)
    run.on_each(postgres.replicate_marker, standbys, then=[primary])
    if plan.forget:
        # After their archive_command has changed.
        run.on_each(pitr.forget, plan.forget)
    run.on_each(guard.install_guard, [primary, *standbys])
    run.on(guard.accept_running_primary, primary, *standbys)


def install_harbor(run: Protocol, plan: Plan) -> None:
    """Give all Harbor nodes the same secrets and point them at the primary."""
    nodes = plan.harbor
    run.on_each(harbor.bind_registry, nodes)
    run.on(harbor.share_secrets, *nodes)
    run.on(harbor.share_override, *nodes)
    if plan.migrate_from:
        run.on(harbor.migrate_from_bundled, plan.migrate_from, plan.primary)
    run.on_each(harbor.configure, nodes, database_host=run.site.node(plan.primary).address)
    run.on_each(harbor.prepare_configuration, nodes)


def start_harbor(run: Protocol, plan: Plan) -> None:
    """Start Harbor on one node, which creates the schema, and then on the others."""
    first, others = plan.harbor[0], plan.harbor[1:]
    run.on(harbor.up, first)
    run.on(harbor.wait_migrated, first)
    run.on_each(harbor.up, others)
    run.on_each(harbor.start_at_boot, plan.harbor)
    run.on_each(harbor.wait_healthy, plan.harbor)
    run.on_each(harbor.foresee, plan.harbor)
    if run.site.balancer.create_listener:
        run.on(balancer.listen)
    for node in plan.harbor:
        run.on(balancer.admit, node)


def prove(run: Protocol, plan: Plan) -> None:
    """Use the site: push through the load balancer, pull through each node, find it on the standby."""
    pushed = run.on(harbor.push_and_pull, name="bootstrap")
    digest = pushed.data.get("digest", "")
    run.on_each(harbor.found_on_standby, plan.standbys, digest=digest)


def describe(seen: SiteSeen) -> str:
    """Say in one line what was looked at."""
    return f"{len(seen.nodes)} nodes reached, {len(seen.unreachable)} not"
