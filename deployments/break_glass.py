"""Run a flow in this process, without Prefect: for the night on which its server, or the server's database, is dead.

The same function as in the deployment, with the same parameters, locks and terms. Prefect's own way without a server,
to start one for the process, takes longer than a whole failover and needs a disk that can be written.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from prefect import Flow
from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError
from prefect.utilities.schema_tools import validate

from blocks.store import read_copy, remember
from deployments import kept_runs
from deployments.catalogue import entry
from deployments.kept_runs import KeptRun
from deployments.runs import Deployment, FlowRun, RunRefused, for_terminal, parse_parameters
from flows.machinery.around import without_prefect
from flows.machinery.ending import Alarming, state_of
from tasks.errors import HarborHaError

# What brings a site back, and what is asked before and after it. The others can wait for Prefect.
FLOWS = ("failover", "switchover", "rejoin", "disaster-restore", "check", "pause")
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

logger = logging.getLogger("harbor_ha.run")


def run_without_prefect(name: str, site: str, given: Iterable[str]) -> FlowRun:
    """Run a flow to its end; tell its lines on the standard error and its report on the standard output.

    Args:
        name: of the deployment.
        site: name of a site of which a local copy is here.
        given: further parameters, `key=value` each.

    Returns:
        how it ended, as a watched run in Prefect would have.

    Raises:
        RunRefused: no such flow, or parameters that it does not take; nothing was done.
        SiteUnknown: no local copy of the site can be read.
    """
    flow, parameters = prepared(name, site, given)
    remember(read_copy(site))
    run = kept_runs.note(kept_runs.begin(name.replace("_", "-"), site))
    texts: list[str] = []

    def keep(key: str, headline: str, text: str) -> None:
        nonlocal run
        texts.append(for_terminal(text))
        run = replace(run, reports=(*run.reports, (key, headline)))
        kept_runs.keep(run, ".md", text)

    with _logged(run):
        logger.warning(
            "This run is not in Prefect: nobody sees it in the UI. Its lines are in %s, its report will be in %s; the "
            "report is shown in Prefect by the next harbor-ha run, setup or serve that reaches it.",
            run.log,
            run.report,
        )
        with without_prefect(logger, keep):
            ended = _ended(lambda: flow.fn(**parameters))
    run = kept_runs.note(
        replace(run, state=ended.state, ending=ended.ending, headline=ended.message.partition("\n")[0])
    )
    print("\n".join(texts))
    return replace(ended, id=run.name, name=f"{run.flow} of {site} (without Prefect)")


def prepared(name: str, site: str, given: Iterable[str]) -> tuple[Flow[..., Any], dict[str, Any]]:
    """Find a flow and read its parameters as its deployment does. Raises RunRefused."""
    wanted = name.replace("_", "-")
    if wanted not in FLOWS:
        raise RunRefused(f"{wanted} does not run without Prefect. What does: {', '.join(FLOWS)}")
    known = entry(wanted)
    flow = known.flow()
    schema = flow.parameters.model_dump()
    deployment = Deployment("", wanted, schema["properties"])
    parameters = known.parameters | parse_parameters(deployment, [f"site={site}", *given])
    wrong = [_mistake(problem) for problem in validate(parameters, schema)]
    if wrong:
        raise RunRefused(f"{wanted} does not take these parameters: {'; '.join(wrong)}")
    try:
        return flow, flow.validate_parameters(parameters)
    except (ParameterTypeError, ParameterBindError, SignatureMismatchError) as error:
        raise RunRefused(f"{wanted} does not take these parameters: {error}") from error


def _mistake(problem: Any) -> str:
    where = ".".join(str(part) for part in problem.path)
    return f"{where}: {problem.message}" if where else str(problem.message)


def _ended(work: Callable[[], dict[str, Any]]) -> FlowRun:
    try:
        state = state_of(work)
    except HarborHaError as error:
        logger.error("%s", error)
        return FlowRun("", "", "FAILED", str(error), "Failed")
    except Exception as error:
        logger.exception("a defect")
        return FlowRun("", "", "FAILED", f"{type(error).__name__}: {error}", "Crashed")
    found = state.data.result if isinstance(state.data, Alarming) else state.data
    if isinstance(found, Exception):
        logger.error("%s", found)
    return FlowRun("", "", state.type.value, str(state.message or ""), str(state.name or ""))


class _File(logging.StreamHandler[Any]):
    """The lines of a run in its file. A disk that is full must not fill the terminal with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out; it is on the terminal."""


@contextlib.contextmanager
def _logged(run: KeptRun) -> Iterator[None]:
    """Have the lines of the flow, and what else this program says, on the terminal and in the run's file."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    with contextlib.ExitStack() as stack:
        try:
            run.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handlers.append(_File(stack.enter_context(kept_runs.open_private(run.log))))
        except OSError as error:
            print(f"{run.log} cannot be written: {error.strerror}", file=sys.stderr)
        top = logging.getLogger()
        before = top.handlers[:]
        for handler in handlers:
            handler.setFormatter(logging.Formatter(LOG_FORMAT))
        # In place of the command line's own: a line would be told twice.
        top.handlers[:] = handlers
        level, logger.level = logger.level, logging.INFO
        try:
            yield
        finally:
            top.handlers[:] = before
            logger.setLevel(level)
