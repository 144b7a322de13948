"""What a real HAProxy and a real Redis say of nodes, read by our own readers."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks import LoadBalancer, RedisServer
from tasks.balancer.balancer import drain_confirmed
from tasks.balancer.haproxy import HaProxy
from tasks.balancer.states import BalancerError, NodeState, Served
from tasks.observation.redis import RedisUnreadable, hears, list_clients

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        not shutil.which("haproxy") or not shutil.which("redis-server"), reason="not installed"
    ),
]

CONFIG = """
global
    stats socket ipv4@127.0.0.1:{admin} level admin
defaults
    mode tcp
    timeout connect 1s
    timeout client 5s
    timeout server 5s
resolvers nobody
    nameserver none 127.0.0.1:{nothing}
    resolve_retries 1
    timeout resolve 200ms
    timeout retry 200ms
    hold nx 200ms
    hold timeout 200ms
    hold other 200ms
    hold refused 200ms
frontend clients
    bind 127.0.0.1:{front}
    default_backend harbor
backend harbor
    server node-a 127.0.0.1:{living} check inter 100ms
    server node-b 127.0.0.1:{dead} check inter 100ms fall 1
    server node-c 127.0.0.1:{living}
    server node-d 127.0.0.1:{living} disabled
    server node-e nowhere.invalid:{living} check inter 100ms init-addr none resolvers nobody
    server node-f 127.0.0.1:{living} track other/node-x
backend other
    server node-x 127.0.0.1:{living} check disabled
"""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def running(argv: list[str], ready: Callable[[], bool]) -> Iterator[bool]:
    """Run a server; tell whether it came up."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or ready(), f"{argv[0]} does not come up")
        yield process.poll() is None
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[HaProxy]:
    """A HAProxy whose backend has a server of each kind; `node-a` and `node-c` are a port that accepts."""
    living = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(living,), daemon=True).start()
    path = tmp_path / "haproxy.cfg"
    # Between its choice and its use a port may become another test's.
    for _ in range(3):
        ports = {name: free_port() for name in ("admin", "nothing", "front", "dead")}
        path.write_text(CONFIG.format(living=living.getsockname()[1], **ports))
        made = HaProxy(
            LoadBalancer(
                kind="haproxy",
                address="lb",
                admin_host="127.0.0.1",
                admin_port=ports["admin"],
                backend="harbor",
            )
        )
        with running(["haproxy", "-db", "-f", str(path)], lambda made=made: tells(made)) as up:  # type: ignore[misc]
            if up:
                yield made
                living.close()
                return
    pytest.fail("HAProxy does not come up")


def tells(proxy: HaProxy) -> bool:
    """Whether it answers, and is ours."""
    try:
        return "node-f" in proxy.status()
    except BalancerError:
        return False


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def states(proxy: HaProxy, condition: Callable[[dict[str, NodeState]], bool]) -> dict[str, NodeState]:
    until(lambda: condition(proxy.status()), "its checks do not settle")
    return proxy.status()


def test_what_a_real_haproxy_says_of_each_kind_of_server(proxy: HaProxy) -> None:
    seen = states(
        proxy,
        lambda s: (
            s["node-b"].served is Served.DOWN
            and "L4OK" in s["node-a"].check
            and "resolution" in s["node-e"].check
        ),
    )
    assert (seen["node-a"].served, seen["node-a"].alive) == (Served.UP, True)
    assert seen["node-a"].only_connects, "its check asks for a handshake and no more"
    assert (seen["node-b"].served, seen["node-b"].alive) == (Served.DOWN, False)
    assert (seen["node-c"].served, seen["node-c"].alive) == (Served.UP, None), "nobody checks it"
    assert (seen["node-d"].served, seen["node-d"].alive) == (Served.DRAINED, None)
    assert (seen["node-e"].served, seen["node-e"].alive) == (Served.UNKNOWN, None), (
        "its name does not resolve"
    )
    assert (seen["node-f"].served, seen["node-f"].alive) == (Served.UNKNOWN, None), (
        "another one's maintenance"
    )
    assert "node-x" not in seen


@pytest.mark.parametrize("node", ["node-a", "node-b", "node-e", "node-f"])
def test_a_drain_of_ours_is_seen_whatever_else_is_true_of_the_server(proxy: HaProxy, node: str) -> None:
    """A name that did not resolve passed for a drain, and none was sent; with one sent it must be seen beside it."""
    assert drain_confirmed(proxy, node).served is Served.DRAINED
    assert proxy.status()[node].served is Served.DRAINED
    assert proxy.status()[node].alive is None, "a load balancer does not look at what is in maintenance"
    proxy.admit(node)
    until(lambda: proxy.status()[node].served is not Served.DRAINED, "it stays drained")


def test_the_port_of_its_clients_is_no_runtime_api(proxy: HaProxy, tmp_path: Path) -> None:
    front = int((tmp_path / "haproxy.cfg").read_text().split("bind 127.0.0.1:")[1].split()[0])
    wrong = HaProxy(LoadBalancer(kind="haproxy", address="lb", admin_host="127.0.0.1", admin_port=front))
    with pytest.raises(BalancerError):
        wrong.status(limit_s=1.0)


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    for _ in range(3):
        port = free_port()
        argv = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1", "-::1"]
        with running([*argv, "--requirepass", "right"], lambda port=port: answers(port)) as up:  # type: ignore[misc]
            if up:
                yield port
                return
    pytest.fail("Redis does not come up")


def asked(port: int, password: str = "right", limit_s: float = 3.0) -> RedisServer:
    return RedisServer(host="127.0.0.1", port=port, password=SecretStr(password))


def test_a_real_redis_hears_a_client_by_its_address_until_it_falls_silent(redis_port: int) -> None:
    with closing(
        socket.create_connection(("127.0.0.1", redis_port), source_address=("127.0.0.7", 0))
    ) as client:
        client.sendall(b"AUTH right\r\n")
        assert client.recv(100).startswith(b"+OK")
        clients = list_clients(asked(redis_port), 3.0)
        assert hears(clients, {"127.0.0.7"}) is True
        assert hears(clients, {"127.0.0.8", "fd00::1"}) is False
        until(
            lambda: hears(list_clients(asked(redis_port), 3.0), {"127.0.0.7"}) is False,
            "a client that is silent is still taken for alive",
        )


def test_a_real_redis_tells_ipv6_addresses_as_we_read_them(redis_port: int) -> None:
    try:
        connection = socket.create_connection(("::1", redis_port), timeout=2)
    except OSError:
        pytest.skip("no IPv6 here")
    with closing(connection) as client:
        client.sendall(b"AUTH right\r\n")
        client.recv(100)
        assert hears(list_clients(asked(redis_port), 3.0), {"::1"}) is True


def test_a_real_redis_that_refuses_is_not_one_without_clients(redis_port: int) -> None:
    with pytest.raises(RedisUnreadable, match="password"):
        list_clients(asked(redis_port, "wrong"), 3.0)


def test_a_list_of_many_clients_arrives_whole(redis_port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", redis_port)) for _ in range(800)]
    try:
        for client in held:
            client.sendall(b"AUTH right\r\n")
            client.recv(100)
        assert len(list_clients(asked(redis_port), 5.0)) >= 800
    finally:
        for client in held:
            client.close()
