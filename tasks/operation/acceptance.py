"""Who the primary is, written where a returning node finds it: the boot guard reads this."""

import json

from blocks import HarborSite
from tasks.hosts.connection import Host
from tasks.operation.files import ACCEPTED
from tasks.operation.store import put_state
from tasks.outcome import Outcome


def accept_primary(
    site: HarborSite, *hosts: Host, primary: str, timeline: int, system_identifier: str
) -> Outcome:
    """Write the accepted primary and its timeline on all nodes that can be reached.

    Raises:
        NotMirrored: on no node.
    """
    document = {"primary": primary, "timeline": timeline, "system_identifier": system_identifier}
    return put_state(site, *hosts, name=ACCEPTED, text=json.dumps(document, sort_keys=True) + "\n")
