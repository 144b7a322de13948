"""Runs begin in a process that has imported everything already.

Prefect starts a new Python for each run, which imports Prefect, the flows and the drivers: 4 s on a machine with
nothing else to do and 12 to 15 s on a busy one, in which a dead primary waited for its failover. Here a run is forked
from a server that has done that once (Python's own `multiprocessing` with the start method `forkserver`). The runner
itself is never forked: it has threads.
"""

import asyncio
import multiprocessing
import multiprocessing.forkserver
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment

PRELOADED = "deployments.preloaded"


class _ForkServerOnly:
    """Stands for the module `multiprocessing` in Prefect's flow engine, which asks it for "spawn" and nothing else."""

    @staticmethod
    def get_context(_method: str) -> ForkServerContext:
        return multiprocessing.get_context("forkserver")


def start_fork_server() -> None:
    """Start the server, which imports meanwhile, and let Prefect fork its runs from it.

    To be called once, when the settings are in the environment: what it has then is what its children have. A server
    that is killed is started again with the next run, which then waits for its imports as it did before.
    """
    import prefect.flow_engine

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    multiprocessing.forkserver.ensure_running()
    # Prefect has no setting for the start method; `test_warm` is red when it asks for it elsewhere.
    prefect.flow_engine.multiprocessing = _ForkServerOnly  # type: ignore[assignment,attr-defined]


def serve_warm(
    deployments: "Sequence[tuple[RunnerDeployment, Flow[..., object]]]", limit: int | None
) -> None:
    """Run what is due, until the process is told to stop; `start_fork_server` was called before.

    Args:
        deployments: each with its flow. Prefect's `serve` does not tell its runner which flow a deployment is, and one
            that does not know it starts a new Python.
        limit: how many runs at once; None: as many as are due.
    """
    from prefect.exceptions import TerminationSignal
    from prefect.runner import Runner

    # Prefect's default would pause every schedule when the service stops, and leave it paused afterwards.
    runner = Runner(pause_on_shutdown=False, limit=limit)
    for deployment, flow in deployments:
        # `Runner.add_flow` does these two, and takes no deployment that is made already.
        made = runner.add_deployment(deployment)
        assert isinstance(made, UUID)  # it is a coroutine only when called from one
        runner._deployment_registry.register_flow(made, flow)
    try:
        asyncio.run(runner.start())
    except (KeyboardInterrupt, TerminationSignal):
        print("harbor-ha: the runner was told to stop.", flush=True)
