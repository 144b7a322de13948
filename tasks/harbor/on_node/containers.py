"""Harbor's containers on this node, through the docker program: a tenth of compose's second for each call."""

import contextlib
import http.client
import json
import os
import socket
import ssl
from typing import Any, Dict, List, NamedTuple, Optional

from tasks.harbor.on_node.engine import EngineRefused
from tasks.harbor.on_node.next_core import NEXT, drop_next_core
from tasks.on_node.lib import compose_command, must, poll, read, run, state

STARTED = "harbor_started.json"
# Of harbor-log, on this machine; all other containers log to it.
LOG_PORT = 1514


class Found(NamedTuple):
    """One container: its compose service, name, id, and whether it runs."""

    service: str
    name: str
    id: str
    running: bool


def containers(home: str) -> Dict[str, Found]:
    """List the containers of the Harbor in a directory, by service; a next core is none of them yet."""
    # By directory, not by project: compose 1 and 2 make the project's name differently from the directory.
    label = "label=com.docker.compose.project.working_dir=" + home
    form = '{{.Label "com.docker.compose.service"}}\t{{.Names}}\t{{.ID}}\t{{.Status}}'
    out = must(["docker", "ps", "--all", "--no-trunc", "--filter", label, "--format", form], 30)
    found = {}
    for line in out.splitlines():
        service, name, number, status = line.split("\t")
        if not name.endswith(NEXT):
            found[service] = Found(service, name, number, status.startswith("Up") and "Paused" not in status)
    return found


def compose(home: str, words: List[str], timeout: float) -> str:
    """Run compose in Harbor's directory; its output. Ends the program when it fails."""
    if words[0] in ("up", "down"):
        with contextlib.suppress(EngineRefused):
            drop_next_core()
    known = state(STARTED).get("compose")
    return must([*(known or compose_command()), *words], timeout, home)


def inspect(name: str) -> Optional[Dict[str, Any]]:
    """Read a container's description; None when there is no such container."""
    status, out, _ = run(["docker", "inspect", "--type", "container", name], 20)
    return json.loads(out)[0] if status == 0 else None


def environment_of(description: Dict[str, Any]) -> Dict[str, str]:
    """Read the environment that a container was created with."""
    pairs = [item.partition("=") for item in description["Config"]["Env"] or []]
    return {name: value for name, _, value in pairs}


def address_of(description: Dict[str, Any]) -> str:
    """Read a container's address in its network; "" when it does not run, or is not there."""
    networks = description.get("NetworkSettings", {}).get("Networks") or {}
    return next((str(net["IPAddress"]) for net in networks.values() if net.get("IPAddress")), "")


def core_answers(address: str) -> bool:
    """Ask core itself: nginx may still look for it at its old address."""
    connection = http.client.HTTPConnection(address, 8080, timeout=2)
    try:
        connection.request("GET", "/api/v2.0/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def core_runs(name: str) -> bool:
    """Tell whether a container is a core that answers."""
    description = inspect(name)
    return description is not None and core_answers(address_of(description))


def proxy_lost_core(port: int, core: Optional[str]) -> bool:
    """Tell whether core answers, and nginx looks for it where it was before.

    A core that was stopped and started may have another address; until nginx looks again it answers 502, or 404
    when another of Harbor's containers has got the old one.

    Args:
        port: nginx's on this machine.
        core: the name of core's container.
    """
    if core is None or not core_runs(core):
        return False
    # The node's own loopback; what is asked for is a status.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    try:
        connection.request("GET", "/api/v2.0/ping")
        return connection.getresponse().status != 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def port_open(port: int) -> bool:
    """Tell whether something listens on this machine's loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def reload_proxy(name: str) -> str:
    """Make nginx look up core again: it resolves the name once, and a new container has a new address.

    A reload takes a tenth of a second and cuts no connection; a restart is for an nginx that cannot reload.
    """
    if run(["docker", "exec", name, "nginx", "-s", "reload"], 10)[0] == 0:
        return "reloaded"
    must(["docker", "restart", "-t", "1", name], 60)
    return "restarted"


def forget_address(name: str, address: str) -> None:
    """Have a container notice at once that nobody has an address any more.

    Its kernel remembers for up to 40 s where a neighbour was, and what nginx sends to a core that is gone is lost
    without a word: seen, a push hung for over 6 s, until after the next core had answered. Forgotten, and asked for
    three times within 0.3 s, it is "no route to host", and the client tries again. Only speed: what fails is left.
    """
    description = inspect(name)
    pid = description["State"]["Pid"] if description else 0
    if not pid or not address:
        return
    inside = ["nsenter", "--net", "--target", str(pid), "ip"]
    try:
        table = (read("/proc/" + str(pid) + "/net/dev") or b"").decode("utf-8", "replace")
    except OSError:
        return
    for device in [line.partition(":")[0].strip() for line in table.splitlines() if ":" in line]:
        if device != "lo":
            quick = ["ntable", "change", "name", "arp_cache", "dev", device, "retrans", "100"]
            run(inside + quick, 3)
            run([*inside, "neigh", "del", address, "dev", device], 3)


def require_log() -> None:
    """End the program when harbor-log does not listen: whatever starts before it dies of "connection refused"."""
    if not poll(lambda: port_open(LOG_PORT), 30):
        raise SystemExit(f"harbor-log does not listen on 127.0.0.1:{LOG_PORT}.")


def require_nas(path: str) -> None:
    """End the program when the NAS is not mounted: pushes would go to this node's own disk."""
    if not os.path.ismount(path):
        raise SystemExit("The NAS is not mounted at " + path + "; Harbor was not started.")
