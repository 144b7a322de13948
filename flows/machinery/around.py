"""What a flow has around it: the log, the tasks, the reports and events of Prefect, or none of it.

Without Prefect a flow is the same function with the same steps, rules, locks and terms. Only what is here is another:
a step is called in place of its task, and a report goes to whoever runs the flow. Prefect's own way without a server
is to start one, on a database that has to be made first.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prefect import events
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from tasks.outcome import Outcome
from tasks.step import Step

# As many steps at once as the flows' task runners allow.
_AT_ONCE = 8

# Takes a report: its key, its headline, its Markdown. Raises OSError when it cannot be kept.
Keep = Callable[[str, str, str], None]
Pending = PrefectFuture[Outcome] | Future[Outcome]


@dataclass
class Alone:
    """What stands for Prefect in a process that runs one flow without it."""

    log: logging.Logger
    keep: Keep
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_AT_ONCE))


_alone: Alone | None = None


@contextlib.contextmanager
def without_prefect(log: logging.Logger, keep: Keep) -> Iterator[None]:
    """Run flows of this process without Prefect inside the `with`.

    Args:
        log: gets the flow's lines.
        keep: gets its reports.
    """
    global _alone
    _alone = alone = Alone(log, keep)
    try:
        yield
    finally:
        _alone = None
        alone.pool.shutdown(wait=False)


def with_prefect() -> bool:
    """Whether the flows of this process run in Prefect."""
    return _alone is None


def run_logger() -> "logging.Logger | logging.LoggerAdapter[logging.Logger]":
    """Return where a flow's lines go."""
    return get_run_logger() if _alone is None else _alone.log


def call(step: Step, site: str, nodes: Sequence[str], plain: dict[str, Any]) -> Outcome:
    """Run a step and wait for it."""
    run = step if _alone is None else step.fn
    return run(site, list(nodes), **plain)


def submit(step: Step, site: str, nodes: Sequence[str], plain: dict[str, Any]) -> Pending:
    """Run a step beside others."""
    if _alone is None:
        pending: PrefectFuture[Outcome] = step.submit(site, list(nodes), **plain)
        return pending
    return _alone.pool.submit(step.fn, site, list(nodes), **plain)


def hand_over(key: str, headline: str, text: str) -> None:
    """Hand a report over, as the artifact of this key or to whoever runs the flow; raises what keeps it from that."""
    if _alone is None:
        create_markdown_artifact(text, key=key, description=headline)
    else:
        _alone.keep(key, headline, text)


def emit_event(event: str, *, resource: dict[str, str], payload: dict[str, Any]) -> None:
    """Emit an event; without Prefect nobody listens, and it is a line in the log."""
    if _alone is None:
        events.emit_event(event, resource=resource, payload=payload)
    else:
        _alone.log.info("event %s, which nobody gets: %s", event, payload)
