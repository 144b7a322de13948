"""A plain function of a site and its hosts becomes a Prefect task that takes their names.

Prefect stores what a task is called with and shows it, so a task takes names and plain values; the site with
its secrets, and the connections, are looked up inside.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from blocks import HarborSite, load_site
from tasks.again import Again
from tasks.hosts.connection import Host, connect
from tasks.operation.held import require_held
from tasks.outcome import Outcome

Step = Task[..., Outcome]


def step(
    function: Callable[..., Outcome], title: str, *, name: str | None = None, again: Again | None = None
) -> Step:
    """Wrap `function(site, *hosts, **plain)` as a task called with `(site_name, node_names, **plain)`.

    The task also takes `held`, the lock that its flow must still have (`tasks.operation.held`). It is asked for here,
    in the task: one that waited for a free thread, or is repeated by Prefect after a minute, asks when it begins.

    Args:
        function: does the work and says whether it changed anything.
        title: what the UI shows; the nodes are added to it.
        name: the task's name, if not the title.
        again: how Prefect repeats it by itself; None: never, whoever repeats it looks at the facts first.
    """

    def call(site: str, nodes: list[str], held: Mapping[str, Any] | None = None, **plain: Any) -> Outcome:
        loaded = load_site(site)
        if held is not None:
            require_held(loaded, held)
        return function(loaded, *(host_of(loaded, node) for node in nodes), **plain)

    def titled(parameters: dict[str, Any]) -> str:
        return f"{title}: {', '.join(parameters['nodes'])}" if parameters["nodes"] else title

    call.__name__ = function.__name__
    call.__doc__ = function.__doc__
    return task(
        name=name or title,
        task_run_name=titled,  # type: ignore[arg-type]
        cache_policy=NO_CACHE,
        persist_result=False,
        **_retries(again),
    )(call)


def _retries(again: Again | None) -> dict[str, Any]:
    if again is None:
        return {"retries": 0}

    def worth_it(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
        return isinstance(state.data, BaseException) and again.worth(state.data)

    return {
        "retries": len(again.pauses_s),
        "retry_delay_seconds": list(again.pauses_s),
        "retry_condition_fn": worth_it,
    }


def node_of(path: str) -> str:
    """Name the node of a path, which may say by which way it is reached: `node-a via node-b`."""
    return path.partition(" ")[0]


def host_of(site: HarborSite, node: str) -> Host:
    """Connect to `node-a`, or to `node-a via node-b` when only that way leads there."""
    name, _, jump = node.partition(" via ")
    return connect(site.node(name), via=site.node(jump) if jump else None)
