"""A site that is watched without nodes: lines are put where beacons would put them."""

import contextlib
from collections.abc import Callable
from typing import Any

from blocks import HarborSite
from deployments.watch.site_watch import SiteWatch
from deployments.watch.watcher import Watched
from flows.rules.watch import Order
from tasks.clock import Moment
from tasks.observation.beacon import Listener
from tasks.observation.beats import Beat


class SilentListener(Listener):
    """Listens to nobody; the test says what was heard."""

    def __init__(self, node: str) -> None:
        super().__init__(node, {}, lambda limit: contextlib.nullcontext(), lambda: None)  # type: ignore[arg-type]
        self.asked_to_keep: list[tuple[str, str]] = []

    def start(self) -> None:
        """Nobody is there."""

    def keep(self, name: str, text: str) -> None:
        """Note what is to be kept."""
        self.asked_to_keep.append((name, text))

    def hears(self, beat: Beat) -> None:
        """A line has come."""
        self.beat, self.came_at = beat, beat.written_at


class Scene:
    """A site with its listeners, and the calls that were made."""

    def __init__(self, site: HarborSite, **given: Any) -> None:
        self.calls: list[tuple[str, Order]] = []
        self.troubles: list[str] = []
        self.answers: list[Exception | str] = []
        nodes = [node.name for node in site.nodes if node.runs_postgres]
        self.listeners = {name: SilentListener(name) for name in nodes}
        self.watch = SiteWatch(
            site,
            self.listeners,
            start=self.start,
            no_prefect=lambda name, order, why: self.troubles.append(why),
            spawn=given.pop("spawn", lambda work: work()),
            **given,
        )
        self.item = Watched(self.watch)

    def start(self, name: str, order: Order) -> str:
        """Stand in for Prefect."""
        self.calls.append((name, order))
        answer = self.answers.pop(0) if self.answers else f"run-{len(self.calls)}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def live(self, begin: Moment, seconds: float, lines: Callable[[Moment], list[Beat]]) -> Moment:
        """Let time pass: each half second the given lines come and the watcher looks; return the end."""
        now = begin
        for step in range(int(seconds * 2) + 1):
            now = Moment(begin.monotonic + step / 2, begin.wall + step / 2)
            for beat in lines(now):
                self.listeners[beat.node].hears(beat)
            self.watch.look(now)
        return now
