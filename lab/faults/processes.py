"""Flows and loads in processes of their own, forked from one that has everything imported."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.topology import REPOSITORY

# One count for all nurseries of a process: the second one's first answer was there already, by the first one.
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Run:
    """One child.

    Attributes:
        pid: its process id.
        out: where it leaves its result.
        asked: wall time at which it was asked to begin.
    """

    pid: int
    out: Path
    asked: float

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def wait(self, limit: float = 180.0) -> "Run":
        """Wait for its result, or for its end without one."""
        deadline = time.monotonic() + limit
        while not self.out.exists() and self.alive:
            assert time.monotonic() < deadline, f"{self.out.name} did not end in {limit:.0f} s:\n{self.log()}"
            time.sleep(0.02)
        return self

    def killed(self) -> bool:
        """Whether it ended without a result."""
        return not self.alive and not self.out.exists()

    @property
    def answer(self) -> dict[str, Any]:
        """What it left: `begun`, `ended`, and `result` or `error`."""
        self.wait()
        assert self.out.exists(), f"{self.out.name} left no result:\n{self.log()}"
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found

    @property
    def seconds(self) -> float:
        """Seconds from the call of the flow function to its return."""
        return float(self.answer["ended"] - self.answer["begun"])

    @property
    def result(self) -> dict[str, Any]:
        """What the flow returned; an assertion when it raised."""
        answer = self.answer
        assert "error" not in answer, f"{answer['error']['type']}: {answer['error']['text']}"
        result: dict[str, Any] = answer["result"]
        return result

    @property
    def headline(self) -> str:
        """The first sentence of the report."""
        return str(self.result["headline"])

    @property
    def refusal(self) -> str:
        """Why it refused; an assertion when it did not."""
        answer = self.answer
        assert "error" in answer, f"it did not refuse: {answer['result'].get('headline')}"
        return f"{answer['error']['type']}: {answer['error']['text']}"

    def records(self) -> list[dict[str, Any]]:
        """What it did so far, step by step."""
        file = Path(f"{self.out}.records")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def titles(self) -> list[str]:
        """The names of the steps so far."""
        return [record["title"] for record in self.records()]

    def log(self) -> str:
        """The end of what it said."""
        file = Path(f"{self.out}.log")
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""

    def end(self) -> None:
        """Ask it to end, and see that it did."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + 15
        while self.alive:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)


@dataclass
class Nursery:
    """The process that forks the children.

    Args:
        environment: what they need to find the Prefect server.
        directory: where they leave their results and logs.
    """

    environment: dict[str, str]
    directory: Path
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and wait until everything is imported."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        argv = [sys.executable, "-m", "lab.faults.run_flow", "--serve"]
        self._process = subprocess.Popen(
            argv,
            env=self.environment,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.directory / "nursery.log").open("a"),
            text=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == "ready\n", f"it does not start; see {self.directory}/nursery.log"

    def stop(self) -> None:
        """End it; the children that still run are not touched."""
        if self._process is not None:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(10)
            self._process = None

    def order(self, name: str, **order: Any) -> Run:
        """Fork a child for an order; see `lab.faults.run_flow`."""
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out = self.directory / f"{os.getpid()}-{next(_NUMBERS):04d}-{name}.json"
        # Of another day's process with this number.
        out.unlink(missing_ok=True)
        asked = time.time()
        self._process.stdin.write(json.dumps({**order, "out": str(out)}) + "\n")
        self._process.stdin.flush()
        return Run(int(self._process.stdout.readline()), out, asked)

    def flow(self, name: str, accident: dict[str, Any] | None = None, **parameters: Any) -> Run:
        """Run a flow."""
        return self.order(name, flow=name, parameters=parameters, accident=accident)

    def call(self, name: str, target: str, **parameters: Any) -> Run:
        """Run a function, given as `module:function`."""
        return self.order(name, call=target, parameters=parameters)
