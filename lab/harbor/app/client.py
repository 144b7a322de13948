"""Requests from core to the other containers, streaming in both directions."""

import base64
import http.client
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNK = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """An upstream's answer; the connection is closed when `stream` ends or `read` returns."""

    status: int
    headers: Mapping[str, str]
    connection: http.client.HTTPConnection
    raw: http.client.HTTPResponse

    def stream(self) -> Iterator[bytes]:
        """The body in pieces."""
        try:
            while part := self.raw.read(CHUNK):
                yield part
        finally:
            self.connection.close()

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.stream())


def basic(user: str, password: str) -> str:
    """The value of a Basic Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def call(
    base: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] | None = None,
    chunked: bool = False,
    timeout: float = 60.0,
) -> Answer:
    """One request to `base` (http://name:port). Raises OSError or http.client.HTTPException.

    `body` may be an iterator; then the headers give its length, or `chunked` is set.
    """
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}), encode_chunked=chunked)
        raw = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    return Answer(raw.status, {name.title(): value for name, value in raw.getheaders()}, connection, raw)
