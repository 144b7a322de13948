"""What differs between Harbor's versions, as far as this software touches it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.errors import Refused


class Version(NamedTuple):
    """A Harbor version, comparable."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


OLDEST = Version(2, 3)
NEWEST = Version(2, 15, 99)


@dataclass(frozen=True)
class Habits:
    """How one version wants its files.

    Attributes:
        redirect_key: name of the switch under `storage_service.redirect`. The wrong one is a bare KeyError in
            prepare; Harbor's own web site shows the old one to this day.
        job_loggers: jobservice.job_loggers is mandatory, and the DB logger exists: without it the logs of
            a job can be read only on the node that ran it.
        notary, chartmuseum: the component exists.
        sweeper_and_hook_timeout: jobservice.logger_sweeper_duration and
            notification.webhook_job_http_client_timeout are mandatory.
        compose_version: the `version` line of the generated docker-compose.yml; compose 1 refuses an
            override file with another one.
        redis_section: a section `redis` is read, and wins over external_redis.
        components: what `install.sh` and `prepare` accept as --with-….
        starts_read_only: core starts on a standby; older ones make a table first, end with FATAL, and their restarts
            back off.
    """

    redirect_key: str
    job_loggers: bool
    notary: bool
    chartmuseum: bool
    sweeper_and_hook_timeout: bool
    compose_version: str | None
    redis_section: bool
    components: tuple[str, ...]
    starts_read_only: bool


def parse_version(text: str) -> Version:
    """Read `2.9.5`, `v2.9.5` or `v2.9.5-rc1`.

    Raises:
        Refused: it is not a version, or one that this software does not know.
    """
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+].*)?", text.strip())
    if not match:
        raise Refused(
            "The Harbor version cannot be read.", [f"harbor.version is {text!r}; write it like 2.12.4."]
        )
    version = Version(int(match[1]), int(match[2]), int(match[3] or 0))
    if not OLDEST <= version <= NEWEST:
        raise Refused(
            "This Harbor version is not known.",
            [f"harbor.version is {version}; supported are 2.{OLDEST.minor} to 2.{NEWEST.minor}."],
        )
    return version


def habits(version: Version) -> Habits:
    """Tell how a version wants its files. Source: reference of Harbor's sources, tags v2.3.2 to v2.15.2."""
    minor = (version.major, version.minor)
    notary, chartmuseum = minor <= (2, 8), minor <= (2, 7)
    components = ("trivy", *(("notary",) if notary else ()), *(("chartmuseum",) if chartmuseum else ()))
    return Habits(
        redirect_key="disabled" if minor <= (2, 7) else "disable",
        job_loggers=minor >= (2, 9),
        notary=notary,
        chartmuseum=chartmuseum,
        sweeper_and_hook_timeout=minor >= (2, 8),
        compose_version="2.3" if minor <= (2, 11) else None,
        redis_section=minor >= (2, 7),
        components=components,
        starts_read_only=minor >= (2, 5),
    )


def component_flags(version: Version, components: Sequence[str]) -> list[str]:
    """Give the flags of `prepare`, in a fixed order.

    They must be the same on every node and at every run: a start without --with-trivy makes core delete the
    scanner from the database that all nodes share.

    Raises:
        Refused: a component that this version does not have.
    """
    known = habits(version).components
    unknown = sorted(set(components) - set(known))
    if unknown:
        raise Refused(
            f"Harbor {version} does not have all the components asked for.",
            [f"harbor.components names {name!r}; this version has {', '.join(known)}." for name in unknown],
        )
    return [f"--with-{name}" for name in known if name in components]
