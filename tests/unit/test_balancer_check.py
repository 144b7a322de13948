"""The reference check of a real HAProxy: a node is served while pushes and pulls work there, and only then."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blocks import LoadBalancer
from lab.services import haproxy_cfg
from lab.topology import FIRST_SUBNET, Topology
from tasks.balancer.haproxy import HaProxy
from tasks.balancer.states import BalancerError, Served
from tests.unit.test_real_witnesses import free_port, running, states

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not shutil.which("haproxy"), reason="not installed"),
]

CONFIG = """
global
    stats socket ipv4@127.0.0.1:{admin} level admin
defaults
    mode tcp
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    timeout check 2s
backend harbor
{checks}
    server node-a 127.0.0.1:{harbor} check inter 50ms fall 1 rise 1
    server node-b 127.0.0.1:{harbor} check inter 50ms downinter 300s fall 1 rise 2
"""
COMPONENTS = ("core", "database", "jobservice", "portal", "redis", "registry", "registryctl", "trivy")


class Health:
    """What a Harbor says of itself."""

    def __init__(self) -> None:
        self.body = told()


def told(*sick: str, without: str = "", status_first: bool = False) -> bytes:
    """Compose the body of `/api/v2.0/health`; of a component that is sick it has the error as well."""
    components = []
    for name in COMPONENTS:
        status = "unhealthy" if name in sick else "healthy"
        said = {"name": name, "status": status}
        if status_first:
            said = {"status": status, "name": name}
        components.append({"error": 'the core said "healthy"', **said} if name in sick else said)
    listed = [item for item in components if item["name"] != without]
    whole = {"components": listed, "status": "unhealthy" if sick else "healthy"}
    return json.dumps(whole, separators=(",", ":")).encode()


@pytest.fixture
def health() -> Iterator[tuple[Health, int]]:
    """A port that answers as Harbor's health does: with status 200, whatever it says."""
    said = Health()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield said, server.server_address[1]
    server.shutdown()


@pytest.fixture
def checked(health: tuple[Health, int], tmp_path: Path) -> Iterator[tuple[Health, HaProxy]]:
    """A HAProxy that asks it by the lab's check, which is the page's."""
    said, port = health
    lines = haproxy_cfg(Topology("demo", FIRST_SUBNET, "mark")).splitlines()
    checks = "\n".join(line for line in lines if line.strip().startswith(("http-check", "option httpchk")))
    path, admin = tmp_path / "haproxy.cfg", free_port()
    path.write_text(CONFIG.format(admin=admin, checks=checks, harbor=port))
    balancer = LoadBalancer(
        kind="haproxy", address="lb", admin_host="127.0.0.1", admin_port=admin, backend="harbor"
    )
    made = HaProxy(balancer)
    with running(["haproxy", "-db", "-f", str(path)], lambda: tells(made)) as up:
        assert up, "HAProxy does not come up"
        yield said, made


def tells(proxy: HaProxy) -> bool:
    """Whether it answers."""
    try:
        return "node-a" in proxy.status()
    except BalancerError:
        return False


def becomes(checked: tuple[Health, HaProxy], body: bytes, up: bool) -> None:
    """Let Harbor say something else, and wait for what HAProxy makes of it."""
    said, proxy = checked
    said.body = body
    states(proxy, lambda seen: seen["node-a"].alive is up)


def test_a_jobservice_that_restarts_takes_no_node_out_of_service(checked: tuple[Health, HaProxy]) -> None:
    # The only node that was left after a failover was out for 11 to 16 s.
    becomes(checked, told("database"), False)
    becomes(checked, told("jobservice", "trivy", "portal"), True)


@pytest.mark.parametrize("name", ["core", "database", "redis", "registry"])
def test_a_node_without_what_pushes_and_pulls_need_is_taken_out(
    checked: tuple[Health, HaProxy], name: str
) -> None:
    becomes(checked, told(), True)
    becomes(checked, told(name), False)
    becomes(checked, told(status_first=True), True)
    becomes(checked, told(without=name), False)


def test_what_is_no_health_of_a_harbor_is_no_sign_of_life(checked: tuple[Health, HaProxy]) -> None:
    becomes(checked, told(), True)
    becomes(checked, b'<html>502 Bad Gateway "status":"healthy"</html>', False)


def test_a_node_that_was_just_seen_to_answer_is_served_before_its_next_check(
    checked: tuple[Health, HaProxy],
) -> None:
    said, proxy = checked
    said.body = told("database")
    states(proxy, lambda seen: seen["node-b"].alive is False)
    said.body = told()
    proxy.hurry("node-b")
    assert proxy.status()["node-b"].served is Served.UP


def test_a_node_that_is_drained_stays_drained_whatever_it_answers(checked: tuple[Health, HaProxy]) -> None:
    _, proxy = checked
    proxy.drain("node-b")
    proxy.hurry("node-b")
    assert proxy.status()["node-b"].served is Served.DRAINED
