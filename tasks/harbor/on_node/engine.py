"""Ask the Docker engine through its own interface: a few milliseconds for each call, where its program takes fifty."""

import http.client
import json
import socket
from typing import Any, Dict, Optional
from urllib.parse import quote

SOCKET = "/var/run/docker.sock"


class EngineRefused(Exception):
    """The Docker engine did not do what it was asked."""


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the Docker engine's socket."""

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


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
