"""A small HTTP server: routes, bodies that stream in both directions, Harbor's error form."""

import json
import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

CHUNK = 256 * 1024
JSON_LIMIT = 8 * 1024 * 1024
log = logging.getLogger("http")


class Refused(Exception):
    """Ends a request with a status and Harbor's error body."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> "Response":
        """The answer for the client."""
        body = {"errors": [{"code": self.code, "message": self.message}]}
        return Response.of(body, status=self.status, headers=self.headers)


class Readable(Protocol):
    """What a request's body is read from."""

    def read(self, size: int = ..., /) -> bytes: ...

    def readline(self, size: int = ..., /) -> bytes: ...


class Body:
    """The body of a request, read at most once, with a length or in chunks."""

    def __init__(self, source: Readable, headers: Mapping[str, str]) -> None:
        self._source = source
        self.chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self.length = int(headers.get("Content-Length") or 0)
        self._parts = self._chunks() if self.chunked else self._counted()

    def _counted(self) -> Iterator[bytes]:
        left = self.length
        while left > 0:
            part = self._source.read(min(left, CHUNK))
            if not part:
                raise ConnectionError("the client went away in the middle of a body")
            left -= len(part)
            yield part

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._source.readline()
            if not line:
                raise ConnectionError("the client went away in the middle of a chunked body")
            left = int(line.split(b";")[0], 16)
            last = left == 0
            while left > 0:
                part = self._source.read(min(left, CHUNK))
                if not part:
                    raise ConnectionError("the client went away in the middle of a chunk")
                left -= len(part)
                yield part
            self._source.readline()
            if last:
                return

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def read(self, limit: int = JSON_LIMIT) -> bytes:
        """The whole body. Raises Refused (413) when it is longer than `limit` bytes."""
        whole = bytearray()
        for part in self._parts:
            whole += part
            if len(whole) > limit:
                raise Refused(413, "SIZE_INVALID", f"the body exceeds {limit} bytes")
        return bytes(whole)

    def drain(self) -> bool:
        """Read away what no handler wanted; False when it is so long that closing is cheaper."""
        seen = 0
        for part in self._parts:
            seen += len(part)
            if seen > JSON_LIMIT:
                return False
        return True


@dataclass(frozen=True)
class Request:
    """One request as a handler sees it."""

    method: str
    path: str
    query: Mapping[str, str]
    raw_query: str
    scopes: tuple[str, ...]
    headers: Mapping[str, str]
    body: Body

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Refused (400)."""
        try:
            value = json.loads(self.body.read() or b"{}")
        except ValueError as error:
            raise Refused(400, "BAD_REQUEST", f"invalid JSON: {error}") from error
        if not isinstance(value, dict):
            raise Refused(400, "BAD_REQUEST", "a JSON object is expected")
        return value

    def page(self) -> tuple[int, int]:
        """Limit and offset for SQL, from `page` and `page_size` (10, at most 100, as in Harbor)."""
        try:
            size = min(int(self.query.get("page_size") or 10), 100)
            number = max(int(self.query.get("page") or 1), 1)
        except ValueError as error:
            raise Refused(400, "BAD_REQUEST", "page and page_size are numbers") from error
        return size, (number - 1) * size


def _json_value(value: Any) -> str:
    return f"{value.isoformat(timespec='milliseconds')}Z" if isinstance(value, datetime) else str(value)


@dataclass(frozen=True)
class Response:
    """What goes back; a body is bytes, or a stream with its Content-Length in the headers."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> "Response":
        """A JSON answer."""
        merged = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        # Without spaces, as Harbor writes it: load balancers look for the words of the health answer.
        text = json.dumps(value, default=_json_value, separators=(",", ":"))
        return cls(status, text.encode(), merged)


Handler = Callable[..., Response]


class Routes:
    """Which function answers which method and path; groups of the pattern become keyword arguments."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Register a handler; the first pattern that matches the whole path wins."""
        self._routes.append((method, re.compile(pattern), handler))

    def resolve(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """Find the handler. Raises Refused (404 or 405)."""
        known = False
        for verb, pattern, handler in self._routes:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            known = True
            if verb in (method, "ANY"):
                return handler, {name: unquote(unquote(v)) for name, v in found.groupdict().items() if v}
        if known:
            raise Refused(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed on {path}")
        raise Refused(404, "NOT_FOUND", f"path {path} was not found")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "miniature-harbor"
    timeout = 300
    answer: Callable[[Request], Response]

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        scopes = tuple(part for key, value in pairs if key == "scope" for part in value.split())
        headers = {name.title(): value for name, value in self.headers.items()}
        body = Body(self.rfile, headers)
        request = Request(self.command, parts.path, dict(pairs), parts.query, scopes, headers, body)
        started = time.monotonic()
        response = type(self).answer(request)
        self._send(response)
        elapsed = time.monotonic() - started
        log.info("%s %s %d %.3fs", self.command, parts.path, response.status, elapsed)
        if not body.drain():
            self.close_connection = True

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        whole = isinstance(response.body, bytes)
        if isinstance(response.body, bytes) and not any(
            h.lower() == "content-length" for h in response.headers
        ):
            if response.status not in (204, 304):
                self.send_header("Content-Length", str(len(response.body)))
        elif not whole and "Content-Length" not in response.headers:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        for part in (response.body,) if isinstance(response.body, bytes) else response.body:
            self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve


def guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Turn what a handler raises into an answer: Refused as it says, anything else into a 500."""

    def safe(request: Request) -> Response:
        try:
            return answer(request)
        except Refused as refusal:
            return refusal.response()
        except (ConnectionError, TimeoutError) as error:
            log.warning("%s %s: %s", request.method, request.path, error)
            return Refused(502, "BAD_GATEWAY", str(error)).response()
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            return Refused(500, "UNKNOWN", f"internal server error: {error}").response()

    return safe


class Server(ThreadingHTTPServer):
    """Serves one answer function on a port, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, answer: Callable[[Request], Response], address: str = "") -> None:
        handler = type("Handler", (_Handler,), {"answer": staticmethod(guarded(answer))})
        super().__init__((address, port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a traceback."""
        log.debug("connection of %s ended: %s", client_address, sys.exc_info()[1])


def setup_logging(level: str = "INFO") -> None:
    """Log to standard error, from where the syslog driver takes it."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s [%(levelname)s] [%(name)s] %(message)s"
    )


def heed_sigterm() -> None:
    """End at once when asked. Without this a PID 1 does not hear SIGTERM, and `down` waits ten seconds."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
