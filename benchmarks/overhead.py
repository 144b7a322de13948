"""What orchestration itself costs: a flow's seconds less those of its remote commands, round trips, Prefect calls."""

import contextlib
import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import Figure, covered, table
from benchmarks.lab_site import ROUNDS, CannotRun, repeat, stage_of
from lab.faults.stage import Stage, wait_for
from lab.faults.unattended import Unattended

_END_S = 180.0


@dataclass
class Counts:
    """What one run of a flow did.

    Attributes:
        headline: how it ended.
        wall_s: seconds from its call to its return.
        remote: begin and end of each remote command, in seconds from the call; those still running end with it.
        calls: requests to Prefect's API by HTTP; its events and logs go in batches of their own and are among them.
    """

    headline: str = ""
    wall_s: float = 0.0
    remote: list[tuple[float, float]] = field(default_factory=list)
    calls: int = 0

    @property
    def own_s(self) -> float:
        """Seconds in which no remote command was running."""
        return self.wall_s - covered((begin, min(end, self.wall_s)) for begin, end in self.remote)


def run(lab: str, rounds: int = ROUNDS) -> list[str]:
    """Measure each flow that the fault suite calls, and how soon a deployment's run begins; lines for a reader.

    Raises:
        CannotRun: there is no lab on this machine.
    """
    stage = stage_of(lab)
    seen: dict[str, list[Counts]] = {}

    def once() -> None:
        for name, counts in one_round(stage):
            print(f"        {name}: {_told([counts])}", flush=True)
            seen.setdefault(name, []).append(counts)

    stopped = repeat(rounds, once)
    lines = [f"{name}: {_told(counts)}" for name, counts in seen.items()]
    return [*lines, *stopped, *first_lines(stage, rounds)]


def one_round(stage: Stage) -> Iterator[tuple[str, Counts]]:
    """Call each flow once where it has something to do, and bootstrap where it has not."""
    stage.restore()
    yield "check", counted(stage, "check")
    old, new = stage.primary, stage.standby
    stage.lab.stop(old)
    yield "failover, power cut", counted(stage, "failover", expected_primary=old)
    stage.lab.start(old)
    yield "rejoin", counted(stage, "rejoin", node=old)
    stage.restore()
    yield "switchover", counted(stage, "switchover", to=stage.peer(new))
    yield "nightly_backup", counted(stage, "nightly_backup")
    yield "bootstrap, nothing to do", counted(stage, "bootstrap")


def counted(stage: Stage, flow: str, **parameters: Any) -> Counts:
    """Run a flow in a process of its own that counts.

    Raises:
        AssertionError: it failed.
    """
    given = {"flow": flow, "parameters": {"site": stage.name, **parameters}}
    found = stage.nursery.call(f"counted-{flow}", "benchmarks.overhead:count", **given).wait(_END_S).result
    remote = [(begin, end) for begin, end in found.pop("remote")]
    return Counts(**found, remote=remote)


def count(flow: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run a flow here; returns the counts as plain data. Called in a process of its own, which is changed for good."""
    work = getattr(importlib.import_module(f"flows.{flow}"), flow)
    counts = Counts()
    begun = time.monotonic()
    _note_channels(lambda begin, end: counts.remote.append((begin - begun, end - begun)))

    def add() -> None:
        counts.calls += 1

    _note_calls(add)
    result = work(**parameters)
    counts.wall_s = time.monotonic() - begun
    counts.headline = result["headline"]
    return asdict(counts)


def first_lines(stage: Stage, rounds: int) -> list[str]:
    """Call the deployment of check, as an alert or an operator would, and see when its flow says something."""
    running = Figure("a deployment called: until its run is running")
    line = Figure("    until the flow's first line")

    def once() -> None:
        begun, run = time.time(), _call(stage, "check")
        wait_for(lambda: _state(stage, run)["state_type"] == "COMPLETED", _END_S, "it does not end")
        started = datetime.fromisoformat(_state(stage, run)["start_time"]).timestamp()
        running.add(started - begun)
        line.add(_first_line(stage, run) - begun)

    with Unattended(stage, calls=False):
        stopped = repeat(rounds, once)
    return [*table([running, line]), *stopped]


def _call(stage: Stage, deployment: str) -> str:
    asked = {"deployments": {"name": {"any_": [deployment]}}}
    found = stage.orchestrator.api("/deployments/filter", asked)
    if not found:
        raise CannotRun(f"the deployment {deployment} is not registered")
    made = stage.orchestrator.api(
        f"/deployments/{found[0]['id']}/create_flow_run",
        {"parameters": {"site": stage.name}, "state": {"type": "SCHEDULED"}},
    )
    return str(made["id"])


def _state(stage: Stage, run: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.orchestrator.api(f"/flow_runs/{run}")
    return found


def _first_line(stage: Stage, run: str) -> float:
    """Wall time of the first line that the flow itself logged."""
    asked = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    lines: list[dict[str, Any]] = []

    def there() -> bool:
        lines.extend(
            line
            for line in stage.orchestrator.api("/logs/filter", asked)
            if line["name"] == "prefect.flow_runs" and not line["message"].startswith("Beginning")
        )
        return bool(lines)

    wait_for(there, 30.0, "no line of the run is there")
    return datetime.fromisoformat(lines[0]["timestamp"]).timestamp()


def _note_channels(note: Callable[[float, float], None]) -> None:
    from tasks.hosts.ssh import Connection

    whole = Connection.channel

    @contextlib.contextmanager
    def noted(self: Connection, *args: Any, **kwargs: Any) -> Iterator[Any]:
        begun = time.monotonic()
        try:
            with whole(self, *args, **kwargs) as channel:
                yield channel
        finally:
            note(begun, time.monotonic())

    Connection.channel = noted  # type: ignore[method-assign]


def _note_calls(note: Callable[[], None]) -> None:
    import httpx

    api = urlsplit(os.environ["PREFECT_API_URL"]).port
    once, later = httpx.Client.send, httpx.AsyncClient.send

    def send(self: httpx.Client, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        if request.url.port == api:
            note()
        return once(self, request, **kwargs)

    async def send_later(
        self: httpx.AsyncClient, request: httpx.Request, *args: Any, **kwargs: Any
    ) -> httpx.Response:
        if request.url.port == api:
            note()
        return await later(self, request, *args, **kwargs)

    httpx.Client.send = send  # type: ignore[method-assign]
    httpx.AsyncClient.send = send_later  # type: ignore[method-assign]


def _told(counts: list[Counts]) -> str:
    wall, own = [each.wall_s for each in counts], [each.own_s for each in counts]
    trips, calls = [float(len(each.remote)) for each in counts], [float(each.calls) for each in counts]
    return (
        f"{_middle(wall, 1)} s, without remote commands {_middle(own, 1)} s; "
        f"{_middle(trips)} SSH round trips, {_middle(calls)} requests to Prefect"
    )


def _middle(values: list[float], digits: int = 0) -> str:
    spread = f" ({min(values):.{digits}f}..{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.{digits}f}{spread}"
