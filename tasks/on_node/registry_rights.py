"""What Harbor's registry must be able to do with the image data, asked as the user that it runs as.

Everything else of Harbor works without it: a site whose images belonged to root was healthy by all its checks, and
every push ended with 500.
"""

import os
from typing import List

# Of every container of Harbor's that writes to a volume.
HARBOR_UID = 10000
# Beside the top: what an upload writes into. One level of repositories is the projects.
_ASKED = """
for d in . docker docker/registry docker/registry/v2 docker/registry/v2/blobs docker/registry/v2/blobs/sha256 \
    docker/registry/v2/repositories docker/registry/v2/repositories/*; do
  [ -e "$d" ] || continue
  { [ -d "$d" ] && [ -r "$d" ] && [ -w "$d" ] && [ -x "$d" ]; } || printf '%s\\n' "$d"
done | head -n 100
"""
# The container sees the directory itself and nothing above it, so only root has to come as far as that. Root may write
# everywhere on a local disk and nowhere on an NFS server that squashes it: only the user itself can be asked.
_ENTER = '[ -d "$1" ] || { echo -; exit 0; }; cd "$1" && shift && exec "$@"'


def rights_command(registry: str) -> List[str]:
    """Give the command that prints what the registry's user may not use; for a process of its own, as NFS hangs.

    Args:
        registry: the directory on the NAS that is /storage in the registry's container.
    """
    user = ["setpriv", "--reuid=%d" % HARBOR_UID, "--regid=%d" % HARBOR_UID, "--clear-groups"]
    asked = (user if os.geteuid() == 0 else []) + ["sh", "-c", _ASKED]
    return ["sh", "-c", _ENTER, "sh", registry] + asked


def denied_paths(printed: str, registry: str) -> List[str]:
    """Read what the command printed: what the registry's user may not use."""
    if printed.strip() == "-":
        return [registry + " (missing)"]
    return [os.path.normpath(registry + "/" + line) for line in printed.splitlines()]
