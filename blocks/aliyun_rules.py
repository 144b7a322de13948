"""What a site needs that uses Alibaba Cloud's API: an account, instances, and the SDKs on the orchestrator."""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from blocks.flaw import Flaw
from blocks.problems import Problem

BALANCERS = {
    "aliyun-clb": ("lb-", "alibabacloud_slb20140515"),
    "aliyun-nlb": ("nlb-", "alibabacloud_nlb20220430"),
}
"""Kinds of load balancer, with how their instances' names begin, and the SDK."""

_ECS = "alibabacloud_ecs20140526"
_GROUPS = {"aliyun-clb": "rsp-", "aliyun-nlb": "sgp-"}
_LOOPBACK = ("127.0.0.1", "localhost")
INSTALL = "in this software's directory: make venv, or .venv/bin/pip install -e '.[aliyun]'"
"""How the SDKs get onto the orchestrator, as the end of a sentence."""


def problems_of_the_cloud(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Given the values of a site by path, yield what is missing for the kinds that ask Alibaba Cloud.

    Values that are missing were reported already.
    """
    kind = values.get("balancer.kind")
    stops = values.get("failover.fence_kind") == "aliyun-ecs"
    users = [(path, sdk) for path, sdk in _users(kind, stops) if not installed(sdk)]
    for path, sdk in users:
        yield Problem(path, f"needs the SDK {sdk}, which is not installed", INSTALL)
    if kind in BALANCERS:
        yield from _balancer(values, kind)
    if kind in BALANCERS or stops:
        yield from _account(values)
        yield from _instances(values, balanced=kind in BALANCERS, stops=stops)
    if stops and values.get("failover.fence_command"):
        yield Problem(
            "failover.fence_command", "is never run: fence_kind is aliyun-ecs", "remove one of the two"
        )


def installed(sdk: str) -> bool:
    """Whether an SDK can be imported, without importing it."""
    return importlib.util.find_spec(sdk) is not None


def ecs_instance(value: str | None) -> Flaw | None:
    """The name of an ECS instance."""
    return _named(value, "i-", "an ECS instance", "i-bp1…")


def balancer_instance(value: str | None) -> Flaw | None:
    """The name of a CLB or NLB."""
    return _named(value, "lb-|nlb-", "a CLB or NLB", "lb-bp1… or nlb-…")


def api_endpoint(value: str | None) -> Flaw | None:
    """Host of an API. Without TLS anybody on the way could answer that a machine is stopped."""
    if value is None:
        return None
    right = "a host, such as ecs-vpc.cn-shanghai.aliyuncs.com"
    try:
        parts = urlsplit(value if "://" in value else f"https://{value}")
        _ = parts.port
    except ValueError:
        return Flaw(f"{value!r} is not an address", right)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        return Flaw(f"{value!r} is not the host of an API", right)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        return Flaw(f"{value} is without TLS: anybody on the way could answer for the cloud", right)
    return None


def _named(value: str | None, start: str, what: str, right: str) -> Flaw | None:
    if value is None or re.fullmatch(rf"({start})[A-Za-z0-9-]{{1,60}}", value):
        return None
    return Flaw(f"{value!r} is not the name of {what}", right)


def _users(kind: str | None, stops: bool) -> Iterator[tuple[str, str]]:
    if kind in BALANCERS:
        yield "balancer.kind", BALANCERS[kind][1]
    if stops:
        yield "failover.fence_kind", _ECS


def _balancer(values: Mapping[str, Any], kind: str) -> Iterator[Problem]:
    start, _ = BALANCERS[kind]
    instance = values.get("balancer.instance_id")
    if "balancer.instance_id" in values and not (instance or "").startswith(start):
        was = f"{instance} is no" if instance else "is missing: balancer.kind is"
        yield Problem("balancer.instance_id", f"{was} {kind}", f"the name of the instance, {start}…")
    group = values.get("balancer.server_group")
    if group and not group.startswith(_GROUPS[kind]):
        yield Problem("balancer.server_group", f"{group} is none of {kind}", f"{_GROUPS[kind]}…")
    if (
        kind == "aliyun-nlb"
        and values.get("balancer.create_listener")
        and "balancer.server_group" in values
        and not group
    ):
        yield Problem(
            "balancer.server_group",
            "is missing: a listener of an NLB needs one",
            "the name of a group, sgp-…",
        )


def _account(values: Mapping[str, Any]) -> Iterator[Problem]:
    if not any(path.startswith("aliyun.") for path in values):
        yield Problem("aliyun", "is missing", "region: …, and an AccessKey unless a RAM role is there")
    pair = [f"aliyun.access_key_{part}" for part in ("id", "secret")]
    for path, other in (pair, pair[::-1]):
        if path in values and values[path] is None and values.get(other) is not None:
            yield Problem(path, f"is missing, and {other} is there", "both, or none for the default chain")


def _instances(values: Mapping[str, Any], *, balanced: bool, stops: bool) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for node in sorted({path.split(".")[1] for path in values if path.startswith("nodes.")}):
        path = f"nodes.{node}.instance_id"
        instance = values.get(path, "")
        used = (balanced and values.get(f"nodes.{node}.runs_harbor", True)) or (
            stops and values.get(f"nodes.{node}.runs_postgres", True)
        )
        if instance is None and used:
            yield Problem(path, "is missing: the cloud is asked about this node", "its ECS instance, i-…")
        elif instance and instance in seen:
            yield Problem(path, f"{instance} is {seen[instance]} as well", "an instance for each node")
        elif instance:
            seen[instance] = node
