"""A node's ECS instance: stopped by force, and believed to be off only when the cloud says `Stopped`."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blocks import HarborSite
from tasks.aliyun.answers import records, word, words
from tasks.aliyun.client import ECS, Cloud
from tasks.aliyun.errors import WHERE, CloudRefused, CloudSilent
from tasks.errors import HarborHaError
from tasks.observation.witnesses import resolve
from tasks.outcome import Outcome, changed, unchanged

# A forced stop takes ten to thirty seconds. The lock is renewed meanwhile.
_LIMIT_S = 90.0
# Until something was ordered, an API that is not reached is not waited for as long: the ladder has further rungs.
_LOOK_S = 20.0
# The last look is a whole one: what has become of the order is what counts.
_ANSWER_S = 5.0
_POLL_S = 2.0
# One that is starting or stopping does not take the order; it is given again.
_TELL_AGAIN_S = 10.0
_STOPPED = "Stopped"
# The whole answer of a rehearsal that would have been done.
_WOULD = ("DryRunOperation", "DRYRUN.SUCCESS")


class NotTheNode(HarborHaError):
    """The instance of the site file is not the machine of the node, or is not known to be."""


@dataclass(frozen=True)
class Instance:
    """One instance, as DescribeInstances tells it.

    Attributes:
        status: Pending, Running, Starting, Stopping or Stopped.
        addresses: all its addresses.
    """

    status: str
    addresses: frozenset[str]


def fence_by_cloud(site: HarborSite, node: str) -> Outcome:
    """Stop a node's instance by force, and wait until it is `Stopped`.

    The order names a state and not a change, so it may be given twice.

    Returns:
        data: `confirmed`; False when it failed, with the reason in the detail. Never raises for that: the ladder
        has further rungs.
    """
    try:
        said = _stop(site, node)
    except HarborHaError as error:
        return changed(f"not confirmed: {error}", confirmed=False)
    return changed(f"{node} is off: {said}", confirmed=True)


def rehearse(site: HarborSite, node: str) -> Outcome:
    """Try everything of a fence but the stop: credentials, the instance, its address, the right to stop it.

    Raises:
        HarborHaError: what would go wrong.
    """
    cloud, name = Cloud(site, ECS), site.node(node).instance_id
    deadline = time.monotonic() + _LOOK_S
    status = _look(cloud, site, node, deadline).status
    if status == _STOPPED:
        return unchanged(f"{node}: {name} is {status}; whether it may be stopped is told while it runs")
    try:
        cloud.call("StopInstance", deadline, instance_id=name, force_stop=True, dry_run=True)
    except CloudRefused as refused:
        if refused.code in _WOULD:
            return unchanged(f"{node}: {name} is {status} and could be stopped")
        raise
    raise CloudSilent(
        "ecs:StopInstance took no notice of DryRun.", where=WHERE, remedy="Look at the instance."
    )


def instance_of(body: Mapping[str, Any], name: str) -> Instance | None:
    """Find an instance in the answer of DescribeInstances; None when it is not there."""
    found = [item for item in records(body, "Instances", "Instance") if word(item, "InstanceId") == name]
    if len(found) != 1:
        return None
    item = found[0]
    return Instance(word(item, "Status") or "unknown", frozenset(_addresses(item)) - {""})


def _stop(site: HarborSite, node: str) -> str:
    cloud, name = Cloud(site, ECS), site.node(node).instance_id
    began, told = time.monotonic(), 0.0
    deadline = began + _LIMIT_S
    while True:
        # Before each order, not once: of whom nobody knows whose machine it is, nothing is stopped.
        limit = max(deadline, time.monotonic() + _ANSWER_S) if told else began + _LOOK_S
        status = _look(cloud, site, node, limit).status
        if status == _STOPPED:
            return f"{name} is {status}, after {time.monotonic() - began:.0f} s"
        if not told or time.monotonic() - told > _TELL_AGAIN_S:
            _tell(cloud, str(name), deadline)
            told = time.monotonic()
        if time.monotonic() + _POLL_S >= deadline:
            raise CloudSilent(
                f"{name} was told to stop and is {status} after {time.monotonic() - began:.0f} s.",
                where=WHERE,
                meaning="It may be off a moment later.",
                remedy="Look at it in the console.",
            )
        time.sleep(_POLL_S)


def _tell(cloud: Cloud, name: str, deadline: float) -> None:
    """Give the order; a state that does not take it, and an answer that does not come, are for the next look."""
    try:
        # KeepCharging: else the instance may find no capacity when it is wanted back.
        cloud.call(
            "StopInstance",
            deadline,
            again=False,
            instance_id=name,
            force_stop=True,
            stopped_mode="KeepCharging",
        )
    except CloudSilent:
        return
    except CloudRefused as refused:
        if not refused.code.startswith("IncorrectInstanceStatus"):
            raise


def _look(cloud: Cloud, site: HarborSite, node: str, deadline: float) -> Instance:
    """Ask for a node's instance, and make sure that it is the node's machine.

    Raises:
        NotTheNode: there is none of that name, or it has other addresses than the node.
    """
    host = site.node(node)
    body = cloud.call(
        "DescribeInstances", deadline, region_id=cloud.region, instance_ids=json.dumps([host.instance_id])
    )
    found = instance_of(body, str(host.instance_id))
    if found is None:
        raise NotTheNode(
            f"There is no instance {host.instance_id} in {cloud.region} that this account may see.",
            where=node,
            remedy=f"Compare nodes.{node}.instance_id and aliyun.region with the console; RAM must allow "
            "ecs:DescribeInstances.",
        )
    addresses = resolve(host.address)
    if not addresses or not addresses <= found.addresses:
        raise NotTheNode(
            f"{host.instance_id} has the addresses {', '.join(sorted(found.addresses)) or 'none'}; the node's is "
            f"{host.address}{_resolved(host.address, addresses)}.",
            where=node,
            meaning="It is another machine, and is left alone.",
            remedy=f"Correct nodes.{node}.instance_id in the site file and apply it.",
        )
    return found


def _resolved(address: str, addresses: frozenset[str]) -> str:
    if addresses == {address}:
        return ""
    return f" ({', '.join(sorted(addresses))})" if addresses else ", which is not found"


def _addresses(item: Mapping[str, Any]) -> Iterator[str]:
    yield from words(item, "VpcAttributes", "PrivateIpAddress", "IpAddress")
    yield from words(item, "InnerIpAddress", "IpAddress")
    yield from words(item, "PublicIpAddress", "IpAddress")
    yield word(item, "EipAddress", "IpAddress")
    for card in records(item, "NetworkInterfaces", "NetworkInterface"):
        yield word(card, "PrimaryIpAddress")
        yield from (word(one, "PrivateIpAddress") for one in records(card, "PrivateIpSets", "PrivateIpSet"))
