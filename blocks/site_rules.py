"""What the values of a site must be to each other; all rules together."""

import fnmatch
import ipaddress
import itertools
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from blocks import certificates, value_rules
from blocks.aliyun_rules import problems_of_the_cloud
from blocks.keys import decrypts
from blocks.problems import Problem
from blocks.site import HarborSite

Values = Mapping[str, Any]
"""Dotted path to value, such as `nodes.node-a.address`; a path that is missing was wrong already."""


def problems_of(values: Values, now: datetime) -> list[Problem]:
    """Given the values of a site, return every mistake in them.

    `now` (with a time zone) judges the certificate. Values that are missing are not reported here,
    and rules that need them are left out.
    """
    found = list(_single_values(values))
    wrong = {problem.path for problem in found}
    sound = {path: value for path, value in values.items() if path not in wrong}
    for rule in _RULES:
        found.extend(rule(sound))
    found.extend(_certificate(sound, now))
    return found


def values_of(site: HarborSite) -> dict[str, Any]:
    """Return the values of a site by path, as `problems_of` takes them."""
    return dict(_flatten(site, ""))


def _flatten(model: BaseModel, path: str) -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        here = f"{path}.{name}" if path else name
        if isinstance(value, BaseModel):
            yield from _flatten(value, here)
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for item in value:
                yield from _flatten(item, f"{here}.{getattr(item, 'name', '?')}")
        else:
            yield here, value


def _single_values(values: Values) -> Iterator[Problem]:
    for path, value in values.items():
        for pattern, rule in value_rules.RULES:
            if fnmatch.fnmatchcase(path, pattern):
                flaw = rule(value)
                if flaw:
                    yield Problem(path, flaw.what, flaw.right)


def _nodes(values: Values) -> list[str]:
    return sorted({path.split(".")[1] for path in values if path.startswith("nodes.")})


def _one_address_a_node(values: Values) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for node in _nodes(values):
        path = f"nodes.{node}.address"
        address = str(values.get(path, "")).lower()
        if address and address in seen:
            yield Problem(
                path, f"{address} is the address of {seen[address]} as well", "one address for each node"
            )
        elif address:
            seen[address] = node


def _enough_nodes(values: Values) -> Iterator[Problem]:
    nodes = _nodes(values)
    for key, what in (("runs_postgres", "PostgreSQL"), ("runs_harbor", "Harbor")):
        count = sum(bool(values.get(f"nodes.{node}.{key}", True)) for node in nodes)
        if nodes and count == 0:
            yield Problem("nodes", f"none runs {what}", f"{key}: true for two of them")
        elif count == 1:
            yield Problem("nodes", f"only one runs {what}: nothing can take over", "two nodes", warning=True)


def _roles_differ(values: Values) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for role in ("application", "replication", "rewind"):
        user = values.get(f"postgres.{role}.user")
        if user in seen:
            yield Problem(f"postgres.{role}.user", f"is the {seen[user]} role too", "a role for each purpose")
        elif user is not None:
            seen[user] = role


def _ports_differ(values: Values) -> Iterator[Problem]:
    ports = [
        (path, values[path])
        for path in ("harbor.http_port", "harbor.https_port", "postgres.port")
        if values.get(path) is not None
    ]
    ssh = {values.get(f"nodes.{node}.port") for node in _nodes(values)}
    for (first, one), (second, other) in itertools.combinations(ports, 2):
        if one == other:
            yield Problem(second, f"{other} is {first} as well", "another port")
    for path, port in ports:
        if port in ssh:
            yield Problem(path, f"{port} is the SSH port of a node as well", "another port")


def _redis_databases_differ(values: Values) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    for name in ("registry_db", "jobservice_db", "chartmuseum_db", "trivy_db"):
        index = values.get(f"redis.{name}")
        if index in seen:
            yield Problem(f"redis.{name}", f"{index} is redis.{seen[index]} as well", "a database for each")
        elif index is not None:
            seen[index] = name


def _directories_apart(values: Values) -> Iterator[Problem]:
    """Two things that are wiped, restored or mounted separately must not lie in each other."""
    data_dir, archive_dir = values.get("postgres.data_dir"), values.get("postgres.archive_dir")
    volume, nas = values.get("harbor.data_volume"), values.get("nas.path")
    install = values.get("harbor.install_dir")
    for path, one, other_path, other in (
        ("postgres.archive_dir", archive_dir, "postgres.data_dir", data_dir),
        ("harbor.data_volume", volume, "postgres.data_dir", data_dir),
        ("harbor.data_volume", volume, "postgres.archive_dir", archive_dir),
        ("harbor.data_volume", volume, "harbor.install_dir", install),
    ):
        if one and other and _nested(one, other):
            yield Problem(path, f"{one} and {other_path} {other} lie in each other", "separate directories")
    for path, local in (("postgres.data_dir", data_dir), ("harbor.data_volume", volume)):
        if nas and local and (local == nas or local.startswith(f"{nas}/")):
            yield Problem(path, f"{local} lies on the NAS ({nas})", "a directory on the node's own disk")
    if nas and volume and (nas == f"{volume}/registry" or nas.startswith(f"{volume}/registry/")):
        yield Problem("nas.path", f"{volume}/registry is mounted from the NAS later", "a path outside of it")


def _nested(one: str, other: str) -> bool:
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a == b or a in b.parents or b in a.parents


def _network_is_free(values: Values) -> Iterator[Problem]:
    if "harbor.network" not in values:
        return
    network = ipaddress.ip_network(values["harbor.network"])
    paths = [f"nodes.{node}.address" for node in _nodes(values)]
    for path in (*paths, "redis.host", "balancer.address", "balancer.admin_host"):
        value = values.get(path)
        if isinstance(value, str) and value_rules.is_ip(value) and ipaddress.ip_address(value) in network:
            yield Problem(
                "harbor.network", f"{network} contains {path} {value}", "a network that is used nowhere"
            )


