"""Empty some databases of a Redis, or ask whether that will be allowed, spoken to directly: a node has no redis-cli.

A Redis of a cloud often forbids FLUSHDB, by an ACL or by renaming it. Then the keys are removed page by page.
"""

import json
import socket
import sys
from typing import Any, Dict, List, Union

Word = Union[str, bytes]

# FLUSHDB takes ASYNC or SYNC. With any other word Redis refuses it after it has looked whether we may; nothing is
# emptied.
NO_OPTION = "HARBOR-HA-ONLY-ASKS"
NO_KEY = "harbor-ha:no-such-key"


def encoded(words: List[Word]) -> bytes:
    """A command in Redis's protocol."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def answer(stream: Any) -> Any:
    """Read one answer: text, number, bytes or a list; ValueError for an error, without the command."""
    line = stream.readline()
    kind, text = line[:1], line[1:].decode("utf-8", "replace").strip()
    if kind == b"+":
        return text
    if kind == b":":
        return int(text)
    if kind == b"$":
        size = int(text)
        return stream.read(size + 2)[:size] if size >= 0 else b""
    if kind == b"*":
        return [answer(stream) for _ in range(int(text))]
    raise ValueError("Redis answered: " + (text or "nothing"))


def ask(stream: Any, *words: Word) -> Any:
    """Send a command and return its answer."""
    stream.write(encoded(list(words)))
    stream.flush()
    return answer(stream)


def forbids_flush(stream: Any) -> bool:
    """Whether FLUSHDB is forbidden here, or has another name; nothing is emptied."""
    try:
        ask(stream, "FLUSHDB", NO_OPTION)
    except ValueError as error:
        text = str(error)
        return "NOPERM" in text or "unknown command" in text or "not allowed" in text
    raise ValueError("Redis took an option of FLUSHDB that does not exist")


def look(stream: Any) -> None:
    """Make sure that a database can be emptied; ValueError with Redis's own words when it cannot."""
    ask(stream, "DBSIZE")
    if forbids_flush(stream):
        ask(stream, "SCAN", "0", "COUNT", "1")
        ask(stream, "UNLINK", NO_KEY)


def empty(stream: Any) -> int:
    """Empty a database and return how many keys it had."""
    keys = int(ask(stream, "DBSIZE"))
    if not keys:
        return 0
    if not forbids_flush(stream):
        ask(stream, "FLUSHDB")
        return keys
    cursor = b"0"
    while True:
        cursor, page = ask(stream, "SCAN", cursor, "COUNT", "1000")
        if page:
            ask(stream, "UNLINK", *page)
        if cursor == b"0":
            return keys


def serve(given: Dict[str, Any]) -> Dict[str, int]:
    """Empty the databases and return how many keys each had; with `look`, only ask whether that can be done."""
    found = {}
    connection = socket.create_connection((given["host"], given["port"]), timeout=10)
    with connection, connection.makefile("rwb") as stream:
        if given["password"]:
            ask(stream, "AUTH", given["password"])
        for number in given["databases"]:
            ask(stream, "SELECT", str(number))
            if given["look"]:
                look(stream)
            else:
                found[str(number)] = empty(stream)
    return found


if __name__ == "__main__":
    try:
        json.dump(serve(json.load(sys.stdin)), sys.stdout)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
