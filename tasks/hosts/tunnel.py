"""A port of this machine that leads through a node to a server as that node sees it; for a client library here.

Through a program on the node and not by SSH's own forwarding, which hardened machines switch off.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from tasks.errors import HarborHaError, RemoteCommandFailed
from tasks.hosts.connection import Host
from tasks.hosts.on_node import relay
from tasks.node_program import node_program

_RELAY = node_program(relay)
_BLOCK = 1 << 16
_ENDS_S = 5.0


@dataclass
class Tunnel:
    """The near end.

    Attributes:
        port: on 127.0.0.1.
        failures: why the node made no connection, in its system's words; empty when it did.
    """

    port: int
    failures: list[str] = field(default_factory=list)


class _Blocks(Protocol):
    def read1(self, size: int) -> bytes: ...


@contextlib.contextmanager
def tunnel(host: Host, address: str, port: int, *, timeout: float) -> Iterator[Tunnel]:
    """Lend the near end; with the context it is closed, and every connection through it.

    Args:
        host: the node.
        address, port: the server, as the node calls it.
        timeout: seconds for each connection.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lent = Tunnel(listener.getsockname()[1])
        stopped = threading.Event()
        argv = ["python3", "-c", _RELAY, address, str(port)]
        serving = threading.Thread(
            target=_serve, args=(listener, host, argv, timeout, lent, stopped), daemon=True
        )
        serving.start()
        try:
            yield lent
        finally:
            stopped.set()
            # accept() sleeps on when its socket is closed; one more client wakes it.
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", lent.port), timeout=_ENDS_S).close()
            serving.join(_ENDS_S)


def _serve(
    listener: socket.socket,
    host: Host,
    argv: list[str],
    timeout: float,
    lent: Tunnel,
    stopped: threading.Event,
) -> None:
    # One after the other: a client library tries again with a new connection only when it has closed the one before.
    while True:
        client, _ = listener.accept()
        with client:
            if stopped.is_set():
                return
            try:
                _carry(client, host, argv, timeout)
            except RemoteCommandFailed as failed:
                _, refused, reason = failed.stderr.rpartition(relay.NOT_CONNECTED)
                if refused:
                    lent.failures.append(reason.strip()[:200])
            except (HarborHaError, OSError) as error:
                lent.failures.append(str(error)[:200])


def _carry(client: socket.socket, host: Host, argv: list[str], timeout: float) -> None:
    with host.stream(argv, timeout=timeout, marked=False) as process:
        sending = threading.Thread(target=_send, args=(client, process.stdin, process), daemon=True)
        sending.start()
        source: _Blocks = process.stdout  # type: ignore[assignment]
        with contextlib.suppress(ConnectionError):
            while data := source.read1(_BLOCK):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        sending.join(_ENDS_S)
        process.wait()


class _Closing(Protocol):
    def close_stdin(self) -> None: ...


def _send(client: socket.socket, target: BinaryIO, process: _Closing) -> None:
    # The other end may be gone at any moment; whoever reads its output sees that.
    with contextlib.suppress(OSError, ValueError):
        while data := client.recv(_BLOCK):
            target.write(data)
            target.flush()
    with contextlib.suppress(OSError, ValueError):
        process.close_stdin()
