"""One watcher on one core, and many sites: CPU, memory, lateness, and how soon an outage is called."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks.site import ROOT
from blocks import HarborSite, SshHost
from deployments.watch.site_watch import SiteWatch
from deployments.watch.watcher import Watched, Watcher
from flows.rules.watch import Order
from tasks.hosts.connection import connect
from tasks.observation.beacon import BEACON, Listener
from tests.unit.harbor_site import make_site

_CUT_PART = 0.1
_REQUEST: dict[str, Any] = {"silence_s": 60.0}


@dataclass(frozen=True)
class Seen:
    """What was measured.

    Attributes:
        cpu: seconds of this process for a second of the clock.
        mb: resident memory after a third of the time, and at the end.
        late_s: by how much the latest look was late.
        stood_still: how often what was seen was void.
        noticed_s: from the last line of each primary that was cut off to the call.
        missed: outages that were not called.
        false_calls: calls for sites that were well.
        lines: lines a second.
    """

    cpu: float
    mb: tuple[float, float]
    late_s: float
    stood_still: int
    noticed_s: tuple[float, ...]
    missed: int
    false_calls: int
    lines: float


class Sink:
    """The input of a beacon on a pipe: nobody reads it."""

    def write(self, data: bytes) -> int:
        """Take it."""
        return len(data)

    def flush(self) -> None:
        """Nothing is kept."""


class PipeStream:
    """A beacon on a pipe."""

    def __init__(self, handle: int) -> None:
        self.stdin, self.stdout = Sink(), os.fdopen(handle, "rb")


def measure(sites: int, beat_s: float, seconds: float, *, ssh: bool, core: int | None = 0) -> Seen:
    """Watch so many sites of two nodes; after two thirds of the time, a tenth of the primaries falls silent.

    Args:
        ssh: over real SSH connections of loopback; else over pipes, and the transport is not measured.
        core: the one that this process may use; the beacons have the others. None: all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, sites * 12 + 256)), hard))
    calls: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory, beacons(sites * 2, beat_s, ssh, core) as (openers, cut):
        items = _sites(make_site(Path(directory)), sites, beat_s, openers, calls)
        watcher = Watcher(items, rounds=False)
        thread = threading.Thread(target=watcher.run, daemon=True)
        thread.start()
        try:
            _await_all(items, 60 + sites)
            return _observe(watcher, items, seconds, calls, cut)
        finally:
            watcher.stop()
            thread.join(30)


def _observe(
    watcher: Watcher, items: list[Watched], seconds: float, calls: dict[str, float], cut: Any
) -> Seen:
    listeners = [listener for item in items for listener in item.watch.listeners.values()]
    watcher.worst_late_s = 0.0
    before = sum(item.watch.counts.stood_still for item in items)
    begun, cpu, lines = time.monotonic(), time.process_time(), sum(one.lines for one in listeners)
    time.sleep(seconds / 3)
    early = _resident_mb()
    time.sleep(seconds / 3)
    chosen = range(0, len(items), round(1 / _CUT_PART))
    last: dict[str, float] = {}
    for number in chosen:
        cut(number * 2)
        last[items[number].name] = time.monotonic()
    time.sleep(seconds / 3)
    passed = time.monotonic() - begun
    return Seen(
        (time.process_time() - cpu) / passed,
        (early, _resident_mb()),
        watcher.worst_late_s,
        sum(item.watch.counts.stood_still for item in items) - before,
        tuple(sorted(calls[name] - at for name, at in last.items() if name in calls)),
        sum(name not in calls for name in last),
        sum(name not in last for name in calls),
        (sum(one.lines for one in listeners) - lines) / passed,
    )


