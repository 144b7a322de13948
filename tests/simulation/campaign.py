"""Runs drawn histories in several processes, and says what was run, covered and violated."""

import multiprocessing
import queue
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.queues import Queue as Channel
from typing import Any

from tests.simulation import coverage, seams
from tests.simulation.history import run
from tests.simulation.lives import by_number
from tests.simulation.story import shrunk, told

CHUNK = 50
TELL_EVERY_S = 60.0


@dataclass
class Part:
    """What a process has run since it told last."""

    histories: int = 0
    cpu_s: float = 0.0
    taken: coverage.Taken = field(default_factory=set)
    excepted: Counter[str] = field(default_factory=Counter)
    story: str = ""


def work(first: int, step: int, until: float, last: int | None, channel: "Channel[Part]") -> None:
    """Run every `step`-th history from the first on; a story ends it."""
    part, mark, seed = Part(), time.process_time(), first
    taken: coverage.Taken = set()
    with seams.closed(), coverage.counted(taken):
        while time.time() < until and (last is None or seed < last) and not part.story:
            outcome = run(by_number(seed))
            part.histories += 1
            part.excepted.update(outcome.excepted)
            if outcome.violations:
                part.story = story_of(seed)
            seed += step
            if part.histories == CHUNK or part.story:
                part.cpu_s, part.taken = time.process_time() - mark, set(taken)
                channel.put(part)
                story, mark = part.story, time.process_time()
                part = Part(story=story)
    if part.histories:
        part.cpu_s, part.taken = time.process_time() - mark, set(taken)
        channel.put(part)


def story_of(seed: int) -> str:
    """Tell a history that violates something, as short as it can be made; inside closed seams."""
    outcome = run(by_number(seed))
    if not outcome.violations:
        return f"history {seed} violates nothing\n{told(outcome)}"
    small = run(shrunk(outcome.plan, outcome.violations[0].invariant))
    replay = f"{sys.executable} -m tests.simulation --replay {seed}"
    return f"{told(small)}\n\nThe shortest that violates the same; the whole one: {replay}"


def replay(seed: int) -> int:
    """Tell one history, whole; return 1 when it violates something."""
    with seams.closed():
        outcome = run(by_number(seed))
    print(told(outcome))
    return 1 if outcome.violations else 0


def campaign(given: Any) -> int:
    """Run histories in several processes until time or number is reached, or one violates something."""
    context = multiprocessing.get_context("spawn")
    channel: Channel[Part] = context.Queue()
    started = time.time()
    until = started + given.hours * 3600 if given.hours else float("inf")
    last = given.seed + given.histories if given.histories else None
    workers = [
        context.Process(
            target=work, args=(given.seed + number, given.processes, until, last, channel), daemon=True
        )
        for number in range(given.processes)
    ]
    for worker in workers:
        worker.start()
    total, told_at = Part(), started
    while not total.story:
        try:
            add(total, channel.get(timeout=1.0))
        except queue.Empty:
            if not any(worker.is_alive() for worker in workers):
                break
        if time.time() - told_at > TELL_EVERY_S:
            told_at = time.time()
            print(line(total, time.time() - started), flush=True)
    for worker in workers:
        worker.terminate()
    crashed = [worker.exitcode for worker in workers if worker.exitcode not in (0, None, -15)]
    summary(total, time.time() - started, given.seed)
    if crashed and not total.story:
        print(f"A process ended with status {crashed[0]}: a defect of the simulation.")
    return 1 if total.story or crashed else 0


def add(total: Part, part: Part) -> None:
    """Add up what the processes tell."""
    total.histories += part.histories
    total.cpu_s += part.cpu_s
    total.taken |= part.taken
    total.excepted += part.excepted
    total.story = total.story or part.story


def line(total: Part, seconds: float) -> str:
    """Say how far it is."""
    cpu = total.histories / total.cpu_s if total.cpu_s else 0.0
    rate = total.histories / seconds
    return f"{total.histories} histories in {seconds:.0f} s: {rate:.1f} per second, {cpu:.1f} per CPU second"


def summary(total: Part, seconds: float, seed: int) -> None:
    """Say what was run, what was covered and what was not, and what was violated."""
    print(f"From history {seed} on: {line(total, seconds)}")
    missing, unused = coverage.untaken(total.taken)
    rows = sum(len(rows) for name, rows in coverage.tables().items() if name not in unused)
    taken = rows - sum(map(len, missing.values()))
    print(f"Rules taken: {taken} of {rows}, in {len(coverage.tables()) - len(unused)} tables")
    for name, left in missing.items():
        print(f"  not taken in {name}: {', '.join(left)}")
    print(f"  tables of flows that are not simulated: {', '.join(unused)}")
    for text, count in total.excepted.most_common():
        print(f"Two writers, as the documentation says, in {count} histories: {text}")
    print(total.story or "No invariant was violated.")
