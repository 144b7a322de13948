"""A Prefect server of a test's own, with its UI and its services, on loopback and with an empty database."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def live_prefect(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `prefect server start`, and yield the address of its UI; what the test does itself goes to its API."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        **(settings or {}),
    }
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with background([sys.executable, *command], environment, home / "server.log"):
        deadline = time.monotonic() + 120
        while not _answers(f"{address}/api/health"):
            assert time.monotonic() < deadline, (home / "server.log").read_text()[-3000:]
            time.sleep(0.2)
        with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
            yield address


@contextlib.contextmanager
def background(argv: list[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a program in its own process group, and end all of it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
