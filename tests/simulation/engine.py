"""Simulated time: actors take turns, and only one of them runs at any moment.

An actor is a greenlet: an orchestrator's flow, a program on a node, a guard. It runs until it sleeps; then whatever
is due next runs. The order is that of simulated time, and of asking among equals, so a history is the same every time.
"""

import heapq
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

# A history that takes this many turns goes round in a circle, which is a finding of its own.
MAX_TURNS = 200_000


class Killed(BaseException):
    """The process of this actor is gone; a BaseException, so that nothing that runs mistakes it for a failure."""


class Circling(Exception):
    """A history does not come to an end."""


class Actor:
    """Something that runs by itself, somewhere.

    Attributes:
        name: how the story calls it.
        place: the machine that it runs on; it dies with it, and reads its clocks.
        children: its threads, which end and stand still with it.
    """

    __slots__ = (
        "children",
        "done",
        "dying",
        "error",
        "greenlet",
        "name",
        "parked",
        "place",
        "result",
        "stalled",
        "ticket",
        "waiters",
    )

    def __init__(self, name: str, place: Any) -> None:
        self.name = name
        self.place = place
        self.done = self.dying = False
        self.parked = False
        self.stalled = 0.0
        self.result: Any = None
        self.error: BaseException | None = None
        self.ticket = 0
        self.waiters: list[Actor] = []
        self.children: list[Actor] = []
        self.greenlet: greenlet | None = None


class Engine:
    """The hub that all actors return to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self._queue: list[tuple[float, int, Actor | None, Any]] = []
        self._number = 0
        self._actors: dict[greenlet, Actor] = {}
        self._hub = getcurrent()
        self.current: Actor | None = None
        # Called before every turn, with the time at hand; the world lets its clients write there.
        self.between: Callable[[], None] = lambda: None

    def spawn(self, name: str, place: Any, work: Callable[[], Any], delay: float = 0.0) -> Actor:
        """Have something run by itself, from `delay` seconds on."""
        actor = Actor(name, place)

        def run() -> None:
            try:
                actor.result = work()
            except Killed:
                actor.error = Killed()
            except (Exception, SystemExit) as error:
                actor.error = error
            actor.done = True
            for waiter in actor.waiters:
                self.wake(waiter)

        actor.greenlet = greenlet(run, self._hub)
        self.wake(actor, delay)
        return actor

    def at(self, delay: float, act: Callable[[], None]) -> None:
        """Do something in the hub itself, which does not sleep, `delay` seconds from now."""
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay, self._number, None, act))

    def wake(self, actor: Actor, delay: float = 0.0) -> None:
        """Give an actor its turn `delay` seconds from now; an earlier appointment of its is void."""
        self._number += 1
        actor.ticket = self._number
        actor.parked = False
        due = max(self.now + delay, actor.stalled)
        heapq.heappush(self._queue, (due, self._number, actor, None))

    def sleep(self, seconds: float) -> None:
        """Let the others run for so many seconds."""
        actor = self.current
        assert actor is not None
        if actor.dying:
            # What a dying process would still wait for, in a `finally` of its own, does not happen.
            raise Killed
        self.wake(actor, max(seconds, 0.0))
        self._hub.switch()

    def doze(self, seconds: float) -> None:
        """Let the others run for so many seconds, or until somebody wakes this one."""
        actor = self.current
        assert actor is not None
        self.wake(actor, seconds)
        actor.parked = True
        self._hub.switch()
        actor.parked = False

    def park(self) -> None:
        """Let the others run until somebody wakes this one."""
        actor = self.current
        assert actor is not None
        actor.parked = True
        actor.ticket = 0
        self._hub.switch()

    def join(self, other: Actor, limit: float) -> bool:
        """Wait for another actor's end; tell whether it came in time."""
        actor = self.current
        assert actor is not None
        if not other.done:
            other.waiters.append(actor)
            self.sleep(limit)
            if actor in other.waiters:
                other.waiters.remove(actor)
        return other.done

    def kill(self, actor: Actor) -> None:
        """End an actor where it stands; from the hub, or from another actor."""
        for child in actor.children:
            if child is not self.current:
                self.kill(child)
        if actor.done or actor.greenlet is None:
            return
        if actor is self.current:
            actor.dying = True
            raise Killed
        actor.ticket = 0
        actor.dying = True
        if not actor.greenlet:
            actor.done, actor.error = True, Killed()
            for waiter in actor.waiters:
                self.wake(waiter)
            return
        before, self.current = self.current, actor
        actor.greenlet.parent = getcurrent()
        actor.greenlet.throw(Killed)
        self.current = before

    def stall(self, actor: Actor, seconds: float) -> None:
        """Have an actor stand still for so long; the world goes on."""
        actor.stalled = self.now + seconds
        for child in actor.children:
            self.stall(child, seconds)
        if not actor.parked and not actor.done:
            self.wake(actor, seconds)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Let time go on until a moment, or until `stop` says so after a turn.

        Raises:
            Circling: too many turns.
        """
        while self._queue and self._queue[0][0] <= until:
            due, number, actor, act = heapq.heappop(self._queue)
            if actor is not None and (actor.ticket != number or actor.done):
                continue
            self.now = max(self.now, due)
            self.turns += 1
            if self.turns > MAX_TURNS:
                raise Circling(f"more than {MAX_TURNS} turns")
            self.between()
            if actor is None:
                act()
            else:
                actor.ticket = 0
                self.current = actor
                assert actor.greenlet is not None
                actor.greenlet.switch()
                self.current = None
            if stop is not None and stop():
                return
        if stop is None:
            self.now = max(self.now, until)

    def end(self, actors: list[Actor]) -> None:
        """Kill what is left, so that nothing of this history outlives it."""
        for actor in actors:
            self.kill(actor)
