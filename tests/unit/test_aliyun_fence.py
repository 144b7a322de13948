"""A node's ECS instance is off when the cloud says `Stopped`, and only the node's own instance is stopped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from flows.rules.policy import policy_of
from tasks.errors import HarborHaError
from tasks.fencing import ecs
from tasks.fencing.ecs import NotTheNode, rehearse
from tasks.fencing.hook import fence_by_command
from tasks.fencing.rehearsal import fence_trouble
from tests.unit.aliyun_endpoint import FORBIDDEN, SAID_BY_THE_CLOUD, SECRET, THROTTLED, Fault
from tests.unit.aliyun_products import A, B
from tests.unit.aliyun_site import Cloud, cloud_site, hurry, read, stand_in

pytest.importorskip("alibabacloud_ecs20140526", reason="the extra [aliyun] is not installed")

pytestmark = pytest.mark.servers


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    hurry(monkeypatch)
    for name, seconds in (("_LIMIT_S", 1.5), ("_LOOK_S", 1.0), ("_POLL_S", 0.05), ("_TELL_AGAIN_S", 0.2)):
        monkeypatch.setattr(ecs, name, seconds)
    with stand_in() as made:
        yield made


@pytest.fixture
def site(cloud: Cloud, tmp_path: Path) -> HarborSite:
    return read(cloud_site(tmp_path, address=cloud.endpoint.address))


def stops(cloud: Cloud) -> int:
    return cloud.endpoint.calls.count("StopInstance")


def test_an_instance_is_stopped_by_force_and_waited_for(cloud: Cloud, site: HarborSite) -> None:
    outcome = fence_by_command(site, node="node-a")
    assert outcome.data == {"confirmed": True}
    assert f"{A} is Stopped" in outcome.detail
    told = cloud.endpoint.parameters["StopInstance"]
    assert [(one["InstanceId"], one["ForceStop"].lower(), one["StoppedMode"]) for one in told] == [
        (A, "true", "KeepCharging")
    ]
    assert cloud.ecs.status == {A: "Stopped", B: "Running"}


def test_one_that_is_stopped_already_is_told_nothing(cloud: Cloud, site: HarborSite) -> None:
    cloud.ecs.status[A] = "Stopped"
    assert fence_by_command(site, node="node-a").data["confirmed"] is True
    assert stops(cloud) == 0


def test_an_accepted_stop_is_no_proof(cloud: Cloud, site: HarborSite) -> None:
    cloud.ecs.looks_until_off = -1
    outcome = fence_by_command(site, node="node-a")
    assert outcome.data == {"confirmed": False}
    assert "was told to stop and is Stopping" in outcome.detail


def test_a_stop_whose_answer_did_not_come_is_looked_for_and_not_repeated(
    cloud: Cloud, site: HarborSite
) -> None:
    cloud.endpoint.faults["StopInstance"] = [Fault(silent_s=1.0)]
    assert fence_by_command(site, node="node-a").data["confirmed"] is True
    assert stops(cloud) == 1


def test_an_error_after_which_the_stop_was_done_all_the_same_does_not_hide_it(
    cloud: Cloud, site: HarborSite
) -> None:
    cloud.endpoint.faults["StopInstance"] = [Fault("InternalError", 500, does=True)]
    assert fence_by_command(site, node="node-a").data["confirmed"] is True


def test_an_instance_that_is_just_starting_is_told_again_until_it_takes_the_order(
    cloud: Cloud, site: HarborSite
) -> None:
    cloud.ecs.status[A] = "Starting"
    cloud.ecs.after_looks[A] = ["Starting"] * 4 + ["Running"]
    assert fence_by_command(site, node="node-a").data["confirmed"] is True
    assert stops(cloud) >= 2


def test_throttling_delays_a_stop_and_does_not_end_it(cloud: Cloud, site: HarborSite) -> None:
    cloud.endpoint.faults |= {"StopInstance": [THROTTLED, THROTTLED], "DescribeInstances": [THROTTLED]}
    assert fence_by_command(site, node="node-a").data["confirmed"] is True


@pytest.mark.parametrize(
    ("action", "fault", "said"),
    [
        ("StopInstance", FORBIDDEN, "RAM does not allow ecs:StopInstance"),
        ("DescribeInstances", FORBIDDEN, "RAM does not allow ecs:DescribeInstances"),
        ("StopInstance", Fault("InstanceLockedForSecurity", 403), "InstanceLockedForSecurity"),
        ("DescribeInstances", Fault("InvalidRegionId.NotFound", 404), "knows no region"),
        ("DescribeInstances", Fault(silent_s=0.5), "got no answer"),
        ("DescribeInstances", THROTTLED, "too many calls"),
        ("DescribeInstances", Fault(body=b"{}"), "There is no instance"),
        ("DescribeInstances", Fault(body=b'{"Instances": {"Instance": [null, 3]}}'), "not confirmed"),
    ],
)
def test_whatever_fails_confirms_nothing_and_says_why(
    cloud: Cloud, site: HarborSite, action: str, fault: Fault, said: str
) -> None:
    cloud.endpoint.faults[action] = (fault,)
    outcome = fence_by_command(site, node="node-a")
    assert outcome.data == {"confirmed": False}
    assert said in outcome.detail
    assert SECRET not in outcome.detail
    assert SAID_BY_THE_CLOUD not in outcome.detail


def test_another_machines_instance_is_left_alone(cloud: Cloud, site: HarborSite) -> None:
    """Somebody mistook the instance: the standby would have been switched off, and the primary called dead."""
    cloud.ecs.addresses[A] = "10.20.0.99"
    outcome = fence_by_command(site, node="node-a")
    assert outcome.data == {"confirmed": False}
    assert f"{A} has the addresses 10.20.0.99; the node's is 10.20.0.11" in outcome.detail
    assert "left alone" in outcome.detail
    assert stops(cloud) == 0


def test_one_that_is_off_and_another_machines_is_no_proof_either(cloud: Cloud, site: HarborSite) -> None:
    cloud.ecs.addresses[A], cloud.ecs.status[A] = "10.20.0.99", "Stopped"
    assert fence_by_command(site, node="node-a").data == {"confirmed": False}


def test_an_instance_that_does_not_exist_is_not_off(cloud: Cloud, site: HarborSite) -> None:
    del cloud.ecs.status[A]
    outcome = fence_by_command(site, node="node-a")
    assert outcome.data == {"confirmed": False}
    assert "There is no instance" in outcome.detail
    assert stops(cloud) == 0


def test_a_name_that_nobody_knows_is_no_proof_of_the_machine(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cloud_site(tmp_path, address=cloud.endpoint.address)
    file.data["nodes"]["node-a"]["address"] = "node-a.example.com"
    monkeypatch.setattr(ecs, "resolve", lambda address: frozenset())
    outcome = fence_by_command(read(file), node="node-a")
    assert outcome.data == {"confirmed": False}
    assert "which is not found" in outcome.detail
    assert stops(cloud) == 0


def test_a_rehearsal_does_everything_but_the_stop(cloud: Cloud, site: HarborSite) -> None:
    outcome = rehearse(site, "node-a")
    assert not outcome.changed
    assert "could be stopped" in outcome.detail
    assert cloud.endpoint.parameters["StopInstance"][0]["DryRun"].lower() == "true"
    assert cloud.ecs.status[A] == "Running"


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda cloud: cloud.endpoint.faults.update(StopInstance=(FORBIDDEN,)), "ecs:StopInstance"),
        (lambda cloud: cloud.ecs.addresses.update({A: "10.20.0.99"}), "another machine"),
        (lambda cloud: cloud.ecs.status.pop(A), "There is no instance"),
    ],
)
def test_a_rehearsal_tells_what_a_fence_would_stumble_over(
    cloud: Cloud, site: HarborSite, prepare: Any, said: str
) -> None:
    prepare(cloud)
    with pytest.raises(HarborHaError, match=said):
        rehearse(site, "node-a")


def test_a_rehearsal_that_was_taken_for_the_order_is_no_success(cloud: Cloud, site: HarborSite) -> None:
    cloud.endpoint.faults["StopInstance"] = [Fault(body=b"{}")]
    with pytest.raises(HarborHaError, match="no notice of DryRun"):
        rehearse(site, "node-a")


def test_what_a_fence_would_stumble_over_is_told_of_each_node_in_time(cloud: Cloud, site: HarborSite) -> None:
    assert fence_trouble(site) == []
    cloud.ecs.addresses[B] = "10.20.0.99"
    (told,) = fence_trouble(site)
    assert told.startswith("node-b could not be switched off: ")
    assert "another machine" in told
    assert cloud.ecs.status == {A: "Running", B: "Running"}
    cloud.endpoint.faults["DescribeInstances"] = (Fault(silent_s=0.5),)
    late = fence_trouble(site, 0.1)
    assert len(late) == 2
    assert "no answer within the time" in late[0]


def test_a_site_whose_instances_can_be_stopped_has_a_fence_of_its_own(site: HarborSite) -> None:
    assert policy_of(site).has_fence_command
    assert not policy_of(site).rests_on_witnesses
    assert issubclass(NotTheNode, HarborHaError)
