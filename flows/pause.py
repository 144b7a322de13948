"""The maintenance switch: what an alert starts does nothing while the site is paused."""

from typing import Any

from prefect import flow

from flows.machinery.ending import ends_named
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from tasks.errors import Refused
from tasks.operation import steps as operation
from tasks.operation.files import PAUSED
from tasks.outcome import Outcome
from tasks.step import Step


@flow(name="pause", flow_run_name="pause of {site}")
@ends_named
def pause(site: str, reason: str = "maintenance", by: str = "", end: bool = False) -> dict[str, Any]:
    """Pause the site for maintenance, or end the pause.

    While it is paused, failover does nothing and says so; flows that an operator starts refuse.

    Args:
        site: Name of the saved site.
        reason: What is being done; every flow that holds back shows it.
        by: Who pauses it.
        end: End the pause instead.
    """
    run = Protocol.begin("pause", site)
    work = Operation.begin(run)
    every = work.seen.every
    # One of them is enough, and the next one is asked when the first cannot.
    mounted = [work.path(node) for node in every if node.reachable and node.nas_mounted]
    if end:
        on_nas = _try_in_turn(run, operation.unshare_pause, mounted)
        if not on_nas and any(PAUSED in node.shared for node in every):
            raise Refused("The pause was not ended.", ["it is on the NAS too, which cannot be written now"])
        outcome = run.on(operation.unpause, *[node.name for node in every])
        return publish(run, f"{site}: {outcome.detail}.")
    by = by or "operator"
    outcome = run.on(
        operation.pause, *[work.path(node) for node in every if node.reachable], reason=reason, by=by
    )
    on_nas = _try_in_turn(run, operation.share_pause, mounted, reason=reason, by=by)
    return publish(run, headline(site, outcome, on_nas))


def _try_in_turn(run: Protocol, step: Step, paths: list[str], **plain: Any) -> bool:
    """Run a step on the first node that can do it; tell whether one could."""
    return any(run.try_each(step, [path], **plain)[0] for path in paths)


def headline(site: str, outcome: Outcome, on_nas: bool) -> str:
    """Say who holds the pause: it is lost with whoever alone holds it."""
    held, missed = list(outcome.data["written"]), list(outcome.data["missed"])
    held += ["the NAS"] if on_nas else []
    missed += [] if on_nas else ["the NAS"]
    text = f"{site} is paused on {', '.join(held)}" + (f", not on {', '.join(missed)}" if missed else "")
    if len(held) == 1:
        text += f"; when {held[0]} is lost, so is the pause"
    return f"{text}: an alert starts nothing until `pause` is run with `end`."
