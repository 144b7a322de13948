"""Whatever listens where sshd should, and whatever a site's own command does: errors of ours, in time."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from blocks import SshHost
from tasks.errors import HostUnreachable, RemoteConnectionLost
from tasks.hosts.connection import connect
from tasks.hosts.local import LocalCommandFailed, run_local
from tasks.hosts.ssh import Connection, target_of
from tests.unit.local_sshd import running_sshd
from tests.unit.site_on_disk import ssh_host_key, ssh_private_key

ALL_BYTES = bytes(range(256))
# A packet of key exchange: length, padding, type 20, cookie; then lists of names that are none.
KEX = b"SSH-2.0-OpenSSH_8\r\n\0\0\0\x2c\x04\x14" + b"a" * 16 + b"\0\0\0\x05\xff\xfe\xfd\xfc\xfb" + b"\0" * 17

SAID = {
    "web server": b"HTTP/1.1 400 Bad Request\r\nX-Token: secret-word\r\n\r\n",
    "binary": ALL_BYTES * 200,
    "old SSH": b"SSH-1.5-secret-word\r\n",
    "greeting": b"secret-word\r\n" * 1000,
    "garbage after the banner": b"SSH-2.0-OpenSSH_8\r\n" + ALL_BYTES * 40,
    "zeroes after the banner": b"SSH-2.0-OpenSSH_8\r\n" + bytes(4096),
    "odd key exchange": KEX,
    "nothing": b"",
}


@contextmanager
def listening(say: bytes) -> Iterator[SshHost]:
    """A port that says something to whoever comes, and closes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with suppress(OSError), connection:
                connection.sendall(say)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield SshHost(
            name="node-a",
            address="127.0.0.1",
            port=server.getsockname()[1],
            user="root",
            private_key=ssh_private_key(),  # type: ignore[arg-type]
            host_key=ssh_host_key(),
        )
    finally:
        server.close()


@pytest.mark.parametrize("name", SAID)
def test_whatever_answers_at_the_port_of_ssh_is_a_node_that_is_not_reached(name: str) -> None:
    """A key exchange that is none came out of a failover's look as a UnicodeDecodeError."""
    with listening(SAID[name]) as node, pytest.raises(HostUnreachable) as caught:
        connect(node).python("print(1)")
    assert "secret-word" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="commands are run as the login user root")
@contextmanager
def deaf() -> Iterator[SshHost]:
    """A port whose machine takes no connection: its queue is full, so the kernel drops what comes."""
    with listening(b"") as node, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        place = server.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(place)
            yield node.model_copy(update={"port": place[1]})
        finally:
            for client in waiting:
                client.close()


def test_a_machine_that_takes_no_connection_is_given_up_after_one_lost_packet() -> None:
    """Each look of a failover at a machine without power took three seconds, and there are four of them."""
    with deaf() as node:
        host = connect(node)
        begin = time.monotonic()
        with pytest.raises(HostUnreachable):
            host.run(["true"])
        assert 1.0 < time.monotonic() - begin < 2.5
        assert not host.heard
        assert host.silent


def test_a_machine_that_takes_the_connection_and_is_slow_with_the_rest_is_known_to_be_there() -> None:
    with listening(b"") as node:
        host = connect(node)
        with pytest.raises(HostUnreachable):
            host.run(["true"])
        assert host.heard


class _Client:
    """A connection as `Connection` keeps it; what opening a session does is given."""

    def __init__(self, opens: Callable[[], str]) -> None:
        self.opens, self.closed = opens, False

    def get_transport(self) -> "_Client":
        return self

    def is_active(self) -> bool:
        return not self.closed

    def open_session(self, timeout: float) -> str:
        return self.opens()

    def close(self) -> None:
        self.closed = True


def test_whoever_waited_on_a_broken_connection_does_not_close_the_one_that_was_made_since() -> None:
    """After a cut two looks and a question waited on the old connection, and the question gave the node up."""
    made = _Client(lambda: "a session")

    def broken() -> str:
        # While this one waits, somebody else gives the old one up and connects anew.
        connection._client = made  # type: ignore[assignment]
        raise EOFError

    with listening(b"") as node:
        connection = Connection(target_of(node))
        connection._client = _Client(broken)  # type: ignore[assignment]
        assert connection._open_channel(3.0) == "a session"
        assert not made.closed


def test_a_server_that_lets_us_in_and_runs_nothing_is_an_error_of_ours() -> None:
    with running_sshd({}, runs=False) as node:
        host = connect(node)
        with pytest.raises(RemoteConnectionLost, match="did not start a command"):
            host.python("print(1)")
        with pytest.raises(RemoteConnectionLost), host.stream(["cat"], timeout=5):
            pass
        host.close()


def test_what_a_command_leaves_in_the_background_is_not_waited_for() -> None:
    """An ssh that stays behind to share its connection held a fence command for as long as it lived."""
    run_local(["true"], timeout=30)
    begin = time.monotonic()
    assert run_local(["sh", "-c", "sleep 20 & echo off"], timeout=30) == "off"
    assert time.monotonic() - begin < 15


def test_a_command_that_prints_no_text_is_read_all_the_same() -> None:
    assert "up" in run_local(["printf", r"\377\376 up"], timeout=30)


def test_a_command_that_does_not_stop_talking_is_cut_off() -> None:
    assert len(run_local(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"], timeout=60)) == 64 << 10
    with pytest.raises(LocalCommandFailed) as caught:
        run_local(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; exit 3"], timeout=60)
    assert "status 3" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_command_that_is_late_is_killed_and_named_so() -> None:
    with pytest.raises(LocalCommandFailed, match="did not end in 1 s"):
        run_local(["sleep", "60"], timeout=1.0)
