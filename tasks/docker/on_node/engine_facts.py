"""Look at the Docker engine of this node."""

import shutil
from typing import Any, Dict, List, Optional

from tasks.on_node.lib import payload, reply, run
from tasks.on_node.package_states import half_installed


def observe(packages: List[str]) -> Dict[str, Any]:
    """Find the engine, compose in both its forms, and whether the engine answers and starts at boot.

    Args:
        packages: those that either may have come with.
    """
    engine: Optional[str] = None
    if shutil.which("docker"):
        status, out, _ = run(["docker", "version", "--format", "{{.Server.Version}}"], 20)
        engine = out.strip() if status == 0 else ""
    plugin = run(["docker", "compose", "version", "--short"], 20) if engine is not None else (127, "", "")
    return {
        "engine": engine,
        "compose_plugin": plugin[1].strip() if plugin[0] == 0 else None,
        "compose_v1": bool(shutil.which("docker-compose")),
        "enabled": run(["systemctl", "is-enabled", "--quiet", "docker"], 20)[0] == 0,
        "half_installed": half_installed(packages),
    }


if __name__ == "__main__":
    reply(observe(payload()["packages"]))
