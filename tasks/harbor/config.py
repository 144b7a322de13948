"""harbor.yml, made from the installer's own template: pure functions over text, comments kept."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

from blocks import HarborSite, OssBucket
from blocks.flaw import shown
from blocks.yaml_fault import yaml_fault
from tasks.errors import Refused
from tasks.harbor.lint import lint
from tasks.harbor.lint_sections import REDIS_KEYS
from tasks.harbor.versions import Habits, Version, habits, parse_version
from tasks.harbor.web import clients_address, same_address
from tasks.harbor.yaml_edit import commented_out

# Harbor's own default of 0 means unlimited. Two nodes with a core and a jobservice each share the server's
# 100 connections with replication, the probe and the administrator.
MAX_OPEN_CONNECTIONS = 20
MAX_IDLE_CONNECTIONS = 5
SSL_MODE = "require"


def tls_paths(site: HarborSite) -> tuple[str, str]:
    """Name the certificate's and the key's file on a node; prepare copies from there at every run."""
    directory = f"{site.harbor.install_dir.rstrip('/')}/tls"
    return f"{directory}/server.crt", f"{directory}/server.key"


def render(
    base: str,
    site: HarborSite,
    database_host: str,
    *,
    database_port: int | None = None,
    storage: Mapping[str, Any] | None = None,
) -> str:
    """Write the site's settings into a harbor.yml.

    Args:
        base: the node's harbor.yml, or the template of the same version when there is none yet. What the
            operator added stays.
        site: the settings.
        database_host: address of the current primary.
        database_port: its port, if not the site's.
        storage: a `storage_service` section; None leaves what is there, which is the file system by default.

    Returns:
        The new text; the same text when everything in it is right already.

    Raises:
        Refused: the base cannot be read, or the result would not survive Harbor's `prepare`.
    """
    version = parse_version(site.harbor.version)
    base = commented_out(base, removed(base, version))
    base = _plain_data_volume(base, site.harbor.data_volume.rstrip("/"))
    document = _load(base)
    before = _plain(document)
    _apply(document, site, version, database_host, database_port or site.postgres.port)
    if storage is not None:
        _merge(document, {"storage_service": dict(storage)})
    problems = _address_problems(document, site)
    text = base if _plain(document) == before else _dump(document)
    problems += lint(text, version)
    if problems:
        raise Refused("harbor.yml would not survive Harbor's prepare.", problems)
    return text


def objections(base: str | None, site: HarborSite) -> list[str]:
    """List why `render` would refuse a harbor.yml, before anything is changed."""
    try:
        if base is not None:
            render(base, site, site.nodes[0].address)
    except Refused as refused:
        return list(refused.reasons)
    return []


def removed(base: str, version: Version) -> list[str]:
    """Name the keys of a harbor.yml that `render` makes remarks of: they change what the site file says of Redis.

    Raises:
        Refused: the base cannot be read.
    """
    document = _load(base)
    redis = document.get("external_redis")
    strange = sorted(set(map(str, redis)) - REDIS_KEYS) if isinstance(redis, Mapping) else []
    own = ["redis"] if habits(version).redis_section and document.get("redis") else []
    return [f"external_redis.{key}" for key in strange] + own


def oss_storage(bucket: OssBucket, version: Version, directory: str) -> dict[str, Any]:
    """Describe a bucket as Harbor's own storage, for a site that lives from its backup.

    Args:
        bucket: the bucket and the right to use it.
        version: Harbor's version; the name of the redirect switch depends on it.
        directory: the prefix under which `docker/registry/v2` lies.
    """
    secure = not bucket.endpoint.startswith("http://")
    return {
        "oss": {
            "accesskeyid": bucket.access_key_id,
            "accesskeysecret": bucket.access_key_secret.get_secret_value(),
            "region": f"oss-{bucket.region.removeprefix('oss-')}",
            "bucket": bucket.bucket,
            "endpoint": f"{bucket.bucket}.{re.sub('^https?://', '', bucket.endpoint)}",
            "secure": secure,
            "rootdirectory": directory,
        },
        "redirect": {habits(version).redirect_key: True},
    }


def _apply(document: CommentedMap, site: HarborSite, version: Version, host: str, port: int) -> None:
    harbor, known = site.harbor, habits(version)
    certificate, key = tls_paths(site)
    _merge(
        document,
        {
            "hostname": harbor.hostname,
            "http": {"port": harbor.http_port},
            "https": {"port": harbor.https_port, "certificate": certificate, "private_key": key},
            "harbor_admin_password": Quoted(harbor.admin_password.get_secret_value()),
            "external_database": _database(site, known, host, port),
            "external_redis": _redis(site, known),
        },
    )
    _complete(document)
    if known.job_loggers:
        _set_list(document["jobservice"], "job_loggers", ["STD_OUTPUT", "DB"])
    if known.sweeper_and_hook_timeout:
        document["jobservice"].setdefault("logger_sweeper_duration", 1)
        document["notification"].setdefault("webhook_job_http_client_timeout", 3)


def _set_list(section: CommentedMap, key: str, wanted: Sequence[str]) -> None:
    present = section.get(key)
    if not isinstance(present, CommentedSeq):
        section[key] = list(wanted)
        return
    # Item by item: with the list its remarks would go, and those below an item with that.
    while len(present) > len(wanted):
        _hand_down(present, len(present) - 1, len(present) - 2)
        del present[-1]
    short = len(present) < len(wanted)
    last = len(present) - 1
    for position, item in enumerate(wanted):
        if position == len(present):
            present.append(item)
        elif present[position] != item:
            present[position] = item
    if short:
        _hand_down(present, last, len(present) - 1)


def _hand_down(present: CommentedSeq, source: int, target: int) -> None:
    remarks, there = present.ca.items.pop(source, None), present.ca.items.get(target)
    if remarks and there and remarks[0] and there[0]:
        there[0].value += remarks[0].value
    elif remarks:
        present.ca.items[target] = remarks


def _address_problems(document: CommentedMap, site: HarborSite) -> list[str]:
    # Harbor tells clients where to fetch their token: external_url, else its own name with the node's port, which
    # is not the balancer's where that passes 443 on to 8443.
    wanted, told = clients_address(site), document.get("external_url")
    if told is None and site.harbor.https_port != site.balancer.port:
        document["external_url"] = wanted
    if told is None or same_address(str(told), wanted):
        return []
    return [
        f"external_url is {shown(str(told))}, where clients would be sent for their token; the site file says that "
        f"they come to {wanted}: remove external_url, or correct harbor.hostname and balancer.port."
    ]


def _complete(document: CommentedMap) -> None:
    # A file that came through several versions lacks what was added later. With the values of Harbor's own template.
    _merge(document, {"jobservice": {}, "notification": {}, "log": {}})
    document["jobservice"].setdefault("max_job_workers", 10)
    document["notification"].setdefault("webhook_job_max_retry", 3)
    log = document["log"]
    log.setdefault("level", "info")
    if not log.get("local"):
        # Until 2.0 it stood beside the level.
        old = {"rotate_count": 50, "rotate_size": "200M", "location": "/var/log/harbor"}
        log["local"] = {key: log.get(key, value) for key, value in old.items()}


def _plain_data_volume(text: str, directory: str) -> str:
    # prepare's wrapper reads data_volume with grep and awk: the last word of the line, quotes and all. A
    # remark behind the value once became the name of an empty docker volume, with a new secretkey in it.
    # So the line is written as text; ruamel would keep quotes and remark.
    line = r"(?m)^(\ufeff?)data_volume:.*$"
    if not re.search(line, text):
        return f"{text.rstrip()}\n\ndata_volume: {directory}\n"
    return re.sub(line, lambda found: f"{found[1]}data_volume: {directory}", text)


def _database(site: HarborSite, known: Habits, host: str, port: int) -> dict[str, Any]:
    role = site.postgres.application

    def section(database: str) -> dict[str, Any]:
        return {
            "host": host,
            "port": port,
            "db_name": database,
            "username": role.user,
            "password": Quoted(role.password.get_secret_value()),
            "ssl_mode": SSL_MODE,
        }

    pool = {"max_idle_conns": MAX_IDLE_CONNECTIONS, "max_open_conns": MAX_OPEN_CONNECTIONS}
    sections = {"harbor": {**section(site.postgres.database), **pool}}
    if known.notary:
        sections["notary_signer"] = section("notarysigner")
        sections["notary_server"] = section("notaryserver")
    return sections


def _redis(site: HarborSite, known: Habits) -> dict[str, Any]:
    redis = site.redis
    section = {
        "host": f"{redis.host}:{redis.port}",
        "password": Quoted(redis.password.get_secret_value()),
        "registry_db_index": redis.registry_db,
        "jobservice_db_index": redis.jobservice_db,
        "trivy_db_index": redis.trivy_db,
        "idle_timeout_seconds": 30,
    }
    if known.chartmuseum:
        section["chartmuseum_db_index"] = redis.chartmuseum_db
    return section


def _merge(target: CommentedMap, wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if isinstance(value, Mapping):
            if not isinstance(target.get(key), Mapping):
                target[key] = CommentedMap()
            _merge(target[key], value)
        elif key not in target or target[key] != value:
            # Assigning an equal value would still drop the quotes that the operator chose.
            target[key] = value


def _load(text: str) -> CommentedMap:
    try:
        document = _yaml().load(text)
    except Exception as error:  # besides YAMLError: ValueError for a 31st of February, TypeError…
        raise Refused("harbor.yml cannot be read.", [yaml_fault(text, error)]) from None
    if not isinstance(document, CommentedMap):
        raise Refused("harbor.yml cannot be read.", ["It is not a mapping; was the installer unpacked?"])
    return document


def _dump(document: CommentedMap) -> str:
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    # A folded line would be fine YAML and still break the wrapper's grep.
    yaml.width = 1 << 16
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _plain(document: Any) -> Any:
    if isinstance(document, Mapping):
        return {str(key): _plain(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_plain(value) for value in document]
    return document
