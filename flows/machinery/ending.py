"""How a run of a flow ended, as the name of its state: for who looks at a list of runs, and for the command line."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, cast

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from blocks import SiteUnknown
from tasks.backup.night.lock import LockedByAnother
from tasks.errors import HarborHaError, Refused
from tasks.operation.store import LockHeld

# Beside Prefect's own: what a run that worked found.
NOTHING_TO_DO, DRY_RUN = "Nothing to do", "Dry run"
REFUSED = "Refused"
# Raised before the first change; what takes a lock away later has another name.
_REFUSALS = (Refused, LockHeld, LockedByAnother, SiteUnknown)

P = ParamSpec("P")


class Alarming(HarborHaError):
    """The flow did its work, and what it found must not look like success: a check of a site that is down.

    Attributes:
        result: of the flow.
    """

    def __init__(self, headline: str, result: dict[str, Any]) -> None:
        self.result = result
        super().__init__(headline)


def ends_named(function: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """Give a flow's run the state that its result names, and its headline as the message.

    A refusal is a normal result: it ended as a traceback of an exception, and a check of a site that was down as
    Completed. Called outside of a run, the function is as it was.

    Args:
        function: a flow's; its result has `headline` and `state`, and `alarming` where that is no success.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        if FlowRunContext.get() is None:
            return function(*args, **kwargs)
        state = state_of(lambda: function(*args, **kwargs))
        if state.name == REFUSED:
            # The page of a run shows its log first, and the message of its state on another leaf only.
            get_run_logger().error(state.message)
        # Prefect takes a state for the result that it holds.
        return cast("dict[str, Any]", state)

    return call


def state_of(work: Callable[[], dict[str, Any]]) -> Any:
    """Do a flow's work and return Prefect's state for how it ended; made here, no server is asked.

    Raises:
        whatever the work raises that is no refusal.
    """
    try:
        result = work()
    except _REFUSALS as refused:
        return Failed(name=REFUSED, message=str(refused), data=refused)
    name, headline = str(result["state"]), str(result["headline"])
    if result.get("alarming"):
        return Failed(name=name, message=headline, data=Alarming(headline, result))
    return Completed(name=name, message=headline, data=result)
