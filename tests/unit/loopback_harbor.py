"""A Harbor of a few lines behind TLS on the loopback: health, labels, projects, tokens, blobs, manifests."""

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOSTNAME = "harbor.example.com"


class LoopbackHarbor(ThreadingHTTPServer):
    """Keeps what is pushed; a test sets how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.health: dict[str, Any] = {"status": "healthy", "components": []}
        self.read_only = False
        self.realm = f"https://{HOSTNAME}/service/token"
        self.challenge = ""
        self.refusal: tuple[int, Any] | None = None
        self.refusals: int | None = None
        self.corrupt: str | None = None
        self.labels: dict[int, str] = {}
        self.created: list[str] = []
        self.projects: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.cookies: list[str] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


@contextmanager
def serving(certificate: str, key: str, directory: Path) -> Iterator[LoopbackHarbor]:
    """Serve with a certificate until the end of the block."""
    pem = directory / "loopback.pem"
    pem.write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = LoopbackHarbor()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHarbor

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _do(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, parts.path, self.headers.get("Host", "")))
        self.server.cookies += self.headers.get_all("Cookie") or []
        if parts.path.startswith("/v2/"):
            self._registry(parts.path, parse_qs(parts.query), body)
        elif parts.path == "/service/token":
            self._answer(200, {"token": "token-for-" + parse_qs(parts.query)["scope"][0]})
        else:
            self._api(parts.path.removeprefix("/api/v2.0"), body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _do

    def _api(self, path: str, body: bytes) -> None:
        server = self.server
        if path == "/health":
            self._answer(200, server.health, {"Set-Cookie": "sid=1"})
        elif server.refusal is not None and server.refusals != 0 and self.command != "GET":
            server.refusals = None if server.refusals is None else server.refusals - 1
            self._answer(*server.refusal)
        elif server.read_only and self.command != "GET":
            self._answer(403, {"errors": [{"code": "DENIED", "message": "The system is in read only mode."}]})
        elif path == "/labels":
            number = len(server.created) + 1
            server.labels[number] = json.loads(body)["name"]
            server.created.append(server.labels[number])
            self._answer(201, None, {"Location": f"/api/v2.0/labels/{number}"})
        elif path.startswith("/labels/"):
            del server.labels[int(path.rpartition("/")[2])]
            self._answer(200, None)
        elif path == "/projects" and self.command == "POST":
            name = json.loads(body)["project_name"]
            self._answer(409 if name in server.projects else 201, None)
            server.projects.append(name)
        else:
            self._answer(404, {"errors": [{"code": "NOT_FOUND", "message": path}]})

    def _registry(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        server, reference = self.server, path.rpartition("/")[2]
        if not self.headers.get("Authorization", "").startswith("Bearer token-for-repository:"):
            said = server.challenge or f'Bearer realm="{server.realm}",service="harbor-registry"'
            self._answer(401, None, {"Www-Authenticate": said})
        elif path.endswith("/blobs/uploads/"):
            self._answer(202, None, {"Location": f"https://{HOSTNAME}{path}session?_state=x"})
        elif "/blobs/uploads/" in path:
            digest = query["digest"][0]
            server.blobs[digest] = body
            right = digest == "sha256:" + hashlib.sha256(body).hexdigest()
            self._answer(201 if right else 400, None)
        elif "/manifests/" in path and self.command == "PUT":
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            server.manifests.update({digest: body, reference: body})
            self._answer(201, None, {"Docker-Content-Digest": digest})
        else:
            found = (server.manifests if "/manifests/" in path else server.blobs).get(reference)
            if found is not None and reference == server.corrupt:
                found = bytes(len(found))
            self._answer(404 if found is None else 200, None, raw=found or b"")

    def _answer(
        self, status: int, document: Any, headers: dict[str, str] | None = None, raw: bytes = b""
    ) -> None:
        body = raw if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
