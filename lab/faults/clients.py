"""Clients of a site under test: one that writes to its database, one that pushes images; and what they have seen."""

import itertools
from pathlib import Path

from lab.faults.processes import Run
from lab.faults.stage import Stage, read_lines, wait_for


class Clients:
    """A load in processes of its own, each with a log of what was acknowledged and when.

    Args:
        stage: the site.

    Attributes:
        writes_log, pushes_log: where the loads note what they do; there once they are started.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.writes_log = self.pushes_log = Path("/dev/null")
        self._loads: list[Run] = []

    def start_loads(self, stamp: str, *, pushes: bool = True, each_node: bool = False) -> None:
        """Start the writer, and the pusher unless told not to.

        Args:
            stamp: names the logs.
            pushes: load Harbor too.
            each_node: one writer a node, that never waits for another node.
        """
        self.writes_log = self.stage.directory / f"{stamp}.writes"
        self.pushes_log = self.stage.directory / f"{stamp}.pushes"
        self._load("writer:write", self.writes_log, each_node=each_node)
        if pushes:
            self._load("pusher:push", self.pushes_log)

    def end_loads(self) -> None:
        """End them; what they have seen stays."""
        for load in self._loads:
            load.end()
        self._loads = []

    def _load(self, function: str, log: Path, **more: bool) -> None:
        name, target = function.partition(":")[0], f"lab.faults.{function}"
        site_file = str(self.stage.site_file)
        self._loads.append(self.stage.nursery.call(name, target, site_file=site_file, log=str(log), **more))

    def acknowledged(self) -> dict[int, float]:
        """The ids that the database acknowledged, with the wall time."""
        return {line["ack"]: line["t"] for line in read_lines(self.writes_log) if "ack" in line}

    def pushed(self) -> dict[str, float]:
        """The digests that Harbor acknowledged, with the wall time."""
        return {line["digest"]: line["ended"] for line in read_lines(self.pushes_log) if "digest" in line}

    def first_push_after(self, moment: float, limit: float = 30.0) -> float:
        """Seconds from a moment to the end of the first push that began after it and succeeded."""
        good: list[float] = []

        def found() -> bool:
            lines = [
                line for line in read_lines(self.pushes_log) if "digest" in line and line["begun"] > moment
            ]
            good.extend(line["ended"] for line in lines)
            return bool(good)

        wait_for(found, limit, "no push after it")
        return min(good) - moment

    def first_commit_on(self, node: str, moment: float, limit: float = 30.0) -> float:
        """Seconds from a moment to the first write after it that a node's database acknowledged."""
        address = self.stage.site.node(node).address
        good: list[float] = []

        def found() -> bool:
            lines = [line for line in read_lines(self.writes_log) if "ack" in line and line["t"] > moment]
            good.extend(line["t"] for line in lines if line["host"] == address)
            return bool(good)

        wait_for(found, limit, f"no commit on {node}")
        return min(good) - moment

    def write_gap(self) -> float:
        """The longest time without an acknowledged write to the database, in seconds."""
        times = sorted(self.acknowledged().values())
        return max(late - early for early, late in itertools.pairwise(times))

    def push_gap(self, after: float) -> float:
        """The longest time, from a moment on, between the ends of two successful pushes, in seconds."""
        early, late = self.push_pause(after)
        return late - early

    def push_pause(self, after: float) -> tuple[float, float]:
        """The wall times between which no push ended for the longest time, from a moment on."""
        times = sorted(end for end in self.pushed().values() if end > after - 2)
        return max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])
