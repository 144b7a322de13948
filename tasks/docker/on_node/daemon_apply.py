"""Make the running Docker engine take over a daemon.json that was just written."""

import json
import sys
from typing import List

from tasks.on_node.lib import must, payload, poll, reply, run


def in_force(mirrors: List[str], insecure: List[str]) -> bool:
    """Tell whether the engine uses the settings."""
    status, out, _ = run(["docker", "info", "--format", "{{json .RegistryConfig}}"], 20)
    if status != 0:
        return False
    config = json.loads(out) or {}
    used = {mirror.rstrip("/") for mirror in config.get("Mirrors") or []}
    known = set(config.get("IndexConfigs") or {}) | set(config.get("InsecureRegistryCIDRs") or [])
    return {mirror.rstrip("/") for mirror in mirrors} <= used and set(insecure) <= known


def apply(mirrors: List[str], insecure: List[str]) -> str:
    """Reload, and restart only if that was not enough: a restart stops every container of the node."""
    if in_force(mirrors, insecure):
        return ""
    must(["systemctl", "reload-or-restart", "docker"], 120)
    if poll(lambda: in_force(mirrors, insecure), 10, 0.2):
        return "reloaded"
    must(["systemctl", "restart", "docker"], 180)
    if not poll(lambda: in_force(mirrors, insecure), 60, 0.2):
        sys.exit(
            "Docker does not use the new daemon.json: "
            + run(["journalctl", "-u", "docker", "-n", "20"], 20)[1]
        )
    return "restarted"


if __name__ == "__main__":
    given = payload()
    reply({"how": apply(given["registry_mirrors"], given["insecure_registries"])})
