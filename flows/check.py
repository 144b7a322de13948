"""How is the site? One parallel look, a real write, one verdict with its reasons; cheap enough for every minute."""

import json
import time
from concurrent.futures import Future
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from blocks import HarborSite
from flows.machinery.around import emit_event
from flows.machinery.ending import ends_named
from flows.machinery.one_run import one_run_a_site
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from flows.machinery.service import try_write, why
from flows.machinery.sight import last_primary
from flows.machinery.vision import blind, remember, sightings
from flows.pictures.site import site_picture
from flows.rules.policy import policy_of
from flows.rules.table import Decision
from flows.rules.topology import topology
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.balancer.states import Served
from tasks.fencing.rehearsal import REHEARSAL_S, fence_trouble
from tasks.guard.install import guard_version
from tasks.observation.budget import answer_or, ask, wait_until
from tasks.observation.witnesses import Answers, ask_witnesses
from tasks.operation import steps as operation
from tasks.operation.files import VERDICT
from tasks.postgres import ha_steps as postgres

# Whoever looks at a list of runs, and a script that asks for the exit status, must not find these green.
ALARMING = (Verdict.DOWN, Verdict.SPLIT_BRAIN, Verdict.UNKNOWN)
# A write has two requests of 5 s each.
_WRITE_PATIENCE_S = 11.0


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
    # Meanwhile: where everything hangs, one time limit after the other makes the look too old to judge by.
    written = ask(("write", site), lambda: why(try_write(run)))
    rehearsed = ask(("rehearsal", site), lambda: fence_trouble(run.site))
    work = Operation.begin(run)
    # After the look, which lets each Harbor talk to Redis.
    names = [node.name for node in run.site.nodes]
    answers = run.watch("Ask the witnesses", lambda: ask_witnesses(run.site, names), describe_answers)
    write_error = run.watch(
        "Write through the load balancer", lambda: answer_of(written), lambda error: error or "ok"
    )
    note = sightings(run.site, work.seen, answers)
    unseeing = blind(run.site, work.seen, answers, note)
    judged = verdict(
        work.seen.every,
        {node.name: node.address for node in run.site.nodes},
        policy_of(run.site),
        clock.now(),
        write_error=write_error or None,
        balancer_up=served(run.site, answers),
        guard_version=guard_version(),
        blind_witnesses=unseeing,
        site=site,
    )
    # After the verdict, which must not wait for it.
    unfenceable = trouble_of(run, rehearsed)
    record_position(work)
    remember(work, note)
    announce(work, judged)
    text = f"{site} is {judged.kind}"
    headline = f"{text}: {judged.reasons[0]}" if judged.reasons else f"{text}."
    sections = {"Do now": [judged.first]} if judged.first else {}
    sections |= {"Found": judged.lines() or ["nothing to complain about"]}
    if unfenceable:
        sections["A failover could not switch these off"] = unfenceable
    if unseeing:
        sections["Witnesses that do not see, and have no vote"] = unseeing
    state = judged.kind.replace("_", " ").capitalize()
    rows = topology(work.seen.every, work.seen.databases, served(run.site, answers))
    result = publish(run, headline, sections, state=state, picture=lambda: site_picture(text, rows))
    alarming = judged.kind in ALARMING
    return {"verdict": judged.kind.value, "findings": judged.lines(), "alarming": alarming, **result}


def answer_of(written: "Future[str]") -> str:
    """Wait for the write; return why it failed, or nothing."""
    wait_until(written.done, lambda: [written], time.monotonic() + _WRITE_PATIENCE_S)
    return answer_or(written, lambda reason: f"load balancer: {reason}")


def trouble_of(run: Protocol, rehearsed: "Future[list[str]]") -> list[str]:
    """Wait for the rehearsal of the fence; return what it stumbled over. A fence command is not rehearsed."""
    if run.site.failover.fence_kind == "command":
        return []

    def answer() -> list[str]:
        wait_until(rehearsed.done, lambda: [rehearsed], time.monotonic() + REHEARSAL_S)
        return answer_or(rehearsed, lambda reason: [f"the fence could not be rehearsed: {reason}"])

    return run.watch(
        "Rehearse the fence", answer, lambda told: "; ".join(told) or "every node could be stopped"
    )


def served(site: HarborSite, answers: Answers) -> dict[str, bool] | None:
    """Say whom the load balancer serves; None when it cannot be asked."""
    ours = {node.name for node in site.nodes if node.runs_harbor}
    states = answers.balancer or {}
    return {name: state.served is Served.UP for name, state in states.items() if name in ours} or None


def describe_answers(answers: Answers) -> str:
    """Say in one line what the load balancer and Redis answered."""
    states = answers.balancer
    up = None if not states else {name: state.served is Served.UP for name, state in states.items()}
    clients = "cannot be asked" if answers.clients is None else f"has {len(answers.clients)} clients"
    return f"load balancer: {describe_served(up)}; Redis {clients}"


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
    kept = [node.state[VERDICT] for node in work.seen.every if VERDICT in node.state]
    # A damaged one is another one.
    before = {str(note.get("verdict")) if isinstance(note, dict) else "" for note in kept}
    if before == {judged.kind.value} or not work.paths():
        return
    text = json.dumps({"verdict": judged.kind.value, "since": time.time()}, sort_keys=True) + "\n"
    work.run.try_each(operation.put_state, work.paths()[:1], then=work.paths()[1:], name=VERDICT, text=text)
    emit_event(
        "harbor-ha.verdict",
        resource={"prefect.resource.id": f"harbor-ha.site.{work.run.site.name}"},
        payload={"verdict": judged.kind.value, "before": sorted(before), "findings": judged.lines()},
    )
