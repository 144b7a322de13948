"""A busy Prefect server is asked again; a server that stays busy says so."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from blocks import prefect_api as module


@contextmanager
def busy_server(times: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers 503 a number of times, and what it was sent."""
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(503 if len(seen) <= times else 201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


@pytest.mark.parametrize(("times", "status", "requests"), [(0, 201, 1), (3, 201, 4), (9, 503, 5)])
def test_a_request_is_sent_again_while_the_server_is_busy(
    times: int, status: int, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_PAUSES_S", (0.0,) * 4)
    with busy_server(times) as (url, seen), httpx.Client(transport=module.PatientTransport()) as client:
        answer = client.post(url, json={"a": 1})
    assert answer.status_code == status
    assert seen == [b'{"a":1}'] * requests