def _balancer_can_be_driven(values: Values) -> Iterator[Problem]:
    needs = {
        "command": ("drain_command", "undrain_command", "status_command"),
        "haproxy": ("admin_host", "admin_port"),
    }
    kind = values.get("balancer.kind", "none")
    for key in needs.get(kind, ()):
        path = f"balancer.{key}"
        if path in values and values[path] is None:
            yield Problem(path, f"is missing: balancer.kind is {kind}", "add it, or set another kind")


def _fencing_can_succeed(values: Values) -> Iterator[Problem]:
    command = values.get("failover.fence_command")
    if (
        values.get("failover.fencing") == "confirmed"
        and "failover.fence_command" in values
        and command is None
        and values.get("failover.fence_kind") != "aliyun-ecs"
    ):
        yield Problem(
            "failover.fence_command",
            "is missing: with fencing confirmed a machine that is gone cannot be proven off, and an "
            "automatic failover is refused",
            "a command that switches a node off, fence_kind: aliyun-ecs, or fencing: witnesses",
            warning=True,
        )
    if command and not any("{node}" in word or "{address}" in word for word in command):
        yield Problem(
            "failover.fence_command", "does not say which node", "{node} or {address} among its arguments"
        )
    if values.get("failover.fencing") == "witnesses" and values.get("balancer.kind") == "none":
        yield Problem(
            "failover.fencing",
            "witnesses needs a load balancer that drains",
            "another balancer.kind",
        )


def _harbor_parts_exist(values: Values) -> Iterator[Problem]:
    version = str(values.get("harbor.version", "")).removeprefix("v").split(".")
    if len(version) < 2 or not (version[0].isdigit() and version[1].isdigit()):
        return
    release = (int(version[0]), int(version[1]))
    if not (2, 3) <= release <= (2, 15):
        yield Problem("harbor.version", "was never tried with this software", "2.3 to 2.15", warning=True)
    for part, last in (("notary", (2, 8)), ("chartmuseum", (2, 7))):
        if part in values.get("harbor.components", ()) and release > last:
            yield Problem(
                "harbor.components", f"{part} was removed after Harbor {last[0]}.{last[1]}", f"remove {part}"
            )


def _backups_can_be_made(values: Values) -> Iterator[Problem]:
    has_oss = values.get("oss.bucket") is not None
    if has_oss and values.get("backup.age_recipients") == []:
        yield Problem(
            "backup.age_recipients",
            "is empty: backups hold every password of Harbor",
            "at least one age public key",
        )
    identity = values.get("backup.age_identity")
    recipients = values.get("backup.age_recipients") or []
    if isinstance(identity, SecretStr) and not decrypts(identity.get_secret_value(), recipients):
        # Every weekly drill would end red, over a backup that is as good as any.
        yield Problem(
            "backup.age_identity",
            "decrypts nothing that is encrypted for backup.age_recipients",
            "add its public key to age_recipients, or leave it out: then drills decrypt nothing and say so",
        )
    if (
        values.get("backup.wal_archive") == "oss"
        and not has_oss
        and not any(p.startswith("oss.") for p in values)
    ):
        yield Problem(
            "backup.wal_archive", "is oss, but the site has no bucket", "add oss, or wal_archive: disk"
        )
    if values.get("backup.wal_archive") == "oss" and values.get("backup.wal_passphrase", "") is None:
        yield Problem(
            "backup.wal_passphrase",
            "is missing: WAL holds every password of Harbor",
            "a random text of 20 characters or more, kept where the age identity is",
        )
    host, region = str(values.get("oss.endpoint", "")), values.get("oss.region")
    name = urlsplit(host).hostname or ""
    ships = values.get("backup.wal_archive") == "oss" and values.get("oss.s3_endpoint", "") is None
    if ships and value_rules.is_ip(name):
        yield Problem(
            "oss.s3_endpoint",
            f"is missing, and {name} cannot have the bucket's name in front of it",
            "the name of OSS' S3 side, https://s3.…",
        )
    if region and ".aliyuncs.com" in host and f"oss-{region}" not in host:
        yield Problem(
            "oss.region", f"{region} does not fit the endpoint {host}", "the region of the endpoint"
        )


def _endpoints_without_bucket(values: Values) -> Iterator[Problem]:
    """OSS puts the bucket's name in front of the endpoint itself; twice it is a name that does not exist."""
    bucket = values.get("oss.bucket")
    for path in ("oss.endpoint", "oss.s3_endpoint"):
        value = str(values.get(path) or "")
        if bucket and (urlsplit(value).hostname or "").startswith(f"{bucket}."):
            yield Problem(path, "begins with the bucket's name", value.replace(f"{bucket}.", "", 1))


def _certificate(values: Values, now: datetime) -> Iterator[Problem]:
    chain, key = values.get("harbor.certificate"), values.get("harbor.certificate_key")
    if chain is None or not isinstance(key, SecretStr):
        return
    for flaw in certificates.flaws(chain, key.get_secret_value(), values.get("harbor.hostname"), now):
        path = "harbor.certificate" if flaw.of == "certificate" else "harbor.certificate_key"
        yield Problem(path, flaw.what, flaw.right)


_RULES = (
    _enough_nodes,
    _one_address_a_node,
    _roles_differ,
    _ports_differ,
    _redis_databases_differ,
    _directories_apart,
    _network_is_free,
    _balancer_can_be_driven,
    _fencing_can_succeed,
    problems_of_the_cloud,
    _harbor_parts_exist,
    _backups_can_be_made,
    _endpoints_without_bucket,
)
