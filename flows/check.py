"""How is the site? One parallel look, a real write, one verdict with its reasons; cheap enough for every minute."""

import json
import time
from typing import Any

from prefect import flow
from prefect.events import emit_event
from prefect.task_runners import ThreadPoolTaskRunner

from flows.machinery.ending import ends_named
from flows.machinery.one_run import one_run_a_site
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.machinery.service import try_write, why
from flows.machinery.sight import last_primary
from flows.rules.policy import policy_of
from flows.rules.table import Decision
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.balancer.balancer import balancer_of
from tasks.balancer.states import Served
from tasks.errors import HarborHaError
from tasks.guard.install import guard_version
from tasks.operation import steps as operation
from tasks.operation.files import VERDICT
from tasks.postgres import ha_steps as postgres

# Whoever looks at a list of runs, and a script that asks for the exit status, must not find these green.
_ALARMING = (Verdict.DOWN, Verdict.SPLIT_BRAIN, Verdict.UNKNOWN)


@flow(
    name="check",
    flow_run_name="check of {site}",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
)
@ends_named
@one_run_a_site
def check(site: str) -> dict[str, Any]:
    """Judge the site and keep the primary's position, by which a failover knows what it would lose.

    Changes nothing but its own notes on the nodes. A change of the verdict is an event
    `harbor-ha.verdict` of the site.

    Args:
        site: Name of the saved site.
    """
    run = Protocol.begin("check", site)
    work = Operation.begin(run)
    write_error = run.watch(
        "Write through the load balancer", lambda: why(try_write(run)), lambda error: error or "ok"
    )
    balancer = run.watch("Ask the load balancer", lambda: served(run), describe_served)
    addresses = {node.name: node.address for node in run.site.nodes}
    judged = verdict(
        work.seen.every,
        addresses,
        policy_of(run.site),
        clock.now(),
        write_error=write_error or None,
        balancer_up=balancer,
        guard_version=guard_version(),
    )
    record_position(work)
    announce(work, judged)
    text = f"{site} is {judged.kind}"
    headline = f"{text}: {judged.reasons[0]}" if judged.reasons else f"{text}."
    found = {"Found": judged.lines() or ["nothing to complain about"]}
    result = publish(run, headline, found, state=judged.kind.replace("_", " ").capitalize())
    alarming = judged.kind in _ALARMING
    return {"verdict": judged.kind.value, "findings": judged.lines(), "alarming": alarming, **result}


def served(run: Protocol) -> dict[str, bool] | None:
    """Ask the load balancer whom it serves; None when it cannot be asked."""
    try:
        balancer = balancer_of(run.site)
        states = balancer.status() if balancer else {}
    except HarborHaError:
        return None
    ours = {node.name for node in run.site.nodes if node.runs_harbor}
    return {name: state.served is Served.UP for name, state in states.items() if name in ours} or None


def describe_served(balancer: dict[str, bool] | None) -> str:
    """Say in one line whom the load balancer serves."""
    if balancer is None:
        return "it cannot be asked"
    return ", ".join(f"{name} is {'served' if up else 'not served'}" for name, up in sorted(balancer.items()))


def record_position(work: Operation) -> None:
    """Write the primary's position and its durability on all nodes that are reached."""
    primaries = [node for node in work.seen.nodes if node.is_primary]
    last = last_primary(work.seen, primaries[0].name) if len(primaries) == 1 else None
    if last is None:
        return
    first = work.path(primaries[0])
    others = [path for path in work.paths() if path != first]
    work.run.try_each(operation.remember_primary, [first], then=others, last=last)
    if work.run.site.postgres.durability != "async" and others:
        # A failover reads it on the standby, which cannot hear of a degrade that it caused by being away.
        work.run.try_each(postgres.mirror_durability, [first], then=others)


def announce(work: Operation, judged: Decision[Verdict]) -> None:
    """Emit an event when the verdict is another one than the last time, and keep it."""
    before = {str(node.state[VERDICT]["verdict"]) for node in work.seen.every if VERDICT in node.state}
    if before == {judged.kind.value} or not work.paths():
        return
    text = json.dumps({"verdict": judged.kind.value, "since": time.time()}, sort_keys=True) + "\n"
    work.run.try_each(operation.put_state, work.paths()[:1], then=work.paths()[1:], name=VERDICT, text=text)
    emit_event(
        "harbor-ha.verdict",
        resource={"prefect.resource.id": f"harbor-ha.site.{work.run.site.name}"},
        payload={"verdict": judged.kind.value, "before": sorted(before), "findings": judged.lines()},
    )
