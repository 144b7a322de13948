"""After a restore: the old machines find, when they come back, which database the site has now."""

from blocks import HarborSite
from tasks.backup.restore.on_node import tell_restored
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.run_on_node import run_on_node

_TELL_RESTORED = node_program(tell_restored)


def tell(site: HarborSite, host: Host) -> Outcome:
    """Record on the node and on the NAS that its database is the site's from now on.

    Returns:
        data: `shared`: whether the NAS has it. Without it an old machine that boots does not know.
    """
    answer = run_on_node(site, host, _TELL_RESTORED, limit=60)
    whose = f"{host.name} with the database {answer['sysid']} on timeline {answer['timeline']}"
    if answer["shared"]:
        said = changed if answer["changed"] else unchanged
        return said(f"the NAS tells that the site is {whose}", shared=True)
    return changed(f"the site is {whose}; the NAS could not be told", shared=False)
