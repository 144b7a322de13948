"""The maintenance switch: what an alert starts does nothing while the site is paused."""

from typing import Any

from prefect import flow

from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish
from tasks.operation import steps as operation


@flow(name="pause", flow_run_name="pause of {site}")
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
    if end:
        outcome = run.on(operation.unpause, *[node.name for node in work.seen.nodes])
        return publish(run, f"{site}: {outcome.detail}.")
    outcome = run.on(operation.pause, *work.paths(), reason=reason, by=by or "operator")
    missed = f", except {', '.join(outcome.data['missed'])}" if outcome.data["missed"] else ""
    told = f"{site} is paused{missed}: an alert starts nothing until `pause` is run with `end`."
    return publish(run, told)
