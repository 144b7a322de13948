"""Harbor's log container: takes syslog lines over TCP and keeps a file for each service."""

import re
import socketserver
import threading
from pathlib import Path

from .web import heed_sigterm

DIRECTORY = Path("/var/log/docker")
PORT = 10514
ROTATE_BYTES = 50 * 1024 * 1024
_lock = threading.Lock()


def parse(line: str) -> tuple[str, str]:
    """Split one RFC 3164 line of Docker's syslog driver into the service's tag and the text for the file."""
    found = re.match(r"<\d+>(\w{3}\s+\d+ [\d:]{8}) (?:\S+ )?([\w.-]+)\[\d+\]: ?(.*)$", line)
    if found is None:
        return "unknown", line
    return found[2], f"{found[1]} {found[2]}: {found[3]}"


def append(directory: Path, tag: str, text: str, limit: int = ROTATE_BYTES) -> None:
    """Write a line to the service's file, which is put aside once it is longer than `limit` bytes."""
    path = directory / f"{tag}.log"
    with _lock:
        if path.exists() and path.stat().st_size > limit:
            path.replace(path.with_suffix(".log.1"))
        with path.open("a", errors="replace") as file:
            file.write(text + "\n")


class _Receiver(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for raw in self.rfile:
            append(DIRECTORY, *parse(raw.decode(errors="replace").rstrip("\r\n")))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Receive for ever."""
    heed_sigterm()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    _Server(("", PORT), _Receiver).serve_forever()


if __name__ == "__main__":
    main()
