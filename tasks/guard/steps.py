"""What stands on the nodes without the orchestrator, as Prefect tasks."""

from tasks.guard import install
from tasks.step import step

install_guard = step(install.install_guard, "Install the boot guard")
accept_primary = step(install.accept_primary, "Record the accepted primary")
accept_running_primary = step(install.accept_running_primary, "Record the running primary")
