"""Prefect's own retries of a flow, with a condition: the run waits in the UI as AwaitingRetry, and begins anew."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from flows.rules.again import ATTEMPTS, FIRST_PAUSE_S, pause_before_another

# For @flow; `tried` sets the true pause, or takes the retries back.
RETRIES = ATTEMPTS - 1
RETRY_DELAY_S = FIRST_PAUSE_S


def tried(error: BaseException) -> bool:
    """Decide what follows a failed attempt and tell Prefect; True when it was the last one.

    A flow's retries know no condition, but its run has a policy of its own, which is asked when the run fails. Where
    the server does not take the change, the pauses of the flow's definition stand.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None:
        return True
    pause = pause_before_another(error, max(1, run.run_count))
    policy = FlowRunPolicy(retries=0) if pause is None else FlowRunPolicy(retries=RETRIES, retry_delay=pause)
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, empirical_policy=policy).raise_for_status()
    except Exception as problem:
        get_run_logger().warning("Prefect did not take the decision on another attempt: %s", problem)
    if pause is not None:
        get_run_logger().warning("Another attempt follows in %d minutes: %s", pause // 60, error)
    return pause is None
