"""The NAS's copies of state files: for whoever was off when they were written, or when their only node died."""

import json

from blocks import HarborSite
from tasks import clock
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.on_node import shared_file
from tasks.operation.files import PAUSED
from tasks.outcome import Outcome, changed, unchanged

_SHARED_FILE = node_program(shared_file)
# Two accesses of two seconds each on the node, and the way there.
_LIMIT_S = 15.0


class NotShared(HarborHaError):
    """The NAS's copy of a state file could not be written or removed."""


def put_shared(site: HarborSite, host: Host, *, name: str, text: str | None) -> Outcome:
    """Write a state file on the NAS through a node, or remove it there.

    Args:
        host: a node that has the NAS mounted.
        name: from `tasks.operation.files`.
        text: its JSON; None removes it.

    Raises:
        NotShared: the NAS is not mounted there, does not answer, or cannot be written.
    """
    payload = {"nas_path": site.nas.path.rstrip("/"), "site": site.name, "name": name, "text": text}
    answer = host.python(_SHARED_FILE, payload, timeout=_LIMIT_S)
    if "problem" in answer:
        raise NotShared(
            f"{name}.json on the NAS: {answer['problem']}.",
            where=host.name,
            meaning="What it holds is known only to the nodes that were reached.",
            remedy="Look at the NAS, then run the flow again.",
        )
    said = changed if answer["changed"] else unchanged
    return said(f"{name}.json {answer['state']} on the NAS")


def share_pause(site: HarborSite, host: Host, *, reason: str, by: str) -> Outcome:
    """Keep the pause on the NAS too; see `put_shared`."""
    text = json.dumps({"reason": reason, "since": clock.now().wall, "by": by}, sort_keys=True) + "\n"
    return put_shared(site, host, name=PAUSED, text=text)


def unshare_pause(site: HarborSite, host: Host) -> Outcome:
    """Remove the pause from the NAS; see `put_shared`."""
    return put_shared(site, host, name=PAUSED, text=None)
