"""The way from the watcher's numbers to a run, with the parts that an operator has: Prometheus, Alertmanager, receiver.

Prometheus and Alertmanager are Debian's, and take the files that are shipped; changed in them are addresses, and the
place of the token.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
ALERTS = REPOSITORY / "deployments" / "alerts"
_ANSWERS_S = 60.0


class AlertChain:
    """Runs the three of them for a while; as a context.

    Args:
        directory: for their files.
        metrics_port: where a watcher tells its numbers on loopback.
        environment: of the receiver; it finds Prefect by it.

    Attributes:
        port: of Alertmanager.
    """

    def __init__(self, directory: Path, metrics_port: int, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.metrics_port = metrics_port
        self.environment = dict(environment)
        self.port, self._receiver_port, self._prometheus_port = free_port(), free_port(), free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "AlertChain":
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._receiver()
            self._alertmanager()
            self._prometheus()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop all three."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._processes = {}

    def told(self) -> str:
        """The last lines of each."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in logs)

    @property
    def prometheus(self) -> str:
        """Address of Prometheus."""
        return f"http://127.0.0.1:{self._prometheus_port}"

    @property
    def alertmanager(self) -> str:
        """Address of Alertmanager."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self, name: str) -> None:
        """Stop one of them: receiver, alertmanager or prometheus."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(20)

    def firing(self) -> set[str]:
        """The alerts that Prometheus holds for firing now."""
        url = f"{self.prometheus}/api/v1/alerts"
        with urllib.request.urlopen(url, timeout=5) as answer:
            alerts: list[dict[str, Any]] = yaml.safe_load(answer.read())["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    # --- the three ---

    def _receiver(self) -> None:
        token = self.directory / "receiver-token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        shutil.copy(REPOSITORY / "deployments" / "receiver.example.yml", self.directory / "receiver.yml")
        argv = [sys.executable, "-m", "deployments.cli", "receive"]
        argv += ["--config", str(self.directory / "receiver.yml"), "--port", str(self._receiver_port)]
        self._spawn("receiver", argv, self._receiver_port)

    def _alertmanager(self) -> None:
        written = yaml.safe_load((ALERTS / "alertmanager.yml").read_text())
        (hook,) = (one for one in written["receivers"] if one["name"] == "harbor-ha")
        (webhook,) = hook["webhook_configs"]
        webhook["url"] = f"http://127.0.0.1:{self._receiver_port}/alertmanager"
        webhook["http_config"]["authorization"]["credentials_file"] = str(self.directory / "receiver-token")
        self._write("alertmanager.yml", written)
        argv = [_program("prometheus-alertmanager"), f"--config.file={self.directory}/alertmanager.yml"]
        argv += [f"--storage.path={self.directory}/alerts", "--cluster.listen-address="]
        self._spawn("alertmanager", [*argv, f"--web.listen-address=127.0.0.1:{self.port}"], self.port)

    def _prometheus(self) -> None:
        job = {
            "job_name": "harbor-ha",
            "scrape_interval": "5s",
            "static_configs": [{"targets": [f"127.0.0.1:{self.metrics_port}"]}],
        }
        alertmanager = {"static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}]}
        written = {
            "rule_files": [str(ALERTS / "prometheus-rules.yml")],
            "scrape_configs": [job],
            "alerting": {"alertmanagers": [alertmanager]},
        }
        self._write("prometheus.yml", written)
        argv = [_program("prometheus"), f"--config.file={self.directory}/prometheus.yml"]
        argv += [f"--storage.tsdb.path={self.directory}/series"]
        address = f"--web.listen-address=127.0.0.1:{self._prometheus_port}"
        self._spawn("prometheus", [*argv, address], self._prometheus_port)

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        (self.directory / name).write_text(yaml.safe_dump(document))

    def _spawn(self, name: str, argv: list[str], port: int) -> None:
        log = self.directory / f"{name}.log"
        with log.open("wb") as written:
            self._processes[name] = subprocess.Popen(
                argv,
                cwd=REPOSITORY,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        deadline = time.monotonic() + _ANSWERS_S
        while not _listens(port):
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} does not listen: {log.read_text()[-1500:]}")
            time.sleep(0.1)


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: python -m lab.packages"
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
