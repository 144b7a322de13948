"""Give the running Docker engine a daemon.json, and the one from before back when it does not take it."""

import ipaddress
import json
import os
import re
import sys
from typing import Any, Dict, List, Optional, Set

from tasks.on_node.lib import payload, poll, read, reply, run, write

# What stood there before, until the engine has taken the new one; empty for none.
BEFORE = ".harbor-ha-before"


def normal(registry: str) -> str:
    """Write a registry as the engine does: of a network the host bits are taken off."""
    try:
        return str(ipaddress.ip_network(registry, strict=False)) if "/" in registry else registry
    except ValueError:
        return registry


def in_force(mirrors: List[str], insecure: List[str]) -> bool:
    """Tell whether the engine uses the settings."""
    status, out, _ = run(["docker", "info", "--format", "{{json .RegistryConfig}}"], 20)
    if status != 0:
        return False
    try:
        config = json.loads(out) or {}
    except ValueError:
        return False
    used = {mirror.rstrip("/") for mirror in config.get("Mirrors") or []}
    known: Set[str] = set(config.get("IndexConfigs") or {}) | set(config.get("InsecureRegistryCIDRs") or [])
    wanted = {normal(registry) for registry in insecure}
    return {mirror.rstrip("/") for mirror in mirrors} <= used and wanted <= {normal(item) for item in known}


def objection(path: str) -> str:
    """Ask the engine's program what it has against a file; "" for nothing, or when it is from before 23.0."""
    status, out, err = run(["dockerd", "--validate", "--config-file", path], 30)
    if status in (0, 127) or "unknown flag" in out + err:
        return ""
    return told(out + err)


def told(said: str) -> str:
    """Give the lines in which Docker says what it does not take; without a password in an address."""
    lines = [
        line.strip()
        for line in said.splitlines()
        if re.search("invalid|conflict|unable|specified both", line)
    ]
    return re.sub(r"//[^/@\s]+@", "//...@", "; ".join(lines)[-600:])


def put_back(path: str) -> bool:
    """Restore the file from before, or none where there was none; whether there was something to restore."""
    before = read(path + BEFORE)
    if before is None:
        return False
    if before:
        write(path, before, 0o644, like=path)
    elif os.path.exists(path):
        os.unlink(path)
    os.unlink(path + BEFORE)
    return True


def give_up(path: str, why: str) -> None:
    """End the program with the file from before in its place and in force."""
    restored = "; the file from before was put back" if put_back(path) else ""
    status, out, err = run(["systemctl", "reload-or-restart", "docker"], 120)
    goes_on = "it runs with what it had" if status == 0 else "it does not run: " + told(out + err)
    because = " ({})".format(why) if why else ""
    sys.exit("Docker does not take {}{}{}, {}.".format(path, because, restored, goes_on))


def apply(given: Dict[str, Any]) -> str:
    """Write what is wanted, if anything, and have it taken over; how, "" for nothing to do.

    Never by a restart, which stops every container of the node; and with a file that the engine does not take it
    would not come back. At a reload it keeps what it has then, and every engine that Harbor runs on takes mirrors
    and insecure registries over at a reload.
    """
    path: str = given["path"]
    wanted: Optional[str] = given["wanted"]
    mirrors, insecure = given["registry_mirrors"], given["insecure_registries"]
    if wanted is None and in_force(mirrors, insecure):
        if os.path.exists(path + BEFORE):
            os.unlink(path + BEFORE)
        return ""
    if wanted is not None:
        # A copy that is there already is of a run that was killed.
        if not os.path.exists(path + BEFORE):
            write(path + BEFORE, read(path) or b"", 0o600)
        write(path, wanted.encode(), 0o644, like=path)
    why = objection(path)
    if why:
        give_up(path, why)
    status, out, err = run(["systemctl", "reload-or-restart", "docker"], 120)
    if status != 0 or not poll(lambda: in_force(mirrors, insecure), 15, 0.2):
        log = run(["journalctl", "-u", "docker", "-n", "40", "--no-pager"], 20)[1]
        give_up(path, told(out + err + log))
    if os.path.exists(path + BEFORE):
        os.unlink(path + BEFORE)
    return "reloaded"


if __name__ == "__main__":
    reply({"how": apply(payload())})
