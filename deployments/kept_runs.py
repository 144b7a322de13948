"""Runs that were made without Prefect: what they told is kept in files here, and shown in Prefect once it answers.

Each has three files in `${HARBOR_HA_HOME}/reports`, for their owner only: `.log` with its lines, `.md` with its report,
and `.json` with the rest. A run that was killed leaves its lines, and says that it is running.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from blocks.store import copy_path
from tasks.operation.holder import process_of, this_process

logger = logging.getLogger("harbor_ha")

# The oldest that Prefect has got go first.
KEPT = 100
RUNNING = "RUNNING"


@dataclass(frozen=True)
class KeptRun:
    """One run of a flow without Prefect.

    Attributes:
        name: of its files.
        flow: name of the deployment that it stands for.
        site: name of the site.
        begun: wall time.
        process: which process it is, as locks are signed.
        state: one of Prefect's state types.
        ending: name of the state, such as `Refused`; empty until it has ended.
        headline: how it ended.
        reports: key of the artifact and headline of each report, in their order; the text is in the `.md` file.
        published: Prefect has its report.
    """

    name: str
    flow: str
    site: str
    begun: float
    process: str
    state: str = RUNNING
    ending: str = ""
    headline: str = ""
    reports: tuple[tuple[str, str], ...] = field(default=())
    published: bool = False

    @property
    def log(self) -> Path:
        """Where its lines are."""
        return directory() / f"{self.name}.log"

    @property
    def report(self) -> Path:
        """Where its report is."""
        return directory() / f"{self.name}.md"

    @property
    def killed(self) -> bool:
        """Whether its process ended before it did; all of them were of this machine."""
        pid = self.process.split(":")[1]
        return self.state == RUNNING and str(process_of(int(pid))) != self.process

    def describe(self) -> str:
        """Say in one line which run it is and how it ended."""
        begun = datetime.fromtimestamp(self.begun, UTC).isoformat(timespec="seconds")
        ended = "was killed" if self.killed else "is at work" if self.state == RUNNING else self.ending
        told = f": {self.headline}" if self.headline else ""
        return f"{self.flow} of {self.site}, {begun}, without Prefect: {ended}{told}"


def directory() -> Path:
    """Return where the runs are kept; whether it is there or not."""
    return copy_path("any").parents[1] / "reports"


def begin(flow: str, site: str) -> KeptRun:
    """Name a run of this process; nothing is written."""
    begun = time.time()
    stamp = datetime.fromtimestamp(begun, UTC).strftime("%Y%m%dT%H%M%SZ")
    return KeptRun(
        f"{stamp}-{flow}-{quote(site, safe='')}-{os.getpid()}", flow, site, begun, str(this_process())
    )


def keep(run: KeptRun, suffix: str, text: str) -> Path:
    """Write one of the files of a run, whole or not at all; return its path. Raises OSError."""
    path = _made() / f"{run.name}{suffix}"
    fresh = path.with_name(f".{path.name}.new")
    with open_private(fresh) as file:
        file.write(text)
    fresh.replace(path)
    return path


def open_private(path: Path) -> Any:
    """Open a file for writing that only its owner may read, emptied first. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")


def note(run: KeptRun) -> KeptRun:
    """Keep what is known of a run; where that cannot be written, it is told and the run goes on. Returns the run."""
    try:
        keep(run, ".json", json.dumps(asdict(run), indent=1) + "\n")
    except OSError as error:
        logger.error("%s: nothing can be kept in %s: %s", run.name, directory(), error.strerror)
    return run


def _made() -> Path:
    place = directory()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def kept_runs(site: str | None = None) -> list[KeptRun]:
    """List the runs that are kept here, of one site or of all, the newest first; a damaged note is left out."""
    found = []
    for path in directory().glob("*.json"):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            data["reports"] = tuple((str(key), str(headline)) for key, headline in data["reports"])
            found.append(KeptRun(**data))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    ours = [run for run in found if site in (None, run.site)]
    return sorted(ours, key=lambda run: run.begun, reverse=True)


def publish_kept(api: httpx.Client) -> int:
    """Show Prefect what was reported without it, as the artifacts with the same keys; return how many there were.

    What cannot be shown stays for the next time; nothing is raised.
    """
    shown = 0
    try:
        with _alone() as ours:
            for run in reversed(kept_runs()) if ours else ():
                if not run.published and (run.state != RUNNING or run.killed):
                    shown += _show(api, run)
                    note(replace(run, published=True))
            if ours:
                _forget_old()
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        logger.warning("A report of a run without Prefect waits in %s: %s", directory(), type(error).__name__)
    return shown


def _show(api: httpx.Client, run: KeptRun) -> int:
    """Make the artifact of a run's last report; one that was killed, or refused before it looked, has none."""
    if not run.reports or not run.report.exists():
        return 0
    key, headline = run.reports[-1]
    begun = datetime.fromtimestamp(run.begun, UTC).isoformat(timespec="seconds")
    text = run.report.read_text(encoding="utf-8")
    body = {
        "key": key,
        "type": "markdown",
        "description": f"{headline} (run without Prefect, {begun})",
        "data": f"Run without Prefect, begun {begun}.\n\n{text}",
    }
    api.post("artifacts/", json=body).raise_for_status()
    return 1


@contextlib.contextmanager
def _alone() -> Iterator[bool]:
    """Give whether no other process shows reports right now; nothing is made where none was ever kept."""
    if not directory().is_dir():
        yield False
        return
    with (directory() / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _forget_old() -> None:
    for run in [run for run in kept_runs() if run.published][KEPT:]:
        for suffix in (".json", ".md", ".log"):
            (directory() / f"{run.name}{suffix}").unlink(missing_ok=True)
