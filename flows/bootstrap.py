"""Two bare machines become one Harbor site."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.protocol import Protocol
from flows.report import publish
from flows.rules.preflight import Plan, plan_bootstrap
from tasks.balancer import steps as balancer
from tasks.docker import steps as docker
from tasks.guard import steps as guard
from tasks.harbor import steps as harbor
from tasks.hosts import steps as hosts
from tasks.hosts.observation import observe_all
from tasks.postgres import steps as postgres


@flow(name="bootstrap", task_runner=ThreadPoolTaskRunner(max_workers=8))  # type: ignore[arg-type]
def bootstrap(site: str, dry_run: bool = False) -> dict[str, Any]:
    """Build the site from bare hosts, or bring an existing one to its configuration.

    Looks at every node first and refuses with all reasons before anything is changed. Running it again
    changes nothing and says so; killed at any moment, the next run completes it.

    Args:
        site: Name of the saved site.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("bootstrap", site, dry_run)
    plan = plan_bootstrap(run.site, observe_all(run.site), datetime.now(UTC))
    prepare_machines(run, plan)
    build_pair(run, plan)
    install_harbor(run, plan)
    start_harbor(run, plan)
    prove(run, plan)
    return publish(run, headline(run, plan), {"Decided": decided(plan)})


def prepare_machines(run: Protocol, plan: Plan) -> None:
    """Put the NAS, Docker and PostgreSQL's programs on all nodes."""
    everywhere = [node.name for node in run.site.nodes]
    run.on_each(hosts.mount_nas, plan.harbor)
    run.on(hosts.prove_nas, *plan.harbor)
    run.on_each(docker.install, plan.harbor)
    run.on_each(docker.configure, plan.harbor)
    databases = [node for node in everywhere if node in (plan.primary, *plan.standbys)]
    run.on_each(postgres.install, databases)
    run.on_each(postgres.install_archiver, databases)


def build_pair(run: Protocol, plan: Plan) -> None:
    """Bring up the primary, then the standbys, and prove that they replay what it writes."""
    primary, standbys = plan.primary, plan.standbys
    run.on(postgres.create_cluster, primary)
    run.on(postgres.configure, primary)
    run.on(postgres.start, primary)
    run.on(postgres.create_roles, primary)
    run.on(postgres.set_passwords, primary)
    for standby in standbys:
        run.on(postgres.create_slot, primary, standby_name=standby)
    run.on_each(postgres.copy_configuration, standbys, then=[primary])
    run.on_each(postgres.configure, standbys)
    run.on_each(postgres.build_standby, standbys, then=[primary])
    run.on_each(postgres.start, standbys)
    run.on_each(postgres.replicate_marker, standbys, then=[primary])
    run.on_each(guard.install_guard, [primary, *standbys])
    run.on(guard.accept_running_primary, primary, *standbys)


def install_harbor(run: Protocol, plan: Plan) -> None:
    """Put the same Harbor with the same secrets on all its nodes, pointed at the primary."""
    nodes = plan.harbor
    run.on_each(harbor.install, nodes)
    run.on_each(harbor.bind_registry, nodes)
    run.on(harbor.share_secrets, *nodes)
    run.on(harbor.share_override, *nodes)
    run.on_each(harbor.configure, nodes, database_host=run.site.node(plan.primary).address)
    run.on_each(harbor.prepare_configuration, nodes)


def start_harbor(run: Protocol, plan: Plan) -> None:
    """Start Harbor on one node, which creates the schema, and then on the others."""
    first, others = plan.harbor[0], plan.harbor[1:]
    run.on(harbor.up, first)
    run.on(harbor.wait_healthy, first)
    run.on_each(harbor.up, others)
    run.on_each(harbor.wait_healthy, others)
    for node in plan.harbor:
        run.on(balancer.admit, node)


def prove(run: Protocol, plan: Plan) -> None:
    """Use the site: push through the load balancer, pull through each node, find it on the standby."""
    pushed = run.on(harbor.push_and_pull, name="bootstrap")
    digest = pushed.data.get("digest", "")
    run.on_each(harbor.found_on_standby, plan.standbys, digest=digest)


def headline(run: Protocol, plan: Plan) -> str:
    """Say in one sentence how it ended."""
    if run.dry_run:
        return f"Would bring up {run.site.name}: primary {plan.primary}, standby {', '.join(plan.standbys)}."
    changed, _ = run.counts()
    if not changed:
        return f"{run.site.name} is as configured; nothing was changed."
    return f"{run.site.name} takes pushes at https://{run.site.harbor.hostname}; {changed} steps changed something."


def decided(plan: Plan) -> list[str]:
    """Tell who is what and why."""
    why = "no node held a database yet" if plan.first_time else "it holds the site's database as primary"
    return [
        f"primary: {plan.primary}, because {why}",
        f"standby: {', '.join(plan.standbys) or 'none'}",
        f"Harbor on: {', '.join(plan.harbor)}; {plan.harbor[0]} first, which creates the schema",
    ]
