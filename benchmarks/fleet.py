"""What a fleet costs: one watcher for so many sites, and the rows that a day of schedules leaves in Prefect."""

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.lab_site import or_why, stage_of
from benchmarks.watch import measure
from deployments.catalogue import CATALOGUE
from deployments.runs import find_deployment, start, wait
from deployments.serve import remove_other_schedules
from lab.faults.stage import Stage
from lab.faults.unattended import Unattended
from tests.unit.harbor_site import make_site

# Sites, seconds between two lines of a node, seconds of measuring, over SSH.
_WATCHED = ((1, 1.0, 15.0, True), (10, 1.0, 15.0, True), (100, 1.0, 21.0, True), (1000, 5.0, 45.0, False))
# Runs a day of one site, by the default settings: `failover.check_every_s`, `backup.cron`, `backup.drill_cron`.
_A_DAY = {"check": 96.0, "nightly-backup": 1.0, "restore-drill": 1 / 7}
_SITES = (1, 10, 100, 1000)
# Of 100 sites, whose schedules took longer to remove again than a run may last, they follow from these.
_AHEAD = (1, 10)
# The server writes events and logs in batches, at the latest 5 s after they came.
_QUIET_S, _LIMIT_S = 8.0, 90.0


@dataclass(frozen=True)
class Rows:
    """What a database holds.

    Attributes:
        tables: rows of each table.
    """

    tables: dict[str, int]

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.tables.values())

    def since(self, before: "Rows") -> "Rows":
        """What was added after an earlier look."""
        added = {name: count - before.tables.get(name, 0) for name, count in self.tables.items()}
        return Rows({name: count for name, count in added.items() if count})

    def told(self) -> str:
        """The rows in words, the most first."""
        most = sorted(self.tables.items(), key=lambda item: -item[1])
        return f"{self.total} rows ({', '.join(f'{name} {count}' for name, count in most)})"


def run(lab: str) -> list[str]:
    """Measure both; without a lab, the watcher alone. Lines for a reader."""
    return [*watched(), *or_why(lambda: stored(lab))]


def watched() -> list[str]:
    """What one watcher needs on one core."""
    lines = []
    for sites, beat_s, seconds, ssh in _WATCHED:
        seen = measure(sites, beat_s, seconds, ssh=ssh)
        lines.append(
            f"{sites} sites watched, a line each {beat_s:.0f} s over {'SSH' if ssh else 'pipes'}: "
            f"{seen.cpu:.3f} of a core, {seen.mb[1]:.0f} MB"
        )
        print(f"        {lines[-1]}", flush=True)
    return lines


def stored(lab: str) -> list[str]:
    """What a run of each scheduled flow leaves, what the scheduler makes ahead, and what both are for a fleet.

    Raises:
        CannotRun: there is no lab on this machine.
    """
    stage = stage_of(lab)
    with httpx.Client(base_url=f"{stage.orchestrator.url}/api", timeout=30) as api:
        with Unattended(stage, calls=False):
            left = {name: _one_run(stage, api, name) for name in _A_DAY}
        ahead = _made_ahead(stage, api)
    a_day = sum(left[name].total * runs for name, runs in _A_DAY.items())
    runs = sum(_A_DAY.values())
    lines = [f"one run of {name} leaves {rows.told()}" for name, rows in left.items()]
    lines += [f"schedules of {sites} sites: made ahead {rows.told()}" for sites, rows in ahead.items()]
    lines += [
        f"{sites} sites, computed: {sites * runs:,.0f} runs and {sites * a_day:,.0f} rows a day"
        for sites in _SITES
    ]
    return lines


def _one_run(stage: Stage, api: httpx.Client, name: str) -> Rows:
    before = _settled(stage)
    made = wait(api, start(api, find_deployment(api, name), {"site": stage.name}), 180, lambda _: None)
    assert made.state == "COMPLETED", f"{name} is {made.state}: {made.message}"
    rows = _settled(stage).since(before)
    print(f"        one run of {name}: {rows.told()}", flush=True)
    return rows


def _made_ahead(stage: Stage, api: httpx.Client) -> dict[int, Rows]:
    """Register the schedules of so many sites that nobody serves, and count; they are removed again."""
    with tempfile.TemporaryDirectory() as directory, _talking_to(stage):
        model = make_site(Path(directory))
        found = {}
        try:
            for count in _AHEAD:
                before = _settled(stage)
                sites = tuple(model.model_copy(update={"name": f"fleet-{n}"}) for n in range(count))
                for entry in CATALOGUE:
                    entry.deployment(sites).apply()
                found[count] = _settled(stage).since(before)
                print(f"        schedules of {count} sites: {found[count].told()}", flush=True)
                remove_other_schedules(api, [entry.deployment() for entry in CATALOGUE])
        finally:
            remove_other_schedules(api, [entry.deployment() for entry in CATALOGUE])
    return found


@contextlib.contextmanager
def _talking_to(stage: Stage) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: f"{stage.orchestrator.url}/api"}):
        yield


def _settled(stage: Stage) -> Rows:
    """Look until nothing was added for some seconds.

    Raises:
        AssertionError: it goes on.
    """
    rows, since = _rows(stage), time.monotonic()
    deadline = since + _LIMIT_S
    while time.monotonic() - since < _QUIET_S:
        assert time.monotonic() < deadline, f"rows are still being added after {_LIMIT_S:.0f} s"
        time.sleep(0.5)
        now = _rows(stage)
        if now.tables != rows.tables:
            rows, since = now, time.monotonic()
    return rows


def _rows(stage: Stage) -> Rows:
    file = stage.orchestrator.directory / "prefect/prefect.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = {
            name: int(database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for (name,) in names
        }
    return Rows(tables)
