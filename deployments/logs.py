"""What a run has told, a site's newest or one that is named: from Prefect, or from the files of a run without it."""

import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from blocks.prefect_api import PrefectAddressMissing, prefect_api
from deployments.catalogue import TAG
from deployments.kept_runs import KeptRun, kept_runs
from deployments.runs import RunRefused

_PAGE = 200
# So many of the newest runs are looked through for one of a site.
_LOOKED_THROUGH = 1000
_LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))


@dataclass(frozen=True)
class Told:
    """A run in Prefect."""

    id: str
    title: str
    begun: float


def run_lines(wanted: str | None) -> Iterator[str]:
    """Give a line that names the run, and then its lines, the oldest first.

    Args:
        wanted: a site, whose newest run it is; the id or the name of a run; None: the newest of all.

    Raises:
        RunRefused: there is no such run.
        httpx.HTTPError, PrefectAddressMissing: Prefect does not answer, and no run without it was kept here.
    """
    kept = _kept(wanted)
    try:
        with prefect_api(timeout=10) as api:
            found = _find(api, wanted)
            if found is not None and (kept is None or found.begun >= kept.begun):
                yield found.title
                yield from _lines(api, found.id)
                return
    except (httpx.HTTPError, PrefectAddressMissing) as error:
        if kept is None:
            raise
        why = type(error).__name__
        print(f"Prefect cannot be asked ({why}); this is the newest run without it", file=sys.stderr)
    if kept is None:
        raise RunRefused(f"There is no run of {wanted}" if wanted else "No flow has run yet")
    yield kept.describe()
    yield from _text(kept)


def _kept(wanted: str | None) -> KeptRun | None:
    runs = kept_runs()
    return next((run for run in runs if wanted in (None, run.site, run.name)), None)


def _text(run: KeptRun) -> list[str]:
    try:
        return run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise RunRefused(f"Its lines cannot be read ({run.log}: {error.strerror})") from error


def _find(api: httpx.Client, wanted: str | None) -> Told | None:
    ours = {"deployments": {"tags": {"all_": [TAG]}}, "sort": "START_TIME_DESC", "limit": _PAGE}
    begun: dict[str, Any] = {"start_time": {"is_null_": False}}
    if wanted is None:
        return _newest(api, {**ours, "flow_runs": begun, "limit": 1})
    if _is_id(wanted):
        return _newest(api, {"flow_runs": {"id": {"any_": [wanted]}}})
    named = _newest(api, {**ours, "flow_runs": {**begun, "name": {"any_": [wanted]}}, "limit": 1})
    if named is not None:
        return named
    for offset in range(0, _LOOKED_THROUGH, _PAGE):
        page = _runs(api, {**ours, "flow_runs": begun, "offset": offset})
        for run in page:
            if (run.get("parameters") or {}).get("site") == wanted:
                return _told(run)
        if len(page) < _PAGE:
            break
    return None


def _newest(api: httpx.Client, asked: dict[str, Any]) -> Told | None:
    return next((_told(run) for run in _runs(api, asked)), None)


def _runs(api: httpx.Client, asked: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.post("flow_runs/filter", json=asked).raise_for_status().json()
    return found


def _told(run: dict[str, Any]) -> Told:
    begun = datetime.fromisoformat(str(run.get("start_time") or run["expected_start_time"]))
    state = (run.get("state") or {}).get("name") or "not known"
    title = f"{run['name']} ({run['id']}), {begun.isoformat(timespec='seconds')}: {state}"
    return Told(str(run["id"]), title, begun.timestamp())


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _lines(api: httpx.Client, run_id: str) -> Iterator[str]:
    offset = 0
    while True:
        asked = {
            "logs": {"flow_run_id": {"any_": [run_id]}},
            "sort": "TIMESTAMP_ASC",
            "limit": _PAGE,
            "offset": offset,
        }
        page = api.post("logs/filter", json=asked).raise_for_status().json()
        yield from (_line(entry) for entry in page)
        if len(page) < _PAGE:
            return
        offset += _PAGE


def _line(entry: dict[str, Any]) -> str:
    at = datetime.fromisoformat(str(entry["timestamp"])).astimezone(UTC)
    level = next((name for limit, name in _LEVELS if int(entry["level"]) >= limit), "DEBUG")
    return f"{at:%Y-%m-%d %H:%M:%S} {level:<7} {entry['message']}"
