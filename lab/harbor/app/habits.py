"""What differs between Harbor's versions, as its own sources have it; not taken from what our software believes.

Source: Harbor's sources at the tags v2.3.2, v2.8.4, v2.9.5, v2.13.2 and those between them.
"""

import re
from dataclasses import dataclass

# What is built when only the minor version is asked for: the patch that the facts were read from, else the first.
_PATCHES = {3: 2, 9: 5, 13: 2}

# `schema_migrations` after a start of the first release of each minor version.
_SCHEMA = {
    3: 60, 4: 70, 5: 80, 6: 90, 7: 100, 8: 110, 9: 120, 10: 130, 11: 140, 12: 150, 13: 160, 14: 170, 15: 180
}  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """One version's.

    Attributes:
        minor: 9 of 2.9.5.
        schema: the number of the newest migration that it brings.
        components: what `install.sh` and `prepare` know as --with-….
        redirect_key: the switch under `storage_service.redirect`; prepare dies of the other one.
        job_loggers: `jobservice.job_loggers` is mandatory.
        sweeper_and_hook_timeout: `jobservice.logger_sweeper_duration` and
            `notification.webhook_job_http_client_timeout` are mandatory.
        scanner_prefix: prepare draws a fifth secret, ROBOT_SCANNER_NAME_PREFIX.
        connection_ages: conn_max_lifetime and conn_max_idle_time reach core.
        compose_version: docker-compose.yml begins with a `version` line.
        creates_first: the migration creates its table before it looks: core ends on a read-only database.
        audit_ext: the audit log is in audit_log_ext.
    """

    minor: int
    schema: int
    components: tuple[str, ...]
    redirect_key: str
    job_loggers: bool
    sweeper_and_hook_timeout: bool
    scanner_prefix: bool
    connection_ages: bool
    compose_version: bool
    creates_first: bool
    audit_ext: bool


def habits(version: str) -> Habits:
    """Look up a version, `2.13.2` or `v2.13.2`.

    Raises:
        ValueError: it is none of Harbor 2.3 to 2.15.
    """
    minor, _ = _numbers(version)
    notary = ("notary",) if minor <= 8 else ()
    chartmuseum = ("chartmuseum",) if minor <= 7 else ()
    return Habits(
        minor=minor,
        schema=_SCHEMA[minor],
        components=("trivy", *notary, *chartmuseum),
        redirect_key="disabled" if minor <= 7 else "disable",
        job_loggers=minor >= 9,
        sweeper_and_hook_timeout=minor >= 8,
        scanner_prefix=minor >= 8,
        connection_ages=minor >= 7,
        compose_version=minor <= 11,
        creates_first=minor <= 4,
        audit_ext=minor >= 13,
    )


def full_version(word: str) -> str:
    """Complete a version: `2.9` is 2.9.5.

    Raises:
        ValueError: it is none of Harbor 2.3 to 2.15.
    """
    minor, patch = _numbers(word)
    return f"2.{minor}.{_PATCHES.get(minor, 0) if patch is None else patch}"


def _numbers(word: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"v?2\.(\d+)(?:\.(\d+))?", word)
    if match is None or int(match[1]) not in _SCHEMA:
        known = f"2.{min(_SCHEMA)} to 2.{max(_SCHEMA)}"
        raise ValueError(f"a Harbor version is 2.<minor>.<patch> from {known}, not {word!r}")
    return int(match[1]), int(match[2]) if match[2] else None


def for_version(text: str, minor: int) -> str:
    """Leave in a text what a version has.

    Args:
        text: `@from N`, `@until N` and `@end`, each on a line of its own, keep what lies between them for the minor
            versions from N on, or up to and with N. They may lie in each other.
        minor: 9 of 2.9.5.
    """
    kept, open_blocks = [], [True]
    for line in text.splitlines(keepends=True):
        word, _, number = line.strip().partition(" ")
        if word == "@from":
            open_blocks.append(open_blocks[-1] and minor >= int(number))
        elif word == "@until":
            open_blocks.append(open_blocks[-1] and minor <= int(number))
        elif word == "@end":
            open_blocks.pop()
        elif open_blocks[-1]:
            kept.append(line)
    return "".join(kept)
