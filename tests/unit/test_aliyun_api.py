"""One call of the cloud's API: signed as documented, repeated only where that does no harm, its errors in our words."""

import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.aliyun import client
from tasks.aliyun.client import CLB, ECS, Cloud, CloudUnusable
from tasks.aliyun.errors import CloudRefused, CloudSilent
from tasks.errors import HarborHaError
from tests.unit import aliyun_site
from tests.unit.aliyun_endpoint import FORBIDDEN, KEY_ID, SAID_BY_THE_CLOUD, SECRET, THROTTLED, Fault, sign
from tests.unit.aliyun_products import REGION, A
from tests.unit.aliyun_site import cloud_site, read, stand_in

pytest.importorskip("alibabacloud_ecs20140526", reason="the extra [aliyun] is not installed")

pytestmark = pytest.mark.servers

LOOK: dict[str, Any] = {"region_id": REGION, "instance_ids": f'["{A}"]'}


@pytest.fixture
def cloud() -> Iterator[aliyun_site.Cloud]:
    with stand_in() as made:
        yield made


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    aliyun_site.hurry(monkeypatch)


def ecs(cloud: aliyun_site.Cloud, directory: Path, **aliyun: Any) -> Cloud:
    return Cloud(read(cloud_site(directory, address=cloud.endpoint.address), **aliyun), ECS)


def within(seconds: float) -> float:
    return time.monotonic() + seconds


def test_the_signature_is_that_of_the_documentations_own_example() -> None:
    """The example of the V3 signature: RunInstances in cn-shanghai, with the key pair of the page."""
    headers = {
        "host": "ecs.cn-shanghai.aliyuncs.com",
        "x-acs-action": "RunInstances",
        "x-acs-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-acs-date": "2023-10-26T10:22:32Z",
        "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
        "x-acs-version": "2014-05-26",
    }
    target = "/?ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"
    made = sign("POST", target, headers, sorted(headers), b"", "YourAccessKeySecret")
    assert made == "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"


def test_a_call_is_signed_with_the_sites_key(cloud: aliyun_site.Cloud, tmp_path: Path) -> None:
    body = ecs(cloud, tmp_path).call("DescribeInstances", within(5), **LOOK)
    assert body["TotalCount"] == 1
    assert cloud.endpoint.calls == ["DescribeInstances"]


