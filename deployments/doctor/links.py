"""What was found of each link, as a line for an operator: whether it holds, and what to do when not. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from flows.rules.table import Decision
from flows.rules.verdict import Verdict

# A watcher looks each half second; a site is told for lost after ten of silence.
WATCHED_S = 10.0
BACKUP_LIMIT = timedelta(hours=26)
DRILL_LIMIT = timedelta(days=9)
DISK_FREE = 0.1
# What `failover` says of a site where nothing is wrong.
SOUND = "answers as a writable primary"
# And what it says for some minutes after it has failed over.
COOLING = "less than the cooldown ago"


class Holds(StrEnum):
    """How a link is."""

    OK = "ok"
    NOT_SET_UP = "not set up"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes:
        name: what it is.
        holds: how it is.
        said: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    holds: Holds
    said: str
    remedy: str = ""

    def __str__(self) -> str:
        advice = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.holds:<10}  {self.name}: {self.said}{advice}"


def nodes_link(judged: Decision[Verdict], unseeing: Sequence[str]) -> list[Link]:
    """Nodes, guards, positions and witnesses, as a look judges them."""
    if judged.kind is Verdict.HEALTHY:
        first = Link("site", Holds.OK, "HEALTHY by a look at all nodes")
    else:
        holds = Holds.WARNING if judged.kind is Verdict.DEGRADED else Holds.BROKEN
        first = Link("site", holds, f"{judged.kind}: {'; '.join(judged.reasons)}", judged.first)
    advice = "docs/failover.md, who may vote"
    blind = [Link("witnesses", Holds.WARNING, line, advice) for line in unseeing]
    return [first, *(blind or [Link("witnesses", Holds.OK, "all see the nodes that are in service")])]


def fence_link(kind: str, command: Sequence[str] | None, found: bool, trouble: Sequence[str]) -> Link:
    """The way to switch a machine off.

    Args:
        kind: `fence_kind` of the site.
        command: its fence command, if it has one.
        found: whether its program is on this machine.
        trouble: what a rehearsal stumbled over.
    """
    if trouble:
        return Link(
            "fence", Holds.BROKEN, "; ".join(trouble), "a machine that is gone could not be switched off"
        )
    if kind != "command":
        return Link("fence", Holds.OK, "rehearsed: every node could be stopped")
    if not command:
        said = "no fence_command: a machine that is gone is proven off by nobody, and failover asks for an attestation"
        return Link("fence", Holds.NOT_SET_UP, said, "docs/operations.md, the fence command")
    if not found:
        return Link(
            "fence", Holds.BROKEN, f"{command[0]} is not a program on this machine", "install it here"
        )
    return Link("fence", Holds.OK, f"{command[0]} is here; that it tells the truth, only you can try")


def watcher_link(site: str, port: int, samples: Mapping[str, float] | None) -> Link:
    """The watcher, by its own numbers about the site.

    Args:
        samples: `look_age_seconds` and others without their prefix; None: nothing answers on the port.
    """
    start = "systemctl status harbor-ha-runner (or harbor-ha-watch)"
    if samples is None:
        return Link("watcher", Holds.BROKEN, f"nothing answers on 127.0.0.1:{port}", start)
    age = samples.get("look_age_seconds")
    if age is None:
        said, remedy = (
            f"it does not watch {site}",
            f"HARBOR_HA_SITES must have --site {site}; restart the runner",
        )
        return Link("watcher", Holds.BROKEN, said, remedy)
    if age > WATCHED_S:
        return Link("watcher", Holds.BROKEN, f"it looked {age:.0f} s ago, and not since", start)
    if samples.get("prefect_takes_calls") == 0.0:
        return Link(
            "watcher", Holds.BROKEN, "Prefect did not take its last call", "the line of Prefect, below"
        )
    return Link("watcher", Holds.OK, f"looked {age:.1f} s ago")


def runner_link(ready: bool | None) -> Link:
    """Whether somebody takes the runs; None: Prefect has no deployment `failover`."""
    start = "systemctl status harbor-ha-runner"
    if ready is None:
        return Link("runner", Holds.BROKEN, "Prefect knows no flow of ours", start)
    if not ready:
        return Link("runner", Holds.BROKEN, "nobody asks Prefect for runs: a call would wait", start)
    return Link("runner", Holds.OK, "asks Prefect for runs")


def schedules_link(site: str, due: Mapping[str, datetime], wanted: Sequence[str], now: datetime) -> Link:
    """What runs next by schedule.

    Args:
        due: when each deployment runs next.
        wanted: those that the site's settings have run by schedule.
    """
    if not due:
        remedy = f"HARBOR_HA_SITES must have --site {site}; restart the runner"
        return Link("schedules", Holds.BROKEN, "nothing runs by schedule", remedy)
    late = sorted(name for name, at in due.items() if at < now - timedelta(minutes=5))
    if late:
        return Link(
            "schedules", Holds.BROKEN, f"overdue: {', '.join(late)}", "systemctl status harbor-ha-runner"
        )
    lacking = [name for name in wanted if name not in due]
    if lacking:
        remedy = "resume its schedule in Prefect; harbor-ha apply makes one that was taken away"
        return Link("schedules", Holds.WARNING, f"not due: {', '.join(lacking)}", remedy)
    nearest = sorted(due.items(), key=lambda item: item[1])
    said = ", ".join(f"{name} in {_span(at - now)}" for name, at in nearest)
    return Link("schedules", Holds.OK, said)


def drill_link(name: str, state: str, headline: str, seconds: float) -> Link:
    """What became of a failover that was called while the site is sound."""
    if state == "COMPLETED" and SOUND in headline:
        return Link(name, Holds.OK, f"a failover was called and did nothing, in {seconds:.0f} s: {headline}")
    if state == "COMPLETED" and COOLING in headline:
        said = (
            f"a failover was called and held back by the cooldown, in {seconds:.0f} s: the way there is sound"
        )
        remedy = "until it is over only a person's failover with an attestation goes on"
        return Link(name, Holds.WARNING, said, remedy)
    if state in ("SCHEDULED", "PENDING", "RUNNING"):
        said = f"a failover was called and is {state} after {seconds:.0f} s"
        return Link(name, Holds.BROKEN, said, "systemctl status harbor-ha-runner")
    said = f"a failover was called and ended as {state}: {headline}"
    return Link(name, Holds.BROKEN, said, "read its report in Prefect")


def rules_link(alerts: Iterable[str], wanted: Iterable[str], scraped: bool) -> Link:
    """Prometheus: whether it has the shipped rules, and reads the watcher.

    Args:
        alerts: names of the alerting rules that it has.
        wanted: names of the shipped ones.
        scraped: whether its job `harbor-ha` is up.
    """
    there = set(alerts)
    lacking = [name for name in wanted if name not in there]
    if lacking:
        remedy = "merge deployments/alerts/prometheus-rules.yml and reload it"
        return Link("Prometheus", Holds.BROKEN, f"lacks the rules {', '.join(lacking)}", remedy)
    if not scraped:
        remedy = "the scrape job of deployments/alerts/prometheus-rules.yml"
        return Link("Prometheus", Holds.BROKEN, "its job harbor-ha is not up: no rule has a series", remedy)
    return Link("Prometheus", Holds.OK, "has all rules, and reads the watcher")


def backups_link(newest: datetime | None, proven: datetime | None, now: datetime) -> list[Link]:
    """The newest complete backup, and the newest that a drill has looked through."""
    read = "the report of nightly-backup says why"
    if newest is None:
        return [Link("backup", Holds.BROKEN, "none is complete", read)]
    said = f"the newest complete one began {_span(now - newest)} ago"
    made = (
        Link("backup", Holds.OK, said)
        if now - newest < BACKUP_LIMIT
        else Link("backup", Holds.BROKEN, said, read)
    )
    if proven is None:
        return [made, Link("drill", Holds.WARNING, "no backup was drilled yet", "run restore-drill")]
    said = f"the newest that passed one began {_span(now - proven)} ago"
    fresh = now - proven < DRILL_LIMIT
    return [
        made,
        Link("drill", Holds.OK if fresh else Holds.WARNING, said, "" if fresh else "run restore-drill"),
    ]


def disk_link(path: str, free: float) -> Link:
    """Room where this machine keeps sites and reports; `free` is the free part of the disk."""
    holds = Holds.OK if free >= DISK_FREE else Holds.WARNING
    return Link(
        "disk", holds, f"{free:.0%} of the disk of {path} is free", "" if holds is Holds.OK else "make room"
    )


def worst(links: Iterable[Link]) -> Holds:
    """The worst of all links; what is not set up is no fault."""
    order = list(Holds)
    return max((link.holds for link in links), key=order.index, default=Holds.OK)


def samples_of(text: str, site: str) -> dict[str, float]:
    """Read the numbers of a site without further labels from the watcher's answer; what is odd is left out."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, brace, rest = line.partition("{")
        labels, end, value = rest.partition("} ")
        if not brace or not end or labels != f'site="{site}"' or not name.startswith("harbor_ha_"):
            continue
        try:
            found[name.removeprefix("harbor_ha_")] = float(value)
        except ValueError:
            continue
    return found


def rule_names(document: Mapping[str, Any]) -> list[str]:
    """Name the alerts of a rules file, or of Prometheus' answer about its rules."""
    groups = (document.get("data") or document).get("groups") or []
    rules = [rule for group in groups for rule in group.get("rules") or []]
    names = [
        rule.get("alert") or (rule.get("name") if rule.get("type") == "alerting" else None) for rule in rules
    ]
    return [str(name) for name in names if name]


def _span(age: timedelta) -> str:
    minutes = max(0, round(age.total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 72 * 60 else f"{minutes // 1440} days"
