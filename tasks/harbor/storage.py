"""Image data on the NAS: every node's registry writes to the same directory, or not at all."""

from blocks import HarborSite
from tasks.harbor.on_node import storage as program
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_PROGRAM = node_program(program)


def bind_registry(site: HarborSite, host: Host) -> Outcome:
    """Give `<nas>/registry` to the registry's user and bind it to `<data_volume>/registry`, in fstab too.

    The containers use the NAS's path itself (see tasks/harbor/override.py), so that they cannot start on an
    empty directory; the bind makes the data appear where Harbor's documentation says it is.

    Raises:
        RemoteCommandFailed: the NAS is not mounted, the local directory already has images in it, or the image data
            belongs to somebody else and cannot be given back to the registry's user.
    """
    target = f"{site.harbor.data_volume.rstrip('/')}/registry"
    given = {"nas": site.nas.path.rstrip("/"), "target": target}
    done = host.python(_PROGRAM, given, timeout=program.REPAIR_S * 2 + 300)
    return changed(", ".join(done)) if done else unchanged(f"{target} is the NAS's registry directory")
