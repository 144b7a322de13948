"""Look at the Docker engine of this node."""

import os
import shutil
from typing import Any, Dict, List, Optional

from tasks.on_node.lib import payload, reply, run
from tasks.on_node.package_states import half_installed

# Ubuntu's installer offers Docker as a snap; a shell that nobody has logged in to has not its directory on the path.
SNAP = "/snap/bin/docker"


def observe(packages: List[str]) -> Dict[str, Any]:
    """Find the engine, its client, compose in both its forms, and whether the engine answers and starts at boot.

    Args:
        packages: those that any of them may have come with.
    """
    client = shutil.which("docker")
    engine = said(["docker", "version", "--format", "{{.Server.Version}}"])
    # The client alone is no engine; a snap shows no other program than the client.
    if engine is None and (shutil.which("dockerd") or (client or "").startswith("/snap/")):
        engine = ""
    return {
        "engine": engine,
        "client": client is not None,
        "compose_plugin": said(["docker", "compose", "version", "--short"]),
        "compose_v1": said(["docker-compose", "version", "--short"]),
        "enabled": run(["systemctl", "is-enabled", "--quiet", "docker"], 20)[0] == 0,
        "half_installed": half_installed(packages),
        "snap": os.path.exists(SNAP),
    }


def said(argv: List[str]) -> Optional[str]:
    """Read what a program says of its version; None when it is not there or does not end well."""
    status, out, _ = run(argv, 20)
    return out.strip() if status == 0 else None


if __name__ == "__main__":
    reply(observe(payload()["packages"]))
