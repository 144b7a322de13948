"""The lab's Prefect server and the process that serves the flows: ours, or a stranger's with the same number."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab import orchestrator
from lab.orchestrator import Orchestrator
from tasks.operation.holder import process_of

pytestmark = pytest.mark.servers

_WAIT = [sys.executable, "-c", "print('here', flush=True); input()"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(orchestrator, "STATE", tmp_path)
    directory = tmp_path / "some" / "orchestrator"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[str]"]:
    """A process with a group of its own, which runs until it is told to end."""
    process = subprocess.Popen(
        _WAIT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    yield process
    process.communicate("\n", timeout=10)


def test_a_process_that_has_the_number_of_ours_after_a_reboot_is_left_alone(
    state: Path, stranger: "subprocess.Popen[str]"
) -> None:
    (state / "server.pid").write_text(str(replace(process_of(stranger.pid), start="17")))
    Orchestrator("some").down()
    assert stranger.poll() is None
    assert not (state / "server.pid").exists()


def test_our_own_process_is_ended(state: Path, stranger: "subprocess.Popen[str]") -> None:
    (state / "serve.pid").write_text(str(process_of(stranger.pid)))
    Orchestrator("some").down()
    assert stranger.wait(10) != 0


def test_a_port_that_a_stranger_has_meanwhile_is_not_asked_again(state: Path) -> None:
    """The server of another clone answered there, and would have got the site of this one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (state / "port").write_text(str(port))
        assert Orchestrator("some").port != port
        # While our own server runs, it is he who has the port.
        (state / "server.pid").write_text(str(process_of(os.getpid())))
        assert Orchestrator("some").port == port


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


def test_what_answers_on_our_port_is_ours_only_while_our_server_runs(state: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as other:
        threading.Thread(target=other.serve_forever).start()
        ours = Orchestrator("some", port=other.server_address[1])
        answered = [ours._answers()]
        (state / "server.pid").write_text(str(process_of(os.getpid())))
        answered.append(ours._answers())
        other.shutdown()
    assert answered == [False, True]


def test_a_server_that_is_gone_gets_its_port_back(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    (state / "port").write_text(str(port))
    assert Orchestrator("some").port == port


@pytest.mark.parametrize("noted", ["", "4711", "a:b:c:d:e:f", "::"])
def test_a_note_that_names_no_process_is_no_process(state: Path, noted: str) -> None:
    (state / "server.pid").write_text(noted)
    Orchestrator("some").down()
    assert not (state / "server.pid").exists()
