"""The watcher and the process that serves the flows, as an operator runs them: nobody calls anything."""

import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from typing import Any

from lab.topology import REPOSITORY
from tests.alert_chain import free_port
from tests.lab.faults.stage import Stage, wait_for

_CLI = [sys.executable, "-m", "deployments.cli"]
_FENCES = ("Fence over SSH", "Fence by the site's command")
# What the program on a node is called there; in brackets, so that whoever looks does not find himself.
_BEACON = "observation.on_node[.]beacon"


class Unattended:
    """Runs both for a while, without schedules; as a context.

    Args:
        stage: the site, saved and healthy.
        calls: whether the watcher starts failovers; else Alertmanager must.

    Attributes:
        said: the watcher's lines, each with the wall time at which it came.
        port: where it tells its numbers on loopback.
    """

    def __init__(self, stage: Stage, *, calls: bool = True) -> None:
        self.stage = stage
        self.calls = calls
        self.said: list[tuple[float, str]] = []
        self.port = free_port()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Unattended":
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        self.begun = time.time()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _start(self) -> None:
        self._spawn("serve", "--no-watch")
        watch = self._spawn(
            "watch",
            "--with-input",
            "--site",
            self.stage.name,
            "--port",
            str(self.port),
            "--host",
            "127.0.0.1",
            *([] if self.calls else ["--no-calls"]),
        )
        threading.Thread(target=self._listen, args=(watch,), daemon=True).start()
        # A run that comes to its end: the flows are served now, and not by what was here before.
        wait_for(self._registered, 120.0, "the flows are not served")
        self.stage.orchestrator.command("run", "check", "--site", self.stage.name, "--watch", check=False)
        wait_for(self.calm, 60.0, self.told)

    def _registered(self) -> bool:
        asked = {"deployments": {"name": {"any_": ["check"]}}}
        return bool(self.stage.orchestrator.api("/deployments/filter", asked))

    def _spawn(self, *arguments: str) -> "subprocess.Popen[str]":
        log = (self.stage.directory / f"{arguments[0]}.log").open("a")
        with log:
            made = subprocess.Popen(
                [*_CLI, *arguments],
                env=self.stage.orchestrator.environment,
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.PIPE if arguments[0] == "watch" else log,
                text=True,
                start_new_session=True,
            )
        self._processes.append(made)
        return made

    def _listen(self, watch: "subprocess.Popen[str]") -> None:
        assert watch.stderr is not None
        for line in watch.stderr:
            self.said.append((time.time(), line.strip()))

    def end(self) -> None:
        """Kill the watcher as a power cut would, and ask the serving process to end."""
        for process in reversed(self._processes):
            process.kill() if process.args[3] == "watch" else process.terminate()  # type: ignore[index]
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            assert process.stdin is not None
            process.stdin.close()
        self._processes = []

    def restart(self) -> None:
        """Restart the orchestrator: Prefect's server, and both of these; what they did before is still counted."""
        orchestrator = self.stage.orchestrator
        self.end()
        orchestrator.down()
        orchestrator.up(self.stage.site_file, self.stage.name, serve=False)
        self._start()

    # --- what it makes of the site ---

    def metric(self, name: str, *labels: str) -> float | None:
        """A number at `/metrics` of the site; None when it is not told."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        found = [line for line in lines if line.startswith(f"harbor_ha_{name}{{")]
        told = [line for line in found if all(label in line for label in labels)]
        return float(told[0].rpartition(" ")[2]) if told else None

    def calm(self) -> bool:
        """Whether all is well, in the watcher's eyes, and both nodes are heard."""
        nodes = [self.metric("node_heard", f'node="{node}"') for node in self.stage.nodes]
        return self.metric("watch", 'state="CALM"') == 1.0 and nodes == [1.0] * len(nodes)

    def told(self) -> str:
        """Its last lines."""
        return "\n".join(line for _, line in self.said[-20:]) or "the watcher has said nothing"

    def noticed(self, after: float) -> float:
        """When it said first, after a moment, that it calls for a failover."""
        return min(at for at, line in self.said if at > after and ": CALL: " in line)

    def runs(self) -> list[dict[str, Any]]:
        """The runs of the deployment `failover` since the beginning, the first one first."""
        begun = datetime.fromtimestamp(self.begun, UTC).isoformat()
        asked = {
            "deployments": {"name": {"any_": ["failover"]}},
            "flow_runs": {"expected_start_time": {"after_": begun}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        found: list[dict[str, Any]] = self.stage.orchestrator.api("/flow_runs/filter", asked)
        return found

    def ended(self, run: dict[str, Any]) -> dict[str, float]:
        """The steps of a run that came to a good end, and the wall time at which they did."""
        asked = {"flow_runs": {"id": {"any_": [run["id"]]}}, "limit": 200}
        tasks = self.stage.orchestrator.api("/task_runs/filter", asked)
        return {
            task["name"].partition(":")[0]: seconds_of(task["end_time"])
            for task in tasks
            if task["state_type"] == "COMPLETED" and task["end_time"]
        }

    def split(self, cut: float, first_push: float) -> dict[str, float]:
        """Seconds from a power cut to each step of the way back.

        Args:
            cut: wall time of the cut.
            first_push: seconds from there to the end of the first push.
        """
        run = self.runs()[0]
        wait_for(lambda: "Promote the standby" in self.ended(run), 30.0, "Prefect tells of no promotion")
        ended = self.ended(run)
        return {
            "noticed": self.noticed(cut) - cut,
            "called": seconds_of(run["created"]) - cut,
            "running": seconds_of(run["start_time"]) - cut,
            "fenced": min(at for name, at in ended.items() if name in _FENCES) - cut,
            "promoted": ended["Promote the standby"] - cut,
            "first push": first_push,
        }

    def beacons(self) -> list[str]:
        """The nodes on which its program still runs."""
        return [
            node for node in self.stage.nodes if self.stage.shell(node, f"pgrep -f '{_BEACON}'", check=False)
        ]


def seconds_of(moment: str) -> float:
    """Wall time of a moment as Prefect tells it."""
    return datetime.fromisoformat(moment).timestamp()