@pytest.mark.parametrize(
    ("aliyun", "said"),
    [
        ({"access_key_id": "LTAIanother"}, "the AccessKey does not exist"),
        ({"access_key_secret": "another"}, "its secret is another"),
    ],
)
def test_a_wrong_key_is_told_with_what_to_correct(
    cloud: aliyun_site.Cloud, tmp_path: Path, aliyun: dict[str, str], said: str
) -> None:
    site = cloud_site(tmp_path, address=cloud.endpoint.address)
    if "access_key_secret" in aliyun:
        aliyun = {"access_key_secret": site.secret("other", "another\n")}  # type: ignore[dict-item]
    with pytest.raises(CloudRefused, match=said) as caught:
        Cloud(read(site, **aliyun), ECS).call("DescribeInstances", within(5), **LOOK)
    assert "aliyun.access_key_id" in caught.value.remedy
    assert cloud.endpoint.calls == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (FORBIDDEN, "RAM does not allow ecs:DescribeInstances"),
        (Fault("NoPermission", 403), "RAM does not allow ecs:DescribeInstances"),
        (Fault("InvalidRegionId.NotFound", 404), "knows no region cn-shanghai"),
        (Fault("InvalidTimeStamp.Expired", 400), "clock of the orchestrator"),
        (Fault("InvalidInstanceId.NotFound", 404), "no such thing in cn-shanghai"),
        (Fault("IncorrectInstanceStatus", 403), "in a state that does not allow it"),
        (Fault("NeverSeenBefore", 400), "was answered with NeverSeenBefore"),
        (Fault("password is hunter2", 400), "was answered with another answer"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
def test_an_error_is_told_by_its_name_and_never_by_its_text(
    cloud: aliyun_site.Cloud, tmp_path: Path, fault: Fault, said: str
) -> None:
    cloud.endpoint.faults["DescribeInstances"] = [fault]
    with pytest.raises(CloudRefused, match=said) as caught:
        ecs(cloud, tmp_path).call("DescribeInstances", within(5), **LOOK)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (SECRET, SAID_BY_THE_CLOUD, "hunter2"):
        assert secret not in shown
    assert cloud.endpoint.calls == ["DescribeInstances"]


def test_throttled_calls_are_repeated_with_growing_pauses(
    cloud: aliyun_site.Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    cloud.endpoint.faults["DescribeInstances"] = [THROTTLED, Fault("ServiceUnavailable", 503), THROTTLED]
    assert ecs(cloud, tmp_path).call("DescribeInstances", within(60), **LOOK)["TotalCount"] == 1
    assert len(pauses) == 3
    assert pauses[2] > 2 * pauses[0]


def test_who_is_throttled_to_the_end_of_the_time_says_so(
    cloud: aliyun_site.Cloud, tmp_path: Path, hurried: None
) -> None:
    cloud.endpoint.faults["DescribeInstances"] = (THROTTLED,)
    began = time.monotonic()
    with pytest.raises(CloudRefused, match="too many calls of this account"):
        ecs(cloud, tmp_path).call("DescribeInstances", within(0.5), **LOOK)
    assert time.monotonic() - began < 1.5
    assert len(cloud.endpoint.calls) > 2


def test_an_answer_that_does_not_come_is_asked_for_again_only_where_that_does_no_harm(
    cloud: aliyun_site.Cloud, tmp_path: Path, hurried: None
) -> None:
    cloud.endpoint.faults["DescribeInstances"] = [Fault(silent_s=1.0)]
    assert ecs(cloud, tmp_path).call("DescribeInstances", within(5), **LOOK)["TotalCount"] == 1
    cloud.endpoint.faults["StopInstance"] = [Fault(silent_s=1.0)]
    with pytest.raises(CloudSilent, match="ecs:StopInstance got no answer") as caught:
        ecs(cloud, tmp_path).call("StopInstance", within(5), again=False, instance_id=A, force_stop=True)
    assert "Whether it was accepted is not known" in str(caught.value)
    assert cloud.endpoint.calls.count("StopInstance") == 1
    assert cloud.ecs.status[A] == "Stopping"


@pytest.mark.parametrize("body", [b"<html>503</html>", b'"text"', b"\xff\xfe"])
def test_what_is_no_answer_of_an_api_is_no_answer(
    cloud: aliyun_site.Cloud, tmp_path: Path, hurried: None, body: bytes
) -> None:
    cloud.endpoint.faults["DescribeInstances"] = (Fault(body=body),)
    with pytest.raises(HarborHaError):
        ecs(cloud, tmp_path).call("DescribeInstances", within(0.3), **LOOK)


def test_an_api_that_is_not_reached_says_so_in_time(tmp_path: Path, hurried: None) -> None:
    site = read(cloud_site(tmp_path, address="http://127.0.0.1:1"))
    began = time.monotonic()
    with pytest.raises(CloudSilent, match=r"no answer from 127\.0\.0\.1:1"):
        Cloud(site, CLB).call("DescribeLoadBalancerAttribute", within(0.5), load_balancer_id="lb-x")
    assert time.monotonic() - began < 2


def chain(
    monkeypatch: pytest.MonkeyPatch, home: Path, key: str | None = None, secret: str | None = None
) -> None:
    """Let the SDK's default chain find this and nothing else; it reads the environment when it is imported."""
    found = {
        "environment_access_key_id": key,
        "environment_access_key_secret": secret,
        "environment_security_token": None,
        "environment_ecs_metadata_disabled": "true",
        "environment_credentials_uri": None,
        "enable_oidc_credential": False,
    }
    for name, value in found.items():
        monkeypatch.setattr(f"alibabacloud_credentials.utils.auth_util.{name}", value)
    monkeypatch.setenv("HOME", str(home))


def test_without_a_key_the_sdks_own_chain_is_asked(
    cloud: aliyun_site.Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(monkeypatch, tmp_path, key=KEY_ID, secret=SECRET)
    site = cloud_site(tmp_path, address=cloud.endpoint.address)
    del site.data["aliyun"]["access_key_id"], site.data["aliyun"]["access_key_secret"]
    assert Cloud(read(site), ECS).call("DescribeInstances", within(5), **LOOK)["TotalCount"] == 1


def test_without_any_credentials_the_sentence_names_both_ways(
    cloud: aliyun_site.Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(monkeypatch, tmp_path)
    site = cloud_site(tmp_path, address=cloud.endpoint.address)
    del site.data["aliyun"]["access_key_id"], site.data["aliyun"]["access_key_secret"]
    with pytest.raises(CloudUnusable, match="no credentials") as caught:
        Cloud(read(site), ECS).call("DescribeInstances", within(5), **LOOK)
    assert "RAM role" in caught.value.remedy
