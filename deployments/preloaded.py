"""What the fork server of the runner imports before the first run is due: everything that a flow needs.

To be imported in that process only, and by its test: afterwards it must have the one thread that it began with, for a
fork of a process with two may hold a lock that nobody lets go.
"""

from importlib import import_module

from deployments.catalogue import CATALOGUE

# Prefect imports these when a run begins, and its engines bring a web framework with them: half a second of every
# failover, on two cores.
_BY_A_RUN = (
    "anyio._backends._asyncio",
    "fastapi.encoders",
    "prefect.concurrency.sync",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
)

FLOWS = tuple(entry.flow() for entry in CATALOGUE)
"""The flows, imported with all that they import; their programs for the nodes are made by that, too."""

for _name in _BY_A_RUN:
    import_module(_name)
