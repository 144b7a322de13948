"""Empty some databases of a Redis, spoken to directly: a node has no redis-cli."""

import json
import socket
import sys
from typing import Any, Dict, List


def encoded(words: List[str]) -> bytes:
    """A command in Redis's protocol."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def ask(stream: Any, *words: str) -> str:
    """Send a command and return its one-line answer; ValueError for an error, without the command."""
    stream.write(encoded(list(words)))
    stream.flush()
    line = stream.readline().decode("utf-8", "replace").strip()
    if line.startswith("-") or not line:
        raise ValueError("Redis answered: " + (line or "nothing"))
    return str(line)


def flush(given: Dict[str, Any]) -> Dict[str, int]:
    """Empty the databases and return how many keys each had."""
    found = {}
    connection = socket.create_connection((given["host"], given["port"]), timeout=10)
    with connection, connection.makefile("rwb") as stream:
        if given["password"]:
            ask(stream, "AUTH", given["password"])
        for number in given["databases"]:
            ask(stream, "SELECT", str(number))
            keys = int(ask(stream, "DBSIZE")[1:])
            if keys:
                ask(stream, "FLUSHDB")
            found[str(number)] = keys
    return found


if __name__ == "__main__":
    json.dump(flush(json.load(sys.stdin)), sys.stdout)
