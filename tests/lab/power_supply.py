"""The lab's machines behind an address, as a cloud's or a power supply's API: the orchestrator stands inside, too."""

import http.server
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lab.shell import LabError
from lab.site_lab import Lab
from lab.topology import ORCHESTRATOR, PAIR


@contextmanager
def power_supply(lab: Lab) -> Iterator[str]:
    """Serve `POST URL/NODE` on the lab's network: 200 when the node was seen without power; yield the URL."""
    key = secrets.token_urlsafe(16)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given, _, node = self.path.strip("/").partition("/")
            self.send_response(_switch_off(lab, node) if secrets.compare_digest(given, key) else 403)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((lab.node_address(ORCHESTRATOR), 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{lab.node_address(ORCHESTRATOR)}:{server.server_address[1]}/{key}"
        finally:
            server.shutdown()


def _switch_off(lab: Lab, node: str) -> int:
    if node not in PAIR:
        return 404
    try:
        lab.stop(node)
    except LabError:
        return 500
    return 200
