"""The links of the images that a restored database refers to, made where Harbor's storage lacks them."""

from blocks import HarborSite
from tasks.backup.night.links import REGISTRY_ROOT
from tasks.backup.restore.application import as_application
from tasks.backup.restore.on_node import make_links
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_MAKE_LINKS = node_program(make_links)
_TIMEOUT_S = 48 * 3600.0


def make_missing_links(site: HarborSite, host: Host) -> Outcome:
    """Make the links that the database refers to and that the NAS lacks; what is there stays, so Harbor may run."""
    with as_application(site, host) as server:
        psql = ["runuser", "-u", server.user, "--", *server.psql(site.postgres.database)]
        given = {"root": f"{site.nas.registry}/{REGISTRY_ROOT}", "psql": psql}
        answer = host.python(_MAKE_LINKS, given, timeout=_TIMEOUT_S)
    text = f"{answer['made']} of {answer['links']} links were missing"
    return changed(text) if answer["made"] else unchanged(text)
