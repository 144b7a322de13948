"""A site whose machines and load balancer are at the cloud's stand-in, and the stand-in itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite, read_site_file
from tasks.aliyun import client
from tests.unit.aliyun_endpoint import KEY_ID, SECRET, Endpoint, serving
from tests.unit.aliyun_products import CLB_ID, GROUP, NLB_ID, REGION, A, B, Clb, Ecs, Nlb
from tests.unit.site_on_disk import NOW, SiteOnDisk, correct_site


@dataclass
class Cloud:
    """The stand-in, with its products."""

    endpoint: Endpoint
    ecs: Ecs
    clb: Clb
    nlb: Nlb


def cloud_site(directory: Path, kind: str = "aliyun-clb", address: str = "http://127.0.0.1:9") -> SiteOnDisk:
    """A correct site file of a kind of load balancer, with `fence_kind: aliyun-ecs`."""
    site = correct_site(directory)
    site.data["nodes"]["node-a"]["instance_id"] = A
    site.data["nodes"]["node-b"]["instance_id"] = B
    site.data["balancer"] = {
        "kind": kind,
        "address": "10.20.0.10",
        "instance_id": CLB_ID if kind == "aliyun-clb" else NLB_ID,
    }
    if kind == "aliyun-nlb":
        site.data["balancer"]["server_group"] = GROUP
    site.data["failover"] = {"fence_kind": "aliyun-ecs"}
    site.data["aliyun"] = {
        "region": REGION,
        "access_key_id": KEY_ID,
        "access_key_secret": site.secret("aliyun", f"{SECRET}\n"),
        "ecs_endpoint": address,
        "balancer_endpoint": address,
    }
    return site


def read(site: SiteOnDisk, **aliyun: Any) -> HarborSite:
    """Read a site file, with other values in its account."""
    site.data["aliyun"] |= aliyun
    return read_site_file(site.write(), environ={}, now=NOW)


@contextmanager
def stand_in() -> Iterator[Cloud]:
    """Start the stand-in."""
    endpoint = Endpoint()
    cloud = Cloud(endpoint, Ecs(endpoint), Clb(endpoint), Nlb(endpoint))
    with serving(endpoint):
        yield cloud


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten pauses and time limits; what they are for stays."""
    monkeypatch.setattr(client, "_PAUSE_S", 0.01)
    monkeypatch.setattr(client, "_READ_S", 0.3)
