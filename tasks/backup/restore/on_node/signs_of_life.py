"""Runs on the machine that is to become Harbor: does anybody else still use the site's Redis, or its NAS?"""

import json
import socket
import sys
import time
from typing import Any, Dict, List, Optional

from tasks.on_node.shared_copy import read_shared, shared_answers

# Redis keeps the clients of a machine without power for minutes; one that spoke this recently is alive.
REDIS_IDLE_S = 5
_LIMIT_S = 5.0


def redis_clients(given: Dict[str, Any]) -> Optional[List[str]]:
    """Name the addresses that use the site's databases of Redis now, without our own; None when it cannot be asked."""
    redis = given["redis"]
    try:
        connection = socket.create_connection((redis["host"], redis["port"]), timeout=_LIMIT_S)
        with connection, connection.makefile("rwb") as stream:
            ours = {connection.getsockname()[0], *given["own"]}
            if redis["password"] and not command(stream, "AUTH", redis["password"]).startswith("+OK"):
                return None
            header = command(stream, "CLIENT", "LIST")
            if not header.startswith("$"):
                return None
            text = stream.read(int(header[1:])).decode("utf-8", "replace")
        rows = [dict(field.partition("=")[::2] for field in line.split()) for line in text.splitlines()]
        # Ours as Redis sees it, behind a translation of addresses too.
        ours |= {
            host_of_client(row) for row in rows if row.get("cmd", "").lower() in ("client", "client|list")
        }
        return sorted({host_of_client(row) for row in rows if uses(row, redis["databases"])} - ours)
    except (OSError, ValueError):
        return None


def uses(row: Dict[str, str], databases: List[int]) -> bool:
    """Tell whether a client has just spoken in one of the site's databases; replicas and sentinels are none."""
    lively = int(row.get("idle", "-1")) in range(REDIS_IDLE_S + 1)
    return lively and int(row.get("db", "-1")) in databases and not set(row.get("flags", "")) & set("SMr")


def host_of_client(row: Dict[str, str]) -> str:
    """Return the address of a client without its port."""
    return row.get("addr", "").rpartition(":")[0]


def command(stream: Any, *words: str) -> str:
    """Send a command; the first line of its answer."""
    stream.write(b"*%d\r\n" % len(words))
    for word in words:
        stream.write(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
    stream.flush()
    return str(stream.readline(65536).decode("utf-8", "replace").strip())


def nas_life(given: Dict[str, Any]) -> Dict[str, Any]:
    """Read the site's own files on the NAS, and see whether a primary goes on telling there that it lives.

    By whether it changes: two clocks are not compared.
    """
    if not shared_answers(given):
        return {"asked": False}
    first = read_shared(given, "alive")
    kept = {name: read_shared(given, name) for name in ("term", "accepted")}
    if first is None or first.get("node") == given["target"]:
        return {"asked": True, "beats": None, "kept": kept}
    deadline = time.monotonic() + given["beat_s"]
    while time.monotonic() < deadline:
        now = read_shared(given, "alive")
        if now is not None and now != first:
            return {"asked": True, "beats": str(now.get("node")), "kept": kept}
        time.sleep(1.0)
    return {"asked": True, "beats": None, "kept": kept}


def look(given: Dict[str, Any]) -> Dict[str, Any]:
    """Return what was seen of both."""
    return {"redis": redis_clients(given), "nas": nas_life(given)}


if __name__ == "__main__":
    json.dump(look(json.load(sys.stdin)), sys.stdout)
