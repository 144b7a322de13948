"""The server as an object: started in a thread for tests, in the foreground for the lab."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.oss.admin import Control
from lab.oss.faults import Fault, FaultPlan
from lab.oss.handler import Handler
from lab.oss.signature import Credentials
from lab.oss.store import BucketStore
from lab.oss.tls import Tls

_HANDSHAKE_S = 10.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], control: Control, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, Handler)
        self._context = context
        self.control = control
        self.store = control.store
        self.faults = control.faults
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Remember the connection while it is served, so that close() can end it."""
        if self._context is not None:
            # Here and not when it is accepted: a client that never shakes hands must not hold up the others.
            try:
                request.settimeout(_HANDSHAKE_S)
                request = self._context.wrap_socket(request, server_side=True)
            except OSError:
                request.close()
                return
        with self._guard:
            self._connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._connections.discard(request)

    def drop_connections(self) -> None:
        """End the connections that are kept alive, as a server that dies would."""
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class OssServer:
    """An OSS endpoint with one bucket.

    Args:
        data: directory for the bucket's content; what is there already is served again.
        bucket: the bucket's name.
        access_key_id: the one key that is known.
        access_key_secret: its secret.
        region: what V4 signatures must name, `cn-lab` by default.
        host: the address to listen on.
        port: 0 takes a free one.
        admin_from: networks that may use the admin calls.
        tls: a second port, with TLS; none when it is left out.
    """

    def __init__(
        self,
        data: Path,
        bucket: str,
        access_key_id: str,
        access_key_secret: str,
        region: str = "cn-lab",
        host: str = "127.0.0.1",
        port: int = 0,
        admin_from: Sequence[str] = ("127.0.0.0/8",),
        tls: Tls | None = None,
    ) -> None:
        self.store = BucketStore(data, bucket, Credentials(access_key_id, access_key_secret, region))
        self.faults = FaultPlan()
        networks = tuple(ipaddress.ip_network(network) for network in admin_from)
        control = Control(self.store, self.faults, networks)
        self._server = _Server((host, port), control)
        self._secure = _Server((host, tls.port), control, tls.context()) if tls else None
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    @property
    def tls_port(self) -> int:
        """The port with TLS; 0 when there is none."""
        return int(self._secure.server_address[1]) if self._secure else 0

    @property
    def endpoint(self) -> str:
        """The address for a client on this machine."""
        return f"http://127.0.0.1:{self.port}"

    def fail(self, kind: str, **fields: object) -> Fault:
        """Add a fault and return it, so that a test can look at its hits."""
        fault = Fault(kind, **fields)  # type: ignore[arg-type]
        self.faults.add(fault)
        return fault

    def serve_forever(self) -> None:
        """Serve in the foreground."""
        self._start(self._servers[1:])
        self._server.serve_forever(poll_interval=0.5)

    def start(self) -> "OssServer":
        """Serve in threads."""
        self._start(self._servers)
        return self

    def stop(self) -> None:
        """Stop, end all connections and close the catalog."""
        for server, thread in zip(reversed(self._servers), reversed(self._threads), strict=False):
            server.shutdown()
            thread.join(10)
        for server in self._servers:
            server.server_close()
            server.drop_connections()
        self.store.close()

    @property
    def _servers(self) -> list[_Server]:
        return [self._server, *([self._secure] if self._secure else [])]

    def _start(self, servers: list[_Server]) -> None:
        for server in servers:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def __enter__(self) -> "OssServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
