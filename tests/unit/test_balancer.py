"""The load balancer is believed only when it confirms."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blocks import LoadBalancer
from tasks.balancer import balancer as module
from tasks.balancer.balancer import admit_confirmed, drain_confirmed
from tasks.balancer.haproxy import HaProxy, parse_stat
from tasks.balancer.states import BalancerError, NodeState, Served

HEADER = "# pxname,svname,scur,status,check_status,last_chk,\n"


def stat(*rows: str) -> str:
    return HEADER + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("status", "served"),
    [
        ("UP", Served.UP),
        ("UP 1/2", Served.UP),
        ("DOWN", Served.DOWN),
        ("DOWN 1/2", Served.DOWN),
        ("MAINT", Served.DRAINED),
        ("MAINT (via x/y)", Served.UNKNOWN),
        ("MAINT (resolution)", Served.UNKNOWN),
        ("DRAIN", Served.UNKNOWN),
        ("NOLB", Served.UNKNOWN),
        ("something new", Served.UNKNOWN),
    ],
)
def test_every_word_of_haproxy_for_a_server_is_understood(status: str, served: Served) -> None:
    assert parse_stat(stat(f"harbor,node-a,3,{status},L7OK,,"), "harbor")["node-a"].served is served


def test_other_backends_and_totals_are_not_taken_for_nodes() -> None:
    text = stat(
        "harbor,node-a,0,UP,,,",
        "harbor,BACKEND,0,UP,,,",
        "other,node-a,0,DOWN,,,",
        "harbor,FRONTEND,0,OPEN,,,",
    )
    assert list(parse_stat(text, "harbor")) == ["node-a"]


class Admin(socketserver.ThreadingTCPServer):
    """A runtime API with one server in it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, obeys: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), AdminHandler)
        self.obeys = obeys
        self.state = "UP"
        self.sessions = 4
        self.connecting = 0
        self.commands: list[str] = []


class AdminHandler(socketserver.StreamRequestHandler):
    """One command a connection."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Admin)
        command = self.rfile.readline().decode().strip()
        server.commands.append(command)
        if command == "show stat":
            self.wfile.write(stat(f"harbor,node-a,{server.sessions},{server.state},L7OK,,").encode())
        elif "node-a" not in command:
            self.wfile.write(b"No such server.\n")
        elif server.obeys and command.endswith("state maint"):
            server.state = "MAINT"
        elif server.obeys and command.endswith("state ready"):
            server.state = "UP"
        elif server.obeys and command.startswith("shutdown sessions"):
            server.sessions, server.connecting = server.connecting, 0


@contextmanager
def haproxy(obeys: bool = True) -> Iterator[tuple[Admin, HaProxy]]:
    with Admin(obeys) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        settings = LoadBalancer(kind="haproxy", address="lb", admin_host=str(host), admin_port=int(port))
        yield server, HaProxy(settings)
        server.shutdown()


def test_a_drained_node_has_no_session_left() -> None:
    with haproxy() as (server, proxy):
        assert drain_confirmed(proxy, "node-a") == NodeState(Served.DRAINED, 0, "L7OK")
        assert server.commands[:2] == [
            "set server harbor/node-a state maint",
            "shutdown sessions server harbor/node-a",
        ]
        assert admit_confirmed(proxy, "node-a").served is Served.UP


def test_a_session_that_was_being_connected_while_the_others_were_ended_is_ended_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_END_AGAIN_S", 0.1)
    with haproxy() as (server, proxy):
        server.connecting = 1
        assert drain_confirmed(proxy, "node-a") == NodeState(Served.DRAINED, 0, "L7OK")


def test_a_balancer_that_does_not_obey_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONFIRM_S", 0.3)
    with (
        haproxy(obeys=False) as (_, proxy),
        pytest.raises(BalancerError, match="node-a is up with 4 open sessions"),
    ):
        module._await(proxy, "node-a", "drained", lambda state: state.served is Served.DRAINED, 0.3)


def test_a_node_that_the_balancer_does_not_know_is_an_error_and_not_silence() -> None:
    with haproxy() as (_, proxy), pytest.raises(BalancerError, match="No such server"):
        proxy.drain("node-x")


def test_a_balancer_that_is_gone_says_so() -> None:
    proxy = HaProxy(LoadBalancer(kind="haproxy", address="lb", admin_host="127.0.0.1", admin_port=1))
    with pytest.raises(BalancerError, match="did not answer"):
        proxy.status()