def _sites(
    model: HarborSite, count: int, beat_s: float, openers: list[Any], calls: dict[str, float]
) -> list[Watched]:
    items = []
    for number in range(count):
        site = model.model_copy(update={"name": f"site-{number}"})
        listeners = {}
        for place, node in enumerate(("node-a", "node-b")):
            open_stream, hang_up = openers[number * 2 + place]
            listeners[node] = Listener(node, {**_REQUEST, "beat_s": beat_s}, open_stream, hang_up)

        def start(name: str, order: Order) -> str:
            calls.setdefault(name, time.monotonic())
            return "run"

        items.append(Watched(SiteWatch(site, listeners, beat_s, start=start)))
    return items


def _await_all(items: list[Watched], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    waiting = [item for item in items if item.watch.memory.primary is None]
    while waiting:
        if time.monotonic() > deadline:
            errors = [one.error for item in waiting for one in item.watch.listeners.values()]
            raise RuntimeError(f"{len(waiting)} sites were never heard, such as: {errors[:3]}")
        time.sleep(0.2)
        waiting = [item for item in waiting if item.watch.memory.primary is None]


@contextmanager
def beacons(nodes: int, beat_s: float, ssh: bool, core: int | None) -> Iterator[tuple[list[Any], Any]]:
    """Run the beacons; give what opens each of them and hangs it up, and what cuts one off."""
    pipes = [] if ssh else [os.pipe() for _ in range(nodes)]
    given = json.dumps({"pipes": [write for _, write in pipes], "beat_s": beat_s})
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.beacons", given],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[write for _, write in pipes],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _, write in pipes:
            os.close(write)
        everything = os.sched_getaffinity(0)
        try:
            if core is not None and len(everything) > 1:
                os.sched_setaffinity(0, {core})
                os.sched_setaffinity(process.pid, everything - {core})
            if ssh:
                openers = _over_ssh(nodes, json.loads(process.stdout.readline()))
            else:
                openers = [_over_pipe(read) for read, _ in pipes]
            commands = process.stdin

            def cut(number: int) -> None:
                commands.write(f"cut {number}\n")
                commands.flush()

            yield openers, cut
        finally:
            process.kill()
            os.sched_setaffinity(0, everything)


def _over_pipe(handle: int) -> Any:
    opened = threading.Event()

    @contextmanager
    def open_stream(limit_s: float) -> Iterator[Any]:
        if opened.is_set():
            # What was cut off is not there a second time.
            raise ConnectionRefusedError
        opened.set()
        yield PipeStream(handle)

    return open_stream, lambda: None


def _over_ssh(nodes: int, server: dict[str, Any]) -> list[Any]:
    def opener(number: int) -> Any:
        host = connect(
            SshHost(
                name=f"n{number}",
                address="127.0.0.1",
                port=server["port"],
                user=f"n{number}",
                private_key=SecretStr(server["private_key"]),
                host_key=server["host_key"],
            )
        )
        return (lambda limit: host.stream(["python3", "-u", "-c", BEACON], timeout=limit)), host.close

    return [opener(number) for number in range(nodes)]


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def told(sites: int, beat_s: float, seconds: float, *, ssh: bool) -> list[str]:
    """Measure, and say it in lines."""
    seen = measure(sites, beat_s, seconds, ssh=ssh)
    way = "SSH" if ssh else "pipes"
    noticed = (
        f"{statistics.median(seen.noticed_s):.1f} s (worst {max(seen.noticed_s):.1f})"
        if seen.noticed_s
        else "-"
    )
    return [
        f"{sites} sites, a line each {beat_s:.0f} s over {way}, {seconds:.0f} s on one core: "
        f"{seen.cpu:.2f} of the core, {seen.lines:.0f} lines a second",
        f"    memory {seen.mb[0]:.0f} MB after a third, {seen.mb[1]:.0f} MB at the end",
        f"    latest look {seen.late_s * 1000:.0f} ms late; void: {seen.stood_still}",
        f"    {len(seen.noticed_s) + seen.missed} primaries cut off at once: called after {noticed}; "
        f"missed {seen.missed}, false {seen.false_calls}",
    ]


def run(seconds: float = 180.0) -> list[str]:
    """The fleet that one core is for."""
    return [*told(200, 1.0, seconds, ssh=True), *told(1000, 5.0, seconds, ssh=False)]
