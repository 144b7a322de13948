"""How a site is, by a look of its own: from the nodes and the bucket themselves, so also while Prefect is away."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import httpx

from blocks import HarborSite
from blocks.prefect_api import prefect_api
from deployments.schedules import due_runs
from flows.check import served
from flows.machinery.backup_report import catalogue_lines
from flows.rules.policy import policy_of
from flows.rules.table import Decision
from flows.rules.topology import HEAD, size, topology
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.backup.format.catalogue import Entry, list_backups
from tasks.backup.settings import store_of
from tasks.errors import HarborHaError
from tasks.guard.install import guard_version
from tasks.observation.budget import CALM_BUDGET_S
from tasks.observation.look import look
from tasks.observation.witnesses import ask_witnesses

# The look is what is asked for; a Prefect that hangs must not keep it from its reader for longer.
PREFECT_LIMIT_S = 3.0


def site_status(site: HarborSite) -> tuple[Decision[Verdict], list[str]]:
    """Look at a site once and judge it; nothing is written, neither on the nodes nor through Harbor.

    Returns:
        the verdict, and what an operator reads.

    Raises:
        FactsTooOld: everything hung for longer than a look may take.
    """
    seen = look(site, CALM_BUDGET_S)
    answers = ask_witnesses(site, [node.name for node in site.nodes])
    balancer = served(site, answers)
    addresses = {node.name: node.address for node in site.nodes}
    judged = verdict(
        seen.every,
        addresses,
        policy_of(site),
        clock.now(),
        balancer_up=balancer,
        guard_version=guard_version(),
        site=site.name,
    )
    lines = [f"{site.name} is {judged.kind} (by a look; `check` also writes through the load balancer)"]
    lines += table(HEAD, topology(seen.every, seen.databases, balancer))
    lines += [f"found: {line}" for line in judged.reasons]
    lines += [f"do now: {judged.first}"] if judged.first else []
    return judged, [*lines, last_backup(site)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Set rows in columns, without blanks at the end of a line."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    return ["  " + "  ".join(line).rstrip() for line in lines]


def last_backup(site: HarborSite) -> str:
    """Say which backup is the newest that is complete, by the bucket itself."""
    if site.oss is None:
        return "last backup: the site has no bucket"
    try:
        return describe_last(list_backups(store_of(site)), datetime.now(UTC))
    except HarborHaError as error:
        return f"last backup: the bucket cannot be asked: {error}"


def describe_last(entries: Sequence[Entry], now: datetime) -> str:
    """Name the newest complete backup of a catalogue, and what came after it."""
    complete = [entry for entry in entries if entry.complete]
    if not complete:
        return "last backup: none is complete"
    last = complete[-1]
    age = timedelta(seconds=int((now - last.backup.started).total_seconds()))
    later = sum(1 for entry in entries if entry.backup.started > last.backup.started)
    more = f"; {later} begun after it are not complete" if later else ""
    return f"last backup: {last.backup}, begun {age} ago, {size(last.size)} beside the images{more}"


def next_runs(site: str) -> str:
    """Say what runs next by schedule, by Prefect; that it does not answer is told, and is no error here."""
    try:
        with prefect_api(timeout=PREFECT_LIMIT_S) as api:
            return describe_next(due_runs(api, site), datetime.now(UTC))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        # PrefectAddressMissing is one of them, and what answers on its port may be something else.
        return f"next runs: Prefect cannot be asked ({type(error).__name__})"


def describe_next(due: Mapping[str, datetime], now: datetime) -> str:
    """Name what is due, the nearest first."""
    if not due:
        return "next runs: nothing runs by schedule"
    nearest = sorted(due.items(), key=lambda item: item[1])
    told = [
        f"{name} in {timedelta(seconds=int((at - now).total_seconds()))}" for name, at in nearest if at > now
    ]
    late = [f"{name} was due at {at:%H:%M} UTC" for name, at in nearest if at <= now]
    return f"next runs: {', '.join([*late, *told])}"


def backup_lines(site: HarborSite) -> list[str]:
    """Give a line for each backup in the bucket, the newest first.

    Raises:
        Refused: the site has no bucket.
        StorageError: it cannot be asked.
    """
    return list(reversed(catalogue_lines(store_of(site), site))) or ["there is no backup"]
