"""How a flow's steps run in the simulated world: one after the other; what runs beside others is before or after."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flows.machinery.beside import Beside
from flows.machinery.protocol import Protocol, StepRecord
from tasks.errors import HarborHaError
from tasks.operation.timely import timely
from tasks.outcome import Outcome
from tests.simulation.world import remote
from tests.simulation.world.harbor import EFFECTS
from tests.simulation.world.here import SIM_TIME, world


class SimBeside(Beside):
    """Stands for `Beside`: it is done as a whole, when it is waited for at the latest."""

    def __init__(self, acts: Mapping[str, Callable[[], Outcome | BaseException]]) -> None:
        dict.__init__(self)
        self._acts = dict(acts)

    @property
    def ended(self) -> bool:
        return not self._acts

    def wait(self) -> None:
        while self._acts:
            node = next(iter(self._acts))
            self[node] = self._acts.pop(node)()


def first_of(*steps: SimBeside) -> None:
    """Stand for `first_of`: which of them is the first is drawn."""
    if not any(step.ended for step in steps):
        order = world().order
        (order.choice(steps) if order is not None else steps[0]).wait()


class SimProtocol(Protocol):
    """Stands for `Protocol`: one step after the other, each in the world."""

    @classmethod
    def begin(cls, name: str, site: str, dry_run: bool = False) -> "SimProtocol":
        run = cls(name, world().site, dry_run, SIM_TIME.monotonic())
        world().on_run(run)
        return run

    def on_each(
        self, step: Any, nodes: Sequence[str], *, then: Sequence[str] = (), **plain: Any
    ) -> dict[str, Outcome]:
        hosts = {node: [node, *then] for node in nodes}
        if self.dry_run:
            for listed in hosts.values():
                self._announce(step, listed)
            return {node: Outcome(False, "not run") for node in nodes}
        return self._raise_or_return(
            step, {node: self._timed(step, listed, plain) for node, listed in hosts.items()}
        )

    @contextlib.contextmanager
    def beside(
        self,
        step: Any,
        nodes: Sequence[str],
        *,
        then: Sequence[str] = (),
        required: bool = True,
        **plain: Any,
    ) -> Iterator[Beside]:
        if self.dry_run:
            self.on_each(step, nodes, then=then, **plain)
            yield SimBeside({})
            return
        acts = {node: functools.partial(self._timed, step, [node, *then], plain) for node in nodes}
        results = SimBeside(acts)
        # A step that runs beside others may come before all of them, or after: one that is told until when it may begin
        # fails, where they take longer than that.
        order = world().order
        if order is None or order.random() < 0.5:
            results.wait()
        # A killed process does not wait for what runs beside it.
        try:
            yield results
        except Exception:
            results.wait()
            raise
        results.wait()
        if required:
            self._raise_or_return(step, results)

    def _as_they_end(
        self, step: Any, nodes: Sequence[str], plain: dict[str, Any]
    ) -> Iterator[tuple[str, Outcome | BaseException]]:
        for node in nodes:
            yield node, self._timed(step, [node], plain)

    def watch(
        self,
        title: str,
        look: Callable[[], Any],
        describe: Callable[[Any], str],
        *nodes: str,
        begun: float | None = None,
    ) -> Any:
        world().boundary(f"before: {title}")
        seen = look()
        world().note(f"{_who()} sees: {describe(seen)}")
        self.records.append(StepRecord(title, nodes, 0.0, 0.0, Outcome(False, title)))
        return seen

    def _timed(self, step: Any, nodes: list[str], plain: dict[str, Any]) -> Outcome | BaseException:
        function = function_of(step)
        name = f"{function.__module__.removeprefix('tasks.')}.{function.__name__}"
        act = _effect(name, function)
        world().boundary(f"before: {step.name}")
        try:
            given = [remote.SimHost(node.partition(" via ")[0], node.partition(" via ")[2]) for node in nodes]
            outcome: Outcome = act(self.site, *given, **plain)
        except HarborHaError as error:
            self._record(step, nodes, (0.0, 0.0), None, str(error))
            return error
        self._record(step, nodes, (0.0, 0.0), outcome, "")
        world().boundary(f"after: {step.name}")
        return outcome

    def _record(
        self, step: Any, nodes: list[str], span: tuple[float, float], outcome: Outcome | None, error: str
    ) -> None:
        self.records.append(StepRecord(step.name, tuple(nodes), 0.0, 0.0, outcome, error))
        said = error if outcome is None else outcome.detail
        word = "FAILED" if outcome is None else "changed" if outcome.changed else "unchanged"
        world().note(
            f"{_who()} {word}: {step.name} [{', '.join(nodes)}]: {said.splitlines()[0] if said else ''}"
        )


def _effect(name: str, function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    effect = EFFECTS.get(name, function)
    # What the real one does only in time, its stand-in does, too.
    return timely(effect) if effect is not function and hasattr(function, "__wrapped__") else effect


_FUNCTIONS: dict[int, Callable[..., Outcome]] = {}


def function_of(step: Any) -> Callable[..., Outcome]:
    """Find the plain function that a step wraps."""
    found = _FUNCTIONS.get(id(step))
    if found is None:
        names = step.fn.__code__.co_freevars
        found = _FUNCTIONS[id(step)] = step.fn.__closure__[names.index("function")].cell_contents
    return found


def _who() -> str:
    actor = world().engine.current
    return actor.name if actor is not None else "somebody"
