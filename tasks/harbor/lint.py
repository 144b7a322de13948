"""What prepare would choke on, found before it runs.

prepare deletes every file under common/config before it reads harbor.yml, so a mistake that it finds itself
leaves a running Harbor without its configuration; and the mistakes that it does not find end up in the
containers.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from blocks.yaml_fault import duplicate_keys, yaml_fault
from tasks.harbor.versions import Version, habits

_CARRIED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]*")
_ADMIN_BREAKERS = re.compile(r"[\s\"'`$#\\]")
_PLACEHOLDERS = ("/your/certificate/path", "/your/private/key/path", "reg.mydomain.com")


def wrapper_data_volume(text: str) -> list[str]:
    """Read data_volume as prepare's wrapper does: `grep '^[^#]*data_volume:' | awk '{print $NF}'`."""
    return [line.split()[-1] for line in text.splitlines() if re.match(r"[^#]*data_volume:", line)]


def lint(text: str, version: Version) -> list[str]:
    """List what is wrong with a harbor.yml for a site with external PostgreSQL and Redis.

    Args:
        text: the file.
        version: Harbor's version, on which the mandatory keys depend.

    Returns:
        Every problem, each with what would be right; empty when prepare can run. No secrets.
    """
    try:
        # The loader that prepare uses: YAML 1.1, where an unquoted 1_000 is a number.
        document = yaml.safe_load(text)
        twice = duplicate_keys(text)
    except (
        Exception
    ) as error:  # besides YAMLError: ValueError for a 31st of February, TypeError, RecursionError…
        return [yaml_fault(text, error)]
    if not isinstance(document, dict):
        return ["It is not a mapping."]
    problems = [
        f"In line {line} stands a key that was given before: remove one of the two." for line in twice
    ]
    problems += _addresses(document) + _data_volume(document, text)
    problems += _database(document, version) + _redis(document)
    problems += _mandatory(document, version) + _storage(document, version)
    return problems


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def _addresses(document: Mapping[str, Any]) -> list[str]:
    problems = []
    hostname = str(_at(document, "hostname") or "")
    if hostname in ("", "127.0.0.1", "localhost", *_PLACEHOLDERS):
        problems.append(f"hostname is {hostname!r}; it must be the load balancer's name.")
    if _at(document, "https") is not None:
        for key in ("certificate", "private_key"):
            path = _at(document, f"https.{key}")
            if not path or path in _PLACEHOLDERS:
                problems.append(f"https.{key} is {path!r}; give the file, or remove https.")
    password = str(_at(document, "harbor_admin_password") or "")
    if not password or _ADMIN_BREAKERS.search(password):
        problems.append(
            "harbor_admin_password is empty or has spaces, quotes, $, #, ` or \\; compose changes them."
        )
    return problems


def _data_volume(document: Mapping[str, Any], text: str) -> list[str]:
    found, meant = wrapper_data_volume(text), _at(document, "data_volume")
    if found == [meant] and str(meant).startswith("/"):
        return []
    return [
        f"prepare would take {' and '.join(map(repr, found)) or 'nothing'} for data_volume {meant!r}; it must"
        " be exactly one line with an absolute path, without quotes and without a remark."
    ]


def _database(document: Mapping[str, Any], version: Version) -> list[str]:
    problems = []
    names = ["harbor"]
    if habits(version).notary:
        names += [
            name for name in ("notary_signer", "notary_server") if _at(document, f"external_database.{name}")
        ]
    for name in names:
        for key in ("host", "port", "db_name", "username", "password"):
            # `host: null` passes prepare and becomes POSTGRESQL_HOST=None.
            if _at(document, f"external_database.{name}.{key}") in (None, ""):
                problems.append(f"external_database.{name}.{key} is missing.")
        if not _carried(_at(document, f"external_database.{name}.password")):
            problems.append(
                f"external_database.{name}.password has characters other than A-Z a-z 0-9 _ . ~ -."
            )
    return problems


def _redis(document: Mapping[str, Any]) -> list[str]:
    problems = []
    if not _at(document, "external_redis.host"):
        problems.append("external_redis.host is missing; each node would start a Redis of its own.")
    password = _at(document, "external_redis.password")
    if password is not None and not _carried(password):
        problems.append("external_redis.password has characters other than A-Z a-z 0-9 _ . ~ -.")
    return problems


def _mandatory(document: Mapping[str, Any], version: Version) -> list[str]:
    known = habits(version)
    wanted = ["jobservice.max_job_workers", "log.level"]
    if known.sweeper_and_hook_timeout:
        wanted += ["jobservice.logger_sweeper_duration", "notification.webhook_job_http_client_timeout"]
    if known.job_loggers:
        wanted.append("jobservice.job_loggers")
    return [
        f"{path} is missing; prepare of {version} needs it." for path in wanted if _at(document, path) is None
    ]


def _storage(document: Mapping[str, Any], version: Version) -> list[str]:
    redirect = _at(document, "storage_service.redirect")
    right = habits(version).redirect_key
    if isinstance(redirect, Mapping) and right not in redirect:
        return [f"storage_service.redirect needs the key {right!r} in Harbor {version}."]
    return []


def _carried(value: Any) -> bool:
    return isinstance(value, str) and bool(_CARRIED.fullmatch(value))
