"""Schedules of a saved site on the server, made what the site file says: `apply` changes them without the runner."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

from blocks import HarborSite
from deployments.catalogue import CATALOGUE, TAG, DeploymentEntry

# A page of Prefect's answers has 200. Of one deployment the next run of a site is among so many: each of a thousand
# sites has one before any has its second.
_PAGE, _MOST = 200, 2000

NOT_SERVED = (
    "no runner serves {site}: it has no schedules. Name it in HARBOR_HA_SITES (`--site {site}`) and restart "
    "harbor-ha-runner"
)


def update_schedules(
    api: httpx.Client, site: HarborSite, catalogue: Sequence[DeploymentEntry] = CATALOGUE
) -> list[str]:
    """Make the schedules of a site that is served what its settings say; a pause of one of them stays.

    They were read at the start of the runner alone: another time for backups did nothing, and said nothing. Whether a
    site is served is not decided here: one that has no schedule gets none.

    Returns:
        what was changed, in words.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    known = _known(api)
    served = any(_slug(entry, site) in _by_slug(known.get(entry.name)) for entry in catalogue)
    if not served:
        return [NOT_SERVED.format(site=site.name)]
    told = []
    for entry in catalogue:
        deployment = known.get(entry.name)
        if deployment is None:
            continue
        there = _by_slug(deployment).get(_slug(entry, site))
        wanted = _wanted(entry, site)
        place = f"deployments/{deployment['id']}/schedules"
        if wanted is None:
            if there is not None:
                api.delete(f"{place}/{there['id']}").raise_for_status()
                told.append(f"{entry.name} of {site.name} is not scheduled any more")
            continue
        body = {"schedule": wanted, "parameters": {"site": site.name}}
        if there is None:
            new = [{**body, "slug": _slug(entry, site), "active": True}]
            api.post(place, json=new).raise_for_status()
        elif not _same(there["schedule"], wanted):
            api.patch(f"{place}/{there['id']}", json=body).raise_for_status()
        else:
            continue
        told.append(f"{entry.name} of {site.name} is scheduled: {describe(wanted)}")
    return told


def remove_schedules(api: httpx.Client, site: str) -> int:
    """Remove every schedule of a site, whatever it runs; return how many there were."""
    removed = 0
    for deployment in _known(api).values():
        for schedule in deployment["schedules"]:
            if (schedule.get("parameters") or {}).get("site") == site:
                api.delete(f"deployments/{deployment['id']}/schedules/{schedule['id']}").raise_for_status()
                removed += 1
    return removed


def scheduled_sites(api: httpx.Client) -> set[str]:
    """Name the sites that have a schedule."""
    schedules = [one for deployment in _known(api).values() for one in deployment["schedules"]]
    return {str(one["parameters"]["site"]) for one in schedules if (one.get("parameters") or {}).get("site")}


def due_runs(api: httpx.Client, site: str) -> dict[str, datetime]:
    """Say when each deployment runs next for a site by schedule, the nearest first; one that is overdue is in the past.

    Raises:
        httpx.HTTPError: the server does not answer.
    """
    found = {
        name: _next_run(api, deployment["id"], site)
        for name, deployment in _known(api).items()
        if any((one.get("parameters") or {}).get("site") == site for one in deployment["schedules"])
    }
    due = {name: at for name, at in found.items() if at is not None}
    return dict(sorted(due.items(), key=lambda item: item[1]))


def _next_run(api: httpx.Client, deployment: str, site: str) -> datetime | None:
    asked: dict[str, Any] = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": _PAGE,
    }
    for offset in range(0, _MOST, _PAGE):
        page = api.post("flow_runs/filter", json={**asked, "offset": offset}).raise_for_status().json()
        for run in page:
            if (run.get("parameters") or {}).get("site") == site and run.get("auto_scheduled"):
                return datetime.fromisoformat(run["expected_start_time"])
        if len(page) < _PAGE:
            break
    return None


def wanted_schedules(site: HarborSite) -> list[str]:
    """Name the deployments that a site's settings have run by schedule."""
    return [entry.name for entry in CATALOGUE if _wanted(entry, site) is not None]


def drill_choice(site: HarborSite) -> str:
    """Say what the weekly drill will prove, which is chosen by `backup.age_identity`; empty without a bucket."""
    if site.oss is None:
        return ""
    if site.backup.age_identity is not None:
        return (
            "restore-drill: with backup.age_identity, it restores the newest backup and compares everything"
        )
    return (
        "restore-drill: without backup.age_identity, it proves that everything of the newest backup is there as it was "
        "stored (existence, sizes, checksums, closure), and not that it can be decrypted and restored; the choice is "
        "yours (docs/restore.md, Drills)"
    )


def describe(schedule: dict[str, Any]) -> str:
    """Say in words when a schedule runs."""
    if "cron" in schedule:
        return f"{schedule['cron']} ({schedule['timezone']})"
    return f"every {timedelta(seconds=float(schedule['interval']))}"


def _known(api: httpx.Client) -> dict[str, Any]:
    asked = {"deployments": {"tags": {"all_": [TAG]}}}
    found = api.post("deployments/filter", json=asked).raise_for_status().json()
    return {item["name"]: item for item in found}


def _by_slug(deployment: Any) -> dict[str, Any]:
    return {item["slug"]: item for item in deployment["schedules"]} if deployment is not None else {}


def _slug(entry: DeploymentEntry, site: HarborSite) -> str:
    return f"{entry.name}-{site.name}"


def _wanted(entry: DeploymentEntry, site: HarborSite) -> dict[str, Any] | None:
    """Return a schedule as the API takes it; None when this site has none of it."""
    made = entry.schedule_of(site) if entry.fits(site) else None
    if made is None:
        return None
    if made.cron is not None:
        return {"cron": made.cron, "timezone": made.timezone}
    assert made.interval is not None
    assert made.anchor_date is not None
    return {
        "interval": made.interval.total_seconds(),
        "anchor_date": made.anchor_date.isoformat(),
        "timezone": made.timezone,
    }


def _same(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if set(wanted) - set(there):
        return False
    return all(_plain(name, there[name]) == _plain(name, value) for name, value in wanted.items())


def _plain(name: str, value: Any) -> Any:
    if name == "interval":
        return float(value)
    return datetime.fromisoformat(value) if name == "anchor_date" else value
