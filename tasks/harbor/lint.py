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
from tasks.harbor import lint_sections as sections
from tasks.harbor.lint_sections import at
from tasks.harbor.versions import Version, habits

_CARRIED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]*")
_ADMIN_BREAKERS = re.compile(r"[\s\"'`$#\\]")
_PLACEHOLDERS = ("/your/certificate/path", "/your/private/key/path", "reg.mydomain.com")


def wrapper_data_volume(text: str) -> list[str]:
    """Read data_volume as prepare's wrapper does: `grep '^[^#]*data_volume:' | awk '{print $NF}'`."""
    # By line feeds alone: in a file from Windows the value ends with a carriage return, for docker too.
    lines = [line for line in text.split("\n") if re.match(r"[^#]*data_volume:", line)]
    return [re.split(r"[ \t]+", line.rstrip(" \t"))[-1] for line in lines]


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
    except Exception as error:  # besides YAMLError: ValueError for a 31st of February, TypeError…
        return [yaml_fault(text, error)]
    if not isinstance(document, dict):
        return ["It is not a mapping."]
    problems = [
        f"In line {line} stands a key that was given before: remove one of the two." for line in twice
    ]
    problems += sections.no_sections(document)
    problems += _addresses(document) + _data_volume(document, text)
    problems += _database(document, version) + _redis(document)
    problems += sections.missing(document, version)
    problems += sections.wrong_values(document, version)
    problems += sections.other_meaning(document, version)
    return problems + _storage(document, version)


def _addresses(document: Mapping[str, Any]) -> list[str]:
    problems = []
    hostname = str(at(document, "hostname") or "")
    if hostname in ("", "127.0.0.1", "localhost", *_PLACEHOLDERS):
        problems.append(f"hostname is {hostname!r}; it must be the load balancer's name.")
    if at(document, "https") is not None:
        for key in ("certificate", "private_key"):
            path = at(document, f"https.{key}")
            if not path or path in _PLACEHOLDERS:
                problems.append(f"https.{key} is {path!r}; give the file, or remove https.")
    password = str(at(document, "harbor_admin_password") or "")
    if not password or _ADMIN_BREAKERS.search(password):
        problems.append(
            "harbor_admin_password is empty or has spaces, quotes, $, #, ` or \\; compose changes them."
        )
    return problems


def _data_volume(document: Mapping[str, Any], text: str) -> list[str]:
    found, meant = wrapper_data_volume(text), at(document, "data_volume")
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
            name for name in ("notary_signer", "notary_server") if at(document, f"external_database.{name}")
        ]
    for name in names:
        for key in ("host", "port", "db_name", "username", "password", "ssl_mode"):
            # `host: null` passes prepare and becomes POSTGRESQL_HOST=None.
            if at(document, f"external_database.{name}.{key}") in (None, ""):
                problems.append(f"external_database.{name}.{key} is missing.")
        if not _carried(at(document, f"external_database.{name}.password")):
            problems.append(
                f"external_database.{name}.password has characters other than A-Z a-z 0-9 _ . ~ -."
            )
    return problems


def _redis(document: Mapping[str, Any]) -> list[str]:
    problems = []
    if not at(document, "external_redis.host"):
        problems.append("external_redis.host is missing; each node would start a Redis of its own.")
    password = at(document, "external_redis.password")
    if password is not None and not _carried(password):
        problems.append("external_redis.password has characters other than A-Z a-z 0-9 _ . ~ -.")
    return problems


def _storage(document: Mapping[str, Any], version: Version) -> list[str]:
    redirect = at(document, "storage_service.redirect")
    right = habits(version).redirect_key
    # An empty one is none for prepare.
    if isinstance(redirect, Mapping) and redirect and right not in redirect:
        return [f"storage_service.redirect needs the key {right!r} in Harbor {version}."]
    return []


def _carried(value: Any) -> bool:
    return isinstance(value, str) and bool(_CARRIED.fullmatch(value))
