"""The site file of a site at Alibaba Cloud: what is missing is told at `apply`, all of it at once."""

from pathlib import Path
from typing import Any

import pytest

from blocks import SiteFileInvalid, aliyun_rules, read_site_file
from blocks.site_file import inspect_site_file
from tests.unit.aliyun_products import B
from tests.unit.aliyun_site import cloud_site
from tests.unit.site_on_disk import NOW, SiteOnDisk


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteOnDisk:
    monkeypatch.setattr(aliyun_rules, "installed", lambda sdk: True)
    return cloud_site(tmp_path)


def problems(site: SiteOnDisk) -> dict[str, str]:
    with pytest.raises(SiteFileInvalid) as caught:
        read_site_file(site.write(), environ={}, now=NOW)
    return {problem.path: f"{problem.what} -> {problem.right}" for problem in caught.value.problems}


@pytest.mark.parametrize("kind", ["aliyun-clb", "aliyun-nlb"])
def test_a_whole_site_at_the_cloud_has_no_mistake_and_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(aliyun_rules, "installed", lambda sdk: True)
    read, warnings = inspect_site_file(cloud_site(tmp_path, kind).write(), environ={}, now=NOW)
    assert warnings == []
    assert read.failover.switches_off
    assert read.aliyun is not None
    assert "the-secret" not in repr(read)


def test_everything_that_is_missing_is_told_at_once(site: SiteOnDisk) -> None:
    del site.data["aliyun"], site.data["balancer"]["instance_id"]
    for node in site.data["nodes"].values():
        del node["instance_id"]
    found = problems(site)
    assert set(found) == {
        "aliyun",
        "balancer.instance_id",
        "nodes.node-a.instance_id",
        "nodes.node-b.instance_id",
    }


def test_without_the_sdks_the_sentence_says_what_to_install(
    site: SiteOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliyun_rules, "installed", lambda sdk: False)
    found = problems(site)
    assert set(found) == {"balancer.kind", "failover.fence_kind"}
    assert ".venv/bin/pip install -e '.[aliyun]'" in found["balancer.kind"]
    assert "alibabacloud_ecs20140526" in found["failover.fence_kind"]


def test_without_the_sdks_other_sites_need_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliyun_rules, "installed", lambda sdk: False)
    site = cloud_site(tmp_path)
    site.data["balancer"] = {"kind": "none", "address": "10.20.0.10"}
    site.data["failover"] = {"fence_command": ["/bin/stop", "{node}"]}
    assert read_site_file(site.write(), environ={}, now=NOW).balancer.kind == "none"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("nodes.node-a.instance_id", "node-a", "not the name of an ECS instance"),
        ("nodes.node-b.instance_id", "i-bp1aaaaaaaaaaaaaaaaa", "is node-a as well"),
        ("balancer.instance_id", "nlb-1", "nlb-1 is no aliyun-clb"),
        ("balancer.instance_id", "10.20.0.10", "not the name of a CLB or NLB"),
        ("balancer.server_group", "sgp-1", "is none of aliyun-clb"),
        ("aliyun.region", "cn shanghai", "not a region"),
        ("aliyun.access_key_id", None, "and aliyun.access_key_secret is there"),
        ("aliyun.access_key_secret", None, "and aliyun.access_key_id is there"),
        ("aliyun.ecs_endpoint", "http://ecs-vpc.cn-shanghai.aliyuncs.com", "without TLS"),
        ("aliyun.balancer_endpoint", "slb.aliyuncs.com/path", "not the host of an API"),
        ("failover.fence_command", ["/bin/stop", "{node}"], "is never run"),
    ],
)
def test_a_wrong_value_is_named_and_corrected(site: SiteOnDisk, path: str, value: Any, said: str) -> None:
    place = site.data
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    place[last] = value
    found = problems(site)
    assert said in found[path]
    assert len(found) == 1, found


def test_a_listener_of_an_nlb_needs_a_server_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliyun_rules, "installed", lambda sdk: True)
    site = cloud_site(tmp_path, "aliyun-nlb")
    site.data["balancer"] |= {"create_listener": True, "server_group": None}
    assert "a listener of an NLB needs one" in problems(site)["balancer.server_group"]


def test_a_node_that_the_cloud_is_not_asked_about_needs_no_instance(site: SiteOnDisk) -> None:
    site.data["failover"] = {"fence_command": ["/bin/stop", "{node}"]}
    site.data["nodes"]["node-c"] = {
        **site.data["nodes"]["node-b"],
        "address": "10.20.0.13",
        "runs_harbor": False,
    }
    del site.data["nodes"]["node-c"]["instance_id"]
    assert site.data["nodes"]["node-b"]["instance_id"] == B
    assert read_site_file(site.write(), environ={}, now=NOW)
