"""The saved sites as a list, and how one of them is forgotten."""

import sys

import httpx

from blocks.prefect_api import PrefectAddressMissing, prefect_api
from blocks.store import copy_path, remove_site, saved_copies, saved_sites
from deployments.choices import update_choices
from deployments.events import BACKUP_NOT_EXPECTED, tell
from deployments.runs import RunRefused
from deployments.schedules import remove_schedules, scheduled_sites

STAYS = (
    "Nothing was touched on its nodes, on the NAS and in its bucket: PostgreSQL, Harbor and the guard go on "
    "(docs/operations.md, Take it away)"
)


def list_sites() -> list[str]:
    """List the saved sites, a line each: its nodes, whether schedules run for it, and where it is saved.

    Without Prefect, those of which a local copy is here.
    """
    copies = saved_copies()
    try:
        with prefect_api(timeout=10) as api:
            scheduled = scheduled_sites(api)
        saved = saved_sites()
    except (httpx.HTTPError, PrefectAddressMissing) as error:
        why = str(error) or type(error).__name__
        print(f"Prefect cannot be asked ({why}); these are the local copies", file=sys.stderr)
        return [f"{name}  local copy {copy_path(name)}" for name in copies] or ["no site is saved here"]
    lines = []
    for name in sorted({*saved, *copies}):
        nodes = ", ".join(saved.get(name, ())) or "not in Prefect"
        served = "schedules run" if name in scheduled else "no schedules"
        copy = "local copy" if name in copies else "no local copy here"
        lines.append(f"{name}  {nodes}; {served}; {copy}")
    return lines or ["no site is saved: harbor-ha apply SITE.yml saves one"]


def site_names() -> list[str]:
    """Name the sites of which a copy is here; where there is none, those that Prefect knows.

    Raises:
        RunRefused: there is no site at all.
        httpx.HTTPError, PrefectAddressMissing: there is no copy, and Prefect cannot be asked.
    """
    names = saved_copies() or sorted(saved_sites())
    if not names:
        raise RunRefused("No site is saved: harbor-ha apply SITE.yml saves one")
    return names


def forget_site(name: str, *, confirmed: bool) -> list[str]:
    """Forget a site: its schedules first, then its Blocks with their keys, and the local copy.

    Args:
        name: of the site.
        confirmed: do it; otherwise only say what would be done.

    Returns:
        what was done, in words.

    Raises:
        RunRefused: there is no such site.
        httpx.HTTPError: Prefect does not answer; nothing or a part was done, and the next call does the rest.
    """
    with prefect_api(timeout=30) as api:
        scheduled = name in scheduled_sites(api)
        known = saved_sites()
        if not scheduled and name not in {*known, *saved_copies()}:
            there = ", ".join(sorted({*known, *saved_copies()})) or "none"
            raise RunRefused(f"There is no site {name}. There is: {there}")
        if not confirmed:
            what = "its schedules, its Blocks with the keys of its nodes, and its local copy"
            return [f"would remove {what}; nothing was done: harbor-ha remove {name} --yes", STAYS]
        schedules = remove_schedules(api, name)
    removed = remove_site(name)
    with prefect_api(timeout=30) as api:
        update_choices(api)
        tell(api, name, BACKUP_NOT_EXPECTED, {})
    return [
        f"site {name} is forgotten: {schedules} schedules and {len(removed)} objects: {', '.join(removed)}",
        f"Take `--site {name}` out of HARBOR_HA_SITES: a runner that is started with it does not start",
        STAYS,
    ]
