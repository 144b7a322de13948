"""Ask everybody who deals with a node whether it lives: the load balancer, Redis, and its own port."""

import socket
from concurrent.futures import ThreadPoolExecutor

from blocks import HarborSite, RedisServer
from tasks import clock
from tasks.balancer.balancer import balancer_of
from tasks.balancer.states import Served
from tasks.errors import HarborHaError
from tasks.operation.witnesses import OPEN, Witnesses

_TIMEOUT_S = 1.5
# Redis keeps the clients of a machine without power for minutes; one that spoke this recently is alive.
_REDIS_IDLE_S = 5
ORCHESTRATOR = "the orchestrator"


def ask_witnesses(site: HarborSite, node: str) -> Witnesses:
    """Ask about one node, everybody at once; the other nodes' views come from their own facts.

    Returns:
        What was said; a witness that does not answer is unknown, not a vote.
    """
    observed = clock.now()
    target = site.node(node)
    with ThreadPoolExecutor(3) as pool:
        port = pool.submit(tcp_state, target.address, site.postgres.port)
        balancer = pool.submit(_balancer_view, site, node)
        redis = pool.submit(redis_hears, site.redis, target.address)
        served = balancer.result()
        return Witnesses(
            node=node,
            observed_at=observed,
            tcp={ORCHESTRATOR: port.result()},
            balancer_up=None if served is None else served is Served.UP,
            balancer_drained=None if served is None else served is Served.DRAINED,
            redis_connected=redis.result(),
            has_balancer=site.balancer.kind != "none",
        )


def tcp_state(address: str, port: int) -> str:
    """Try a TCP connection: `open`, `refused` or `silent`."""
    try:
        socket.create_connection((address, port), timeout=_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"
    return OPEN


def redis_hears(redis: RedisServer, address: str) -> bool | None:
    """Whether Redis heard from a client at an address within 5 s; None when it cannot be asked."""
    try:
        with socket.create_connection((redis.host, redis.port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(_command("AUTH", redis.password.get_secret_value()))
            if not connection.recv(200).startswith(b"+OK"):
                return None
            connection.sendall(_command("CLIENT", "LIST"))
            clients = _bulk(connection)
    except OSError:
        return None
    for client in clients.splitlines():
        fields = dict(field.partition("=")[::2] for field in client.split())
        if fields.get("addr", "").rpartition(":")[0] == address and int(fields["idle"]) <= _REDIS_IDLE_S:
            return True
    return False


def _balancer_view(site: HarborSite, node: str) -> Served | None:
    try:
        balancer = balancer_of(site)
        state = balancer.status().get(node) if balancer else None
    except HarborHaError:
        return None
    return None if state is None or state.served is Served.UNKNOWN else state.served


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)


def _bulk(connection: socket.socket) -> str:
    with connection.makefile("rb") as stream:
        header = stream.readline()
        if not header.startswith(b"$"):
            raise OSError(f"Redis said {header!r}")
        return stream.read(int(header[1:])).decode("utf-8", "replace")
