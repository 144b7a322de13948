"""Every deployment, in one list: what the UI offers, what runs on a schedule, what an alert can start."""

import importlib
import inspect
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Schedule

    from blocks import HarborSite

TAG = "harbor-ha"
"""On every deployment of ours; the command line finds them by it."""


# From here intervals are counted, for every site from another of sixty parts: a hundred looks at once in one second
# of each minute are late together.
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class DeploymentEntry:
    """One deployment.

    Attributes:
        name: as in the UI and in `harbor-ha run NAME`.
        entrypoint: `package.module.function` of the flow; imported, so it runs from any directory.
        description: what it does, for whoever is about to press the button.
        tags: in addition to `harbor-ha`.
        schedule: `cron`, `drill_cron` or `base_cron` of the site's backup policy; None: started by hand or by an alert.
        every: run so often instead, by a setting of the site's failover policy in seconds; each site at a second
            of its own.
        parameters: defaults that differ from the flow's own.
        node: the parameter that names a node of the site, which is a choice in the form; "" when there is none.
    """

    name: str
    entrypoint: str
    description: str
    tags: tuple[str, ...] = ()
    schedule: Literal["cron", "drill_cron", "base_cron"] | None = None
    every: Literal["check_every_s"] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    node: str = ""

    def flow(self) -> "Flow[..., Any]":
        """Import the flow. Raises ImportError or AttributeError when the entrypoint leads nowhere."""
        module, _, function = self.entrypoint.rpartition(".")
        found: Flow[..., Any] = getattr(importlib.import_module(module), function)
        return found

    def schedule_of(self, site: "HarborSite") -> "Schedule | None":
        """Return when this runs for a site, in the site's time zone; None when it has no schedule."""
        from prefect.schedules import Cron, Interval

        parameters, slug = {"site": site.name}, f"{self.name}-{site.name}"
        if self.schedule is not None:
            cron = getattr(site.backup, self.schedule)
            return Cron(cron, timezone=site.backup.timezone, parameters=parameters, slug=slug)
        if self.every is not None:
            every = timedelta(seconds=getattr(site.failover, self.every))
            anchor = _EPOCH + every * (zlib.crc32(site.name.encode()) % 60) / 60
            return Interval(every, anchor, timezone=site.backup.timezone, parameters=parameters, slug=slug)
        return None

    def deployment(self, sites: "tuple[HarborSite, ...]" = ()) -> "RunnerDeployment":
        """Return Prefect's form of the entry, with a schedule for each of the sites."""
        from prefect.types.entrypoint import EntrypointType

        schedules = [self.schedule_of(site) for site in sites if self.fits(site)]
        made = self.flow().to_deployment(
            name=self.name,
            description=self.description,
            tags=[TAG, *self.tags],
            parameters=dict(self.parameters),
            schedules=[schedule for schedule in schedules if schedule is not None],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert not inspect.iscoroutine(made)  # it is one only when called from a coroutine
        return cast("RunnerDeployment", made)

    def fits(self, site: "HarborSite") -> bool:
        """Whether the site has what a run by schedule needs: a bucket, and WAL in it for base backups."""
        if self.schedule == "base_cron" and site.backup.wal_archive != "oss":
            return False
        return site.oss is not None or self.schedule is None


CATALOGUE: tuple[DeploymentEntry, ...] = (
    DeploymentEntry(
        "bootstrap",
        "flows.bootstrap.bootstrap",
        "Build a site from bare machines, or complete one. Run again, it changes nothing.",
        ("setup",),
    ),
    DeploymentEntry(
        "adopt",
        "flows.adopt.adopt",
        "Take over a Harbor that runs already: images, database, keys. One command puts it back.",
        ("setup",),
    ),
    DeploymentEntry(
        "check",
        "flows.check.check",
        "Judge the site by its facts and a real write; keeps the position by which a failover knows its cost.",
        ("watch",),
        every="check_every_s",
    ),
    DeploymentEntry(
        "failover",
        "flows.failover.failover",
        "Promote the standby when the primary is really gone. A false, late or second alert does nothing.",
        ("alert",),
        node="expected_primary",
    ),
    DeploymentEntry(
        "switchover",
        "flows.switchover.switchover",
        "Exchange the roles, planned and without loss; can be taken back until the promotion.",
        ("maintenance",),
        node="to",
    ),
    DeploymentEntry(
        "rejoin",
        "flows.rejoin.rejoin",
        "Make a former primary the standby again; lists what only it had.",
        ("maintenance",),
        node="node",
    ),
    DeploymentEntry(
        "pause",
        "flows.pause.pause",
        "Pause the site for maintenance, or end the pause; nothing that an alert starts acts meanwhile.",
        ("maintenance",),
    ),
    DeploymentEntry(
        "nightly-backup",
        "flows.nightly_backup.nightly_backup",
        "Databases, configuration and images into the bucket; a backup exists when it is complete.",
        ("backup",),
        schedule="cron",
    ),
    DeploymentEntry(
        "restore-drill",
        "flows.restore_drill.restore_drill",
        "Restore the newest backup into a scratch PostgreSQL, compare everything, throw it away.",
        ("backup",),
        schedule="drill_cron",
        node="node",
    ),
    DeploymentEntry(
        "base-backup",
        "flows.base_backup.base_backup",
        "A base backup of the primary into the bucket, from which WAL leads to any later point in time.",
        ("backup",),
        schedule="base_cron",
    ),
    DeploymentEntry(
        "prune",
        "flows.prune.prune",
        "Show which backups are past all generations; remove them only when confirmed.",
        ("backup",),
    ),
    DeploymentEntry(
        "disaster-restore",
        "flows.disaster_restore.disaster_restore",
        "From a bare machine and the bucket to a working Harbor; refuses while the site lives.",
        ("disaster",),
        node="target",
    ),
)


def entry(name: str) -> DeploymentEntry:
    """Find an entry by its name; `_` and `-` are the same. Raises KeyError."""
    return {known.name: known for known in CATALOGUE}[name.replace("_", "-")]
