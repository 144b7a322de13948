"""Replace a container by one that differs in its environment, through the Docker engine's own interface.

Compose does the same in two seconds, most of which it spends starting Python and reading files; those are
seconds in which nobody can push. Here the new container is made beside the old one, before the outage if
there is time, and the outage is a removal and a start. It gets the hash that compose would have given it, so
that compose finds nothing to do afterwards.
"""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional
from urllib.parse import quote

from tasks.harbor.on_node.containers import environment_of
from tasks.harbor.on_node.core_hash import core_hash

NEXT = ".next"
HASH_LABEL = "com.docker.compose.config-hash"


class EngineRefused(Exception):
    """The Docker engine did not do what it was asked."""


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the Docker engine's socket."""

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/var/run/docker.sock")


def engine(method: str, path: str, body: Any = None) -> Any:
    """Ask the Docker engine; None when there is no such thing."""
    connection = EngineConnection("docker", timeout=20)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise EngineRefused(str(error)) from error
    finally:
        connection.close()
    if answer.status == 404:
        return None
    if answer.status >= 300 and answer.status != 304:
        raise EngineRefused(f"{method} {path}: {answer.status} {text.strip()[:300]}")
    return json.loads(text) if text else {}


def described(name: str) -> Optional[Dict[str, Any]]:
    """Read a container's description; None when there is none of this name."""
    found = engine("GET", "/containers/" + quote(name) + "/json")
    return None if found is None else dict(found)


def remove(name: str) -> None:
    """Kill and remove a container, if there is one."""
    engine("DELETE", "/containers/" + quote(name) + "?force=1")


def clone_of(old: Dict[str, Any], changes: Dict[str, str], config_hash: str) -> Dict[str, Any]:
    """Describe a container that equals another but for some variables of its environment."""
    config = dict(old["Config"])
    own_id = old["Id"][:12]
    environment = dict(environment_of(old), **changes)
    config["Env"] = [name + "=" + value for name, value in environment.items()]
    config["Labels"] = dict(config.get("Labels") or {}, **{HASH_LABEL: config_hash})
    if config.get("Hostname") == own_id:
        del config["Hostname"]
    config["HostConfig"] = old["HostConfig"]
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
        remove(name + NEXT)
        return False
    if ready is not None:
        environment = environment_of(ready)
        if all(environment.get(variable) == value for variable, value in changes.items()):
            return True
        remove(name + NEXT)
    config_hash = core_hash(home)
    # Engines before API 1.44 take one network here; the others are connected afterwards.
    engine("POST", "/containers/create?name=" + quote(name + NEXT), clone_of(old, changes, config_hash))
    for network, endpoint in endpoints_of(old)[1:]:
        body = {"Container": name + NEXT, "EndpointConfig": endpoint}
        engine("POST", "/networks/" + quote(network) + "/connect", body)
    return described(name + NEXT) is not None


def switch(name: str, other_address: bool = False) -> None:
    """Put the next container in the place of the old one.

    Args:
        other_address: have it get another address than the old one, which is then removed after its start and not
            beside it; whoever keeps to the old address does not reach it.
    """
    # Removed, not only killed: with `restart: always` the engine would start it again at its own next start,
    # and then two cores would answer to one name, one of them with the old database. At the same time, as each
    # takes half a second; nginx does not look up the name before both are done.
    if other_address:
        engine("POST", "/containers/" + quote(name + NEXT) + "/start")
        remove(name)
    else:
        with ThreadPoolExecutor(1) as pool:
            removal = pool.submit(remove, name)
            engine("POST", "/containers/" + quote(name + NEXT) + "/start")
            removal.result()
    engine("POST", "/containers/" + quote(name + NEXT) + "/rename?name=" + quote(name))
