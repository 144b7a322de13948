"""What the shared Redis says of its clients: who spoke to it a moment ago, and from which address."""

import ipaddress
import re
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from blocks import RedisServer
from tasks.errors import HarborHaError

# Redis keeps the clients of a machine without power for minutes; one that spoke this recently is alive.
IDLE_S = 5
# A client's line has some 300 characters, and Redis takes 10,000 clients unless told otherwise.
_MAX_ANSWER = 16 << 20

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RedisUnreadable(HarborHaError):
    """Redis did not answer in time, refused, or said something else than was asked for."""


@dataclass(frozen=True)
class Client:
    """One line of CLIENT LIST; what could not be read of it is None.

    Attributes:
        address: where the client comes from; None for one on a socket of Redis's own machine, and when it is odd.
        idle_s: seconds since it last spoke.
        local: it came over a Unix socket, so it is on no node.
    """

    address: Address | None
    idle_s: int | None
    local: bool = False


def list_clients(redis: RedisServer, limit_s: float) -> tuple[Client, ...]:
    """Ask Redis for its clients.

    Args:
        redis: the server.
        limit_s: seconds for all of it; a Redis that accepts and says nothing must not hold up a failover.

    Raises:
        RedisUnreadable: nothing is known; not to be taken for "no client".
    """
    where = f"Redis {redis.host}:{redis.port}"
    deadline = time.monotonic() + limit_s
    try:
        with socket.create_connection((redis.host, redis.port), timeout=limit_s) as connection:
            talk = _Talk(connection, deadline)
            if not talk.ask("AUTH", redis.password.get_secret_value()).startswith(b"+OK"):
                raise RedisUnreadable("The password was not accepted.", where=where)
            return parse_clients(talk.bulk("CLIENT", "LIST").decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        raise RedisUnreadable(f"CLIENT LIST was not answered ({error}).", where=where) from error


def parse_clients(text: str) -> tuple[Client, ...]:
    """Parse CLIENT LIST; a line that is odd is a client of which less is known, never an error."""
    return tuple(_client(line) for line in text.splitlines() if line.strip())


def hears(clients: Sequence[Client], addresses: Collection[str]) -> bool | None:
    """Whether a client at one of the addresses spoke within 5 s; None when an odd line may be that client."""
    wanted = {address for address in map(address_of, addresses) if address is not None}
    doubt = False
    for client in clients:
        if client.local or (client.address is not None and client.address not in wanted):
            continue
        if client.address is None or client.idle_s is None:
            doubt = True
        elif client.idle_s <= IDLE_S:
            return True
    return None if doubt else False


def address_of(text: str) -> Address | None:
    """Read an IP address, `::ffff:10.0.0.1` as the IPv4 address that it is; None when it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _client(line: str) -> Client:
    fields = dict(field.partition("=")[::2] for field in line.split())
    place, idle = fields.get("addr", ""), fields.get("idle", "")
    host = re.fullmatch(r"\[?([^\[\]]+)\]?:\d+", place)
    return Client(
        address=address_of(host.group(1)) if host else None,
        idle_s=int(idle) if re.fullmatch(r"[0-9]{1,12}", idle) else None,
        local=place.startswith("/"),
    )


class _Talk:
    """Redis's protocol over one connection, as far as two questions need it."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._kept = bytearray()

    def ask(self, *words: str) -> bytes:
        """Send a command and return the first line of its answer."""
        parts = [word.encode() for word in words]
        command = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
        self._connection.settimeout(self._left())
        self._connection.sendall(command)
        while b"\n" not in self._kept:
            self._more()
        line, _, rest = bytes(self._kept).partition(b"\n")
        self._kept = bytearray(rest)
        return line

    def bulk(self, *words: str) -> bytes:
        """Send a command whose answer is a text of a length that is told first; a part of it is none."""
        header = self.ask(*words)
        if not re.fullmatch(rb"\$[0-9]{1,9}\r?", header):
            raise ValueError("it answered with an error or with something else")
        length = int(header[1:])
        if length > _MAX_ANSWER:
            raise ValueError("its list is too long")
        while len(self._kept) < length:
            self._more()
        return bytes(self._kept[:length])

    def _more(self) -> None:
        self._connection.settimeout(self._left())
        block = self._connection.recv(65536)
        if not block:
            raise ValueError("it closed the connection before its answer was whole")
        if len(self._kept) > _MAX_ANSWER:
            raise ValueError("its answer is too long")
        self._kept += block

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left
