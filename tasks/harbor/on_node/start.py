"""Bring Harbor's containers up on this node, if they are not up with the present configuration."""

import glob
import json
import os
import sys
from typing import Any, Dict, List, Optional, Sequence

from tasks.harbor.on_node.containers import (
    STARTED,
    Found,
    compose,
    containers,
    inspect,
    proxy_lost_core,
    reload_proxy,
    require_log,
    require_nas,
)
from tasks.harbor.on_node.next_core import require_no_next_core
from tasks.on_node.jobservice import TWO_CORES, older_than_core
from tasks.on_node.lib import (
    compose_command,
    fingerprint,
    payload,
    read,
    record,
    reply,
    run,
    state,
)

# Of Harbor's own, what core looks at for its health, and what serves files; the rest has a database, or clients.
BEFORE_CORE = ("registry", "registryctl", "portal")


def start_inputs(home: str, instead: Optional[Dict[str, str]] = None) -> Dict[str, str]:
    """Hash what containers are made from: `compose`, which compose compares, and `files`, which it does not.

    Args:
        instead: texts that some files are to be taken for, by path.
    """
    texts = {path: text.encode("utf-8", "surrogateescape") for path, text in (instead or {}).items()}
    env = sorted(glob.glob(home + "/common/config/*/*env"))
    compose_files = [home + "/docker-compose.yml", home + "/docker-compose.override.yml"]
    others = []
    for directory, _, names in os.walk(home + "/common/config"):
        others += [os.path.join(directory, name) for name in names]
    others = sorted(set(others) - set(env))
    return {
        "compose": fingerprint(*[texts.get(path) or read(path) for path in compose_files + env]),
        "files": fingerprint(*[texts.get(path) or read(path) for path in others]),
    }


def all_run(home: str, seen: Dict[str, Found], later: Sequence[str] = ()) -> bool:
    """Tell whether everything runs that ran after the last start, from the same configuration.

    Args:
        later: services that are not asked for.
    """
    last = state(STARTED)
    wanted = last.get("services") or []
    running = {service for service, found in seen.items() if found.running}
    return bool(wanted) and set(wanted) <= running.union(later) and last.get("inputs") == start_inputs(home)


def other_subnet(home: str, seen: Dict[str, Found], subnet: str) -> bool:
    """Tell whether Harbor's network exists with another subnet than the pinned one; it cannot be changed."""
    label = "label=com.docker.compose.network=harbor"
    names = run(["docker", "network", "ls", "--filter", label, "--format", "{{.Name}}"], 20)[1].split()
    if not names or not seen:
        return False
    networks = json.loads(run(["docker", "network", "inspect", *names], 20)[1] or "[]")
    mine = {found.id for found in seen.values()}
    for network in networks:
        subnets = [config.get("Subnet") for config in network["IPAM"]["Config"] or []]
        if mine & set(network.get("Containers") or {}) and subnets != [subnet]:
            return True
    return False


def restart_kept(before: Dict[str, Found], after: Dict[str, Found], files_changed: bool) -> List[str]:
    """Restart what compose left alone although its files changed; compose looks at environments only."""
    kept = [s for s, found in after.items() if s in before and before[s].id == found.id and before[s].running]
    if files_changed:
        names = [after[service].name for service in kept if service != "log"]
        if names:
            run(["docker", "restart", "-t", "3", *names], 180)
        return [name + " restarted" for name in names]
    if "proxy" in kept and "core" not in kept:
        return [after["proxy"].name + " " + reload_proxy(after["proxy"].name)]
    return []


def find_core_again(seen: Dict[str, Found], port: int) -> List[str]:
    """Have nginx look up core when everything runs and it looks in the wrong place; what was done, for the report."""
    if "proxy" not in seen or "core" not in seen or not proxy_lost_core(port, seen["core"].name):
        return []
    return [seen["proxy"].name + " " + reload_proxy(seen["proxy"].name)]


def restart_behind(seen: Dict[str, Found]) -> List[str]:
    """Restart jobservice if it has run since before core was made.

    Compose leaves it alone when core's environment changes, and its jobs went on in the database of before.
    """
    core, jobs = [
        inspect(seen[service].name) if service in seen else None for service in ("core", "jobservice")
    ]
    if not older_than_core(core, jobs, state(TWO_CORES)):
        return []
    name = seen["jobservice"].name
    run(["docker", "restart", "-t", "1", name], 60)
    return [name + " restarted"]


