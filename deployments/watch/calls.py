"""Tell Prefect: start the deployment `failover`, and that a verdict has changed. No call while nothing changes."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import httpx

from blocks.prefect_api import client_options
from deployments.attempts import PrefectTrouble, start_attempt
from deployments.events import VERDICT, tell
from flows.rules.watch import Order

_LIMIT_S = 5.0

# Starts the failover of a site and returns the id of its flow run; raises PrefectTrouble or AlertRefused.
Start = Callable[[str, Order], str]


def start_failover(site: str, order: Order) -> str:
    """Start the deployment `failover`, or find the run that another watcher started a moment ago.

    Returns:
        the id of the flow run, new or old.

    Raises:
        PrefectTrouble: Prefect does not answer, or nobody has served the flows yet.
        AlertRefused: it does not take the parameters.
    """
    parameters = {"site": site, "expected_primary": order.expected_primary, "reason": order.reason}

    async def call() -> str:
        async with httpx.AsyncClient(**client_options(_LIMIT_S)) as api:
            attempts = f"watch-{site}-{order.outage}"
            return await start_attempt(api, "failover", parameters, attempts, ["watcher"], datetime.now(UTC))

    return asyncio.run(call())


def tell_verdict(site: str, verdict: str, before: Sequence[str], findings: Sequence[str]) -> None:
    """Send the event `harbor-ha.verdict`, as the flow `check` does.

    Raises:
        PrefectTrouble: Prefect did not take it.
    """
    payload = {"verdict": verdict, "before": list(before), "findings": list(findings)}
    try:
        with httpx.Client(**client_options(_LIMIT_S)) as api:
            tell(api, site, VERDICT, payload)
    except (httpx.HTTPError, ValueError) as error:
        raise PrefectTrouble(f"Prefect did not take an event: {type(error).__name__}") from error
