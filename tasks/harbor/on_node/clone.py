"""Replace a container by one that differs in its environment, through the Docker engine's own interface.

Compose does the same in two seconds, most of which it spends starting Python and reading files; those are
seconds in which nobody can push. Here the new container is made and started beside the old one, before the
outage, and the outage is a removal. It gets the hash that compose would have given it, so that compose finds
nothing to do afterwards.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List
from urllib.parse import quote

from tasks.harbor.on_node.containers import environment_of
from tasks.harbor.on_node.core_hash import core_hash
from tasks.harbor.on_node.engine import EngineRefused, described, engine, remove
from tasks.harbor.on_node.next_core import NEXT, drop_next_core

HASH_LABEL = "com.docker.compose.config-hash"


def clone_of(old: Dict[str, Any], changes: Dict[str, str], config_hash: str) -> Dict[str, Any]:
    """Describe a container that equals another but for some variables of its environment.

    No engine starts it by itself: after a reboot there would be two of one name. `switch` gives it the old one's way.
    """
    config = dict(old["Config"])
    own_id = old["Id"][:12]
    environment = dict(environment_of(old), **changes)
    config["Env"] = [name + "=" + value for name, value in environment.items()]
    config["Labels"] = dict(config.get("Labels") or {}, **{HASH_LABEL: config_hash})
    if config.get("Hostname") == own_id:
        del config["Hostname"]
    config["HostConfig"] = dict(old["HostConfig"], RestartPolicy={"Name": "no", "MaximumRetryCount": 0})
    config["NetworkingConfig"] = {"EndpointsConfig": dict(endpoints_of(old)[:1])}
    return config


def endpoints_of(old: Dict[str, Any]) -> List[Any]:
    """List a container's networks with its names in them, without the name that is its own id."""
    own_id = old["Id"][:12]
    found = []
    for network, endpoint in sorted((old["NetworkSettings"]["Networks"] or {}).items()):
        aliases = [alias for alias in endpoint.get("Aliases") or [] if alias != own_id]
        found.append((network, {"Aliases": aliases, "IPAMConfig": endpoint.get("IPAMConfig")}))
    return found


def stage(home: str, name: str, changes: Dict[str, str]) -> bool:
    """Make core's next container, not started. False when there is no old one to make it from."""
    old, ready = described(name), described(name + NEXT)
    if old is None:
        drop_next_core()
        return False
    if ready is not None:
        environment = environment_of(ready)
        if all(environment.get(variable) == value for variable, value in changes.items()):
            return True
        drop_next_core()
    config_hash = core_hash(home)
    # Engines before API 1.44 take one network here; the others are connected afterwards.
    engine("POST", "/containers/create?name=" + quote(name + NEXT), clone_of(old, changes, config_hash))
    for network, endpoint in endpoints_of(old)[1:]:
        body = {"Container": name + NEXT, "EndpointConfig": endpoint}
        engine("POST", "/networks/" + quote(network) + "/connect", body)
    return described(name + NEXT) is not None


def start_next(name: str) -> bool:
    """Start the next container beside the old one, which goes on; False when it runs already."""
    ready = described(name + NEXT)
    if ready is not None and ready["State"]["Running"]:
        return False
    engine("POST", "/containers/" + quote(name + NEXT) + "/start")
    return True


def switch(name: str) -> None:
    """Put the next container, which is started if it does not run, in the place of the old one.

    Raises:
        EngineRefused: there may be either of them, both or none.
    """
    old = described(name) or {}
    # Removed, not only killed: with `restart: always` the engine would start it again at its own next start,
    # and then two cores would answer to one name, one of them with the old database. For the same reason the next
    # one is started at boot from then on only. At the same time, as a removal and a start take half a second each.
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(remove, name)
        start_next(name)
        removal.result()
    there = "/containers/" + quote(name + NEXT)
    policy = {"RestartPolicy": old["HostConfig"]["RestartPolicy"]} if old else None
    for asked, body in (("/update", policy), ("/rename?name=" + quote(name), None)):
        if engine("POST", there + asked, body) is None:
            raise EngineRefused("The next container is gone.")