def start_stopped(home: str, seen: Dict[str, Found], later: Sequence[str] = ()) -> List[str]:
    """Start the containers that stand still where none has to be made or changed; the names of those started.

    Compose takes two seconds for it. None are started where compose has to make one, or one does not start.

    Args:
        later: services that are left as they are.
    """
    last = state(STARTED)
    wanted = last.get("services") or []
    if not wanted or not set(wanted) <= set(seen) or last.get("inputs") != start_inputs(home):
        return []
    # As compose does it: nginx ends where it does not find core, jobservice asks core first of all.
    order = {"jobservice": 1, "proxy": 2}
    in_order = sorted(wanted, key=lambda service: order.get(service, 0))
    stopped = [seen[s].name for s in in_order if not seen[s].running and s not in later]
    if not stopped:
        return []
    if start_log(seen) or run(["docker", "start", *stopped], 120)[0]:
        return []
    return stopped


def start_log(seen: Dict[str, Found]) -> str:
    """Start the log container and wait for it, where it is there; what keeps it from starting, or nothing.

    All others log to it through its port, and docker does not try again what came too early.
    """
    if "log" not in seen:
        return ""
    if not seen["log"].running:
        status, _, told = run(["docker", "start", seen["log"].name], 60)
        if status:
            return seen["log"].name + ": " + told.strip()[-300:]
    require_log()
    return ""


def need_log(seen: Dict[str, Found]) -> None:
    """Start the log container, or end the program with what keeps it from starting."""
    problem = start_log(seen)
    if problem:
        sys.exit("The container that all others log to does not start: " + problem)


def start(given: Dict[str, Any]) -> Dict[str, Any]:
    """Start what does not run. The answer tells what was created, restarted or reloaded."""
    home = given["install_dir"]
    require_nas(given["nas"])
    # Of a failover that was killed, or did not reach this node when it was taken back.
    require_no_next_core()
    before, started = containers(home), []
    if not all_run(home, before):
        started = start_stopped(home, before)
        before = containers(home) if started else before
    if not all_run(home, before):
        return start_by_compose(given, before)
    restarted = restart_behind(before) + find_core_again(before, given["https_port"])
    changed = bool(started or restarted)
    return {"changed": changed, "services": sorted(before), "created": [], "restarted": restarted}


def start_by_compose(given: Dict[str, Any], before: Dict[str, Found]) -> Dict[str, Any]:
    """Have compose make and start what is missing or was changed."""
    home = given["install_dir"]
    last = state(STARTED)
    command = compose_command()
    record(STARTED, {"compose": command})
    if other_subnet(home, before, given["subnet"]):
        # Containers that the new file does not name, such as a bundled database, hold on to the network too.
        compose(home, ["down", "--remove-orphans"], given["timeout"])
    # All others log to this one through its port, and docker does not try again what came too early.
    compose(home, ["up", "-d", "log"], given["timeout"])
    require_log()
    compose(home, ["up", "-d", "--remove-orphans"], given["timeout"])
    after = containers(home)
    inputs = start_inputs(home)
    files_changed = (last.get("inputs") or {}).get("files") != inputs["files"]
    restarted = restart_kept(before, after, files_changed) + restart_behind(after)
    record(STARTED, {"compose": command, "services": sorted(after), "inputs": inputs})
    created = [s for s in after if s not in before or before[s].id != after[s].id]
    return {"changed": True, "services": sorted(after), "created": sorted(created), "restarted": restarted}


def start_before_core(given: Dict[str, Any]) -> Dict[str, Any]:
    """Start what core looks at and what has no database, where it is there and stopped; make nothing anew.

    Core looks at its components when it starts and every ten seconds, and tells what it saw last: a registry that came
    up a second after it kept a node from its clients for ten.
    """
    require_nas(given["nas"])
    seen = containers(given["install_dir"])
    names = [seen[service].name for service in BEFORE_CORE if service in seen and not seen[service].running]
    if names:
        need_log(seen)
        status, _, told = run(["docker", "start", *names], 60)
        if status:
            sys.exit("These containers do not start: " + ", ".join(names) + ": " + told.strip()[-300:])
    return {"changed": bool(names), "started": names}


def stop(given: Dict[str, Any]) -> Dict[str, Any]:
    """Stop all containers; core first, so that nothing is accepted that the others could not finish."""
    require_no_next_core()
    running = [found for found in containers(given["install_dir"]).values() if found.running]
    order = {"proxy": 0, "core": 1, "jobservice": 2, "log": 9}
    names = [found.name for found in sorted(running, key=lambda found: order.get(found.service, 5))]
    if names:
        run(["docker", "stop", "-t", str(given["grace"]), *names], given["timeout"])
    left = [found.name for found in containers(given["install_dir"]).values() if found.running]
    if left:
        sys.exit("These containers do not stop: " + ", ".join(left))
    return {"changed": bool(names), "stopped": names}


if __name__ == "__main__":
    given_now = payload()
    reply({"stop": stop, "before_core": start_before_core}.get(given_now.get("part"), start)(given_now))
