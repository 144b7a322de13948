"""What the page tells to copy works for the users that it names: the UI of the unit, the token of Alertmanager."""

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from deployments.receiver import read_receiver_file

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
INSTALLER = ROOT / "scripts" / "install-orchestrator"
UNIT = ROOT / "deployments" / "systemd" / "prefect-server.service"
SERVICE_USER, ALERTMANAGER_USER = "daemon", "nobody"
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users"),
]

SERVE_UI = """
import json, pathlib, sys
import prefect
venv = pathlib.Path(sys.argv[1])
prefect.__ui_static_subpath__, prefect.__ui_v2_static_subpath__ = venv / "ui_build", venv / "ui_v2_build"
from fastapi.testclient import TestClient
from prefect.server.api.server import create_ui_app
client = TestClient(create_ui_app(ephemeral=False), headers={"Accept": "text/html"})
page, settings = client.get("/"), client.get("/ui-settings")
print("answer:" + json.dumps([page.status_code, "<html" in page.text, settings.json()["api_url"]]))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_user(user: str, argv: list[str]) -> list[str]:
    known = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={known.pw_uid}", f"--regid={known.pw_gid}", "--clear-groups", *argv]


def test_the_unit_of_the_server_has_a_ui_where_the_venv_is_read_only(place: Path) -> None:
    """It said that the UI will not be available; and the browser was told to ask its own 127.0.0.1."""
    state, venv = place / "state", place / "venv"
    state.mkdir()
    # Root may write everywhere: below a file nobody can.
    venv.touch()
    lines = UNIT.read_text().replace("/var/lib/prefect", str(state)).splitlines()
    given = dict(
        line.removeprefix("Environment=").split("=", 1) for line in lines if line.startswith("Environment=")
    )
    done = subprocess.run(
        [sys.executable, "-c", SERVE_UI, str(venv)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(state),
            "PREFECT_API_URL": "http://127.0.0.1:4200/api",
            **given,
        },
        cwd=state,
        capture_output=True,
        text=True,
        timeout=120,
    )
    (answer,) = re.findall(r"^answer:(.*)$", done.stdout, re.M) or [done.stderr[-2000:]]
    assert json.loads(answer) == [200, True, "/api"]


def token_commands(place: Path) -> str:
    """What the installer and then the page do for the token, with the directories and users of this test."""
    text = INSTALLER.read_text()
    functions = [
        re.search(rf"^{name}\(\) {{\n.*?^}}\n", text, re.M | re.S) for name in ("give", "make_receiver")
    ]
    draw = re.search(r"^draw\(\).*\n", text, re.M)
    assert draw is not None
    places = f"{draw[0]}root= etc={place}/harbor-ha user={SERVICE_USER} checkout={ROOT}\ndid() {{ :; }}\n"
    made_there = places + "".join(found[0] for found in functions if found) + "make_receiver\n"
    (block,) = [
        text
        for text in re.findall(r"```\n(.*?)```", PAGE.read_text(), re.S)
        if "receiver-token" in text and "install -m" in text
    ]
    for theirs, here in (
        ("/etc/harbor-ha", f"{place}/harbor-ha"),
        ("/etc/prometheus", f"{place}/prometheus"),
        ("-o prometheus", f"-o {ALERTMANAGER_USER}"),
    ):
        assert theirs in block
        block = block.replace(theirs, here)
    return made_there + block


@pytest.fixture
def made(place: Path) -> Path:
    """Directories as the page makes them, and the token after its commands."""
    group = pwd.getpwnam(SERVICE_USER).pw_gid
    (place / "harbor-ha").mkdir(0o750)
    os.chown(place / "harbor-ha", 0, group)
    (place / "prometheus").mkdir(0o755)
    subprocess.run(["bash", "-ec", token_commands(place)], check=True, timeout=20)
    return place


def test_receiver_and_alertmanager_read_the_token_each_as_its_own_user(made: Path) -> None:
    files = {
        SERVICE_USER: made / "harbor-ha" / "receiver-token",
        ALERTMANAGER_USER: made / "prometheus" / "harbor-ha-token",
    }
    read = {
        (user, reader): subprocess.run(
            as_user(reader, ["cat", str(path)]), capture_output=True, text=True
        ).stdout
        for user, path in files.items()
        for reader in files
    }
    token = read[SERVICE_USER, SERVICE_USER]
    assert len(token.strip()) == 64
    assert read[ALERTMANAGER_USER, ALERTMANAGER_USER] == token
    assert read[SERVICE_USER, ALERTMANAGER_USER] == read[ALERTMANAGER_USER, SERVICE_USER] == ""
    assert read_receiver_file(made / "harbor-ha" / "receiver.yml").token == token.strip()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def listening(heard: list[str | None]) -> Iterator[int]:
    """A receiver that keeps how it is called."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.headers.get("Authorization"))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not into the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def until(condition: object, limit: float = 30.0) -> None:
    assert callable(condition)
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(ALERTMANAGER is None, reason="Alertmanager comes with Debian's prometheus-alertmanager")
def test_the_real_alertmanager_sends_the_token_with_the_shipped_file(made: Path) -> None:
    heard: list[str | None] = []
    port = free_port()
    with listening(heard) as receiver:
        written = yaml.safe_load((ROOT / "deployments" / "alerts" / "alertmanager.yml").read_text())
        text = yaml.safe_dump(written).replace("127.0.0.1:9095", f"127.0.0.1:{receiver}")
        config = made / "prometheus" / "alertmanager.yml"
        config.write_text(text.replace("/etc/prometheus", f"{made}/prometheus"))
        storage = made / "data"
        storage.mkdir()
        shutil.chown(storage, ALERTMANAGER_USER)
        argv = [str(ALERTMANAGER), f"--config.file={config}", f"--storage.path={storage}"]
        argv += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
        log = (made / "log").open("wb")
        with log, subprocess.Popen(as_user(ALERTMANAGER_USER, argv), stdout=log, stderr=log) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                until(lambda: answers(f"{url}/-/ready"))
                alert = [{"labels": {"alertname": "HarborPrimaryDown", "site": "main", "node": "node-a"}}]
                request = urllib.request.Request(
                    f"{url}/api/v2/alerts", json.dumps(alert).encode(), {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request, timeout=10).close()
                until(lambda: heard)
            finally:
                process.terminate()
                process.wait(20)
    token = (made / "harbor-ha" / "receiver-token").read_text().strip()
    assert heard[0] == f"Bearer {token}", (made / "log").read_text()[-1000:]


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True
