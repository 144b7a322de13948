"""The orchestrator of a lab: a Prefect server, the process that serves the flows, and their command line.

The same parts as in production (`deployments/systemd`), with SQLite instead of PostgreSQL for the server.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.shell import LabError, step, tail
from lab.topology import REPOSITORY, STATE
from tasks.operation.holder import process_of

# The first start runs the server's migrations: 30 s on two slow cores.
_SERVER_LIMIT_S = 180.0
_SERVE_LIMIT_S = 120.0


class Orchestrator:
    """Prefect for one lab.

    Args:
        lab: the lab's name; everything is kept in its directory.
        port: the server's port on loopback; when not given, the one it had unless a stranger has it, else a free
            one.
    """

    def __init__(self, lab: str, port: int | None = None) -> None:
        self.directory = STATE / lab / "orchestrator"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or self._usable_port()

    @property
    def url(self) -> str:
        """The address of the Prefect UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this server."""
        return {
            **os.environ,
            "PREFECT_HOME": str(self.directory / "prefect"),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_UI_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "HARBOR_HA_HOME": str(self.directory / "home"),
        }

    def up(self, site_file: Path, site: str, *, serve: bool = True, watch: bool = False) -> None:
        """Start the server, apply the site file and serve the flows; what runs already stays.

        Args:
            serve: without it, nothing runs by schedule, and flows run only where somebody calls them.
            watch: with the watcher, as an operator serves them. Most tests break a site and call failover themselves.

        Raises:
            LabError: a part did not come up; the end of its log is in the message.
        """
        with step(f"Prefect server on {self.url}"):
            if not self._answers():
                if self.port != self._known_port():
                    # It would serve the flows to whoever has that port now.
                    self._end("serve")
                (self.directory / "port").write_text(str(self.port))
                self._spawn(
                    "server", [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
                )
                self._await("server", self._answers, _SERVER_LIMIT_S)
        with step("site file applied"):
            self.command("apply", str(site_file))
        if not serve:
            return
        with step("flows served"):
            if not self._alive("serve"):
                watcher = ["--metrics-port", str(free_port())] if watch else ["--no-watch"]
                argv = [sys.executable, "-m", "deployments.cli", "serve", *watcher, "--site", site]
                self._spawn("serve", argv)
                self._await("serve", self._serves, _SERVE_LIMIT_S)

    def down(self) -> None:
        """Stop both processes, the serving one first."""
        self._end("serve")
        self._end("server")

    def command(self, *arguments: str, check: bool = True, timeout: float = 3600.0) -> int:
        """Run `harbor-ha` as an operator would, its output on ours.

        Raises:
            LabError: it failed, with check.
        """
        argv = [sys.executable, "-m", "deployments.cli", *arguments]
        status = subprocess.run(argv, env=self.environment, cwd=REPOSITORY, timeout=timeout).returncode
        if check and status:
            raise LabError(
                f"`harbor-ha {' '.join(arguments)}` ended with status {status}.", where="orchestrator"
            )
        return status

    def await_run(self, deployment: str, limit: float) -> str:
        """Wait for the newest run of a deployment, which somebody else has started, and return its headline.

        Args:
            limit: seconds.

        Raises:
            LabError: there is none, it has not ended, or it did not end well.
        """
        asked = {"deployments": {"name": {"any_": [deployment]}}, "sort": "START_TIME_DESC", "limit": 1}
        deadline, state = time.monotonic() + limit, "never started"
        while time.monotonic() < deadline:
            found = self.api("/flow_runs/filter", asked)
            state = found[0]["state_type"] if found else state
            if state == "COMPLETED":
                return self.headline(deployment, str(found[0]["parameters"]["site"]))
            if state in ("FAILED", "CRASHED", "CANCELLED"):
                break
            time.sleep(0.3)
        raise LabError(f"The run of {deployment} is {state}.", where="orchestrator")

    def api(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the Prefect API: GET without a body, POST with one."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/api{path}", data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def headline(self, flow: str, site: str) -> str:
        """Read the first sentence of the newest report of a flow."""
        key = f"{flow.replace('_', '-')}-{site}"
        found = self.api("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}, "limit": 1})
        return str(found[0]["description"]) if found else "no report was published"

    def _spawn(self, name: str, argv: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                env=self.environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.directory / f"{name}.pid").write_text(str(process_of(process.pid)))

    def _end(self, name: str) -> None:
        """Ask a process that was started here to end, and kill it when it has not after 20 s."""
        pid = self._pid(name)
        if pid is not None:
            os.killpg(pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while self._pid(name) is not None and time.monotonic() < deadline:
                time.sleep(0.1)
            if self._pid(name) is not None:
                os.killpg(pid, signal.SIGKILL)
        (self.directory / f"{name}.pid").unlink(missing_ok=True)

    def _await(self, name: str, ready: Any, limit: float) -> None:
        deadline = time.monotonic() + limit
        while not ready():
            if not self._alive(name) or time.monotonic() > deadline:
                log = self.directory / f"{name}.log"
                raise LabError(f"{name} did not come up: {tail(log)}", where="orchestrator")
            time.sleep(0.3)

    def _answers(self) -> bool:
        try:
            # What answers on the port of a server that is gone is somebody else's.
            return self._alive("server") and bool(self.api("/health"))
        except OSError:
            return False

    def _serves(self) -> bool:
        try:
            found = self.api("/deployments/filter", {"limit": 50})
        except OSError:
            return False
        return any(
            deployment["name"] == "bootstrap" and deployment["status"] == "READY" for deployment in found
        )

    def _pid(self, name: str) -> int | None:
        """The process that was started, while it runs; after a reboot its number may be a stranger's."""
        try:
            noted = (self.directory / f"{name}.pid").read_text()
            pid = int(noted.split(":")[1])
        except (OSError, ValueError, IndexError):
            return None
        return pid if str(process_of(pid)) == noted else None

    def _alive(self, name: str) -> bool:
        return self._pid(name) is not None

    def _usable_port(self) -> int:
        known = self._known_port()
        if known is not None and (self._alive("server") or _is_free(known)):
            return known
        return 4200 if _is_free(4200) else free_port()

    def _known_port(self) -> int | None:
        try:
            return int((self.directory / "port").read_text())
        except (FileNotFoundError, ValueError):
            return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A restarted server may use a port that is still in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of loopback that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
