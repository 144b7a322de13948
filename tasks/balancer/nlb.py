"""Alibaba Cloud's NLB: a TCP listener and its server group; what changes it is a job that is waited for."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from blocks import HarborSite
from tasks.aliyun.answers import number, records, word
from tasks.aliyun.client import NLB, Cloud
from tasks.balancer.cloud import CALL_S, FULL_WEIGHT, LOOK_S, asked, listed
from tasks.balancer.group import Group, Server, entries_of, state_of
from tasks.balancer.states import BalancerError, NodeState

_JOB_S = 1.0
_ANSWER_S = 5.0
# The page's size, and how many of a group are looked at: a site has two.
_PAGE = 100
# What GetListenerHealthStatus says of a server that is not well; who is not in its list is.
_ALIVE = {"Unhealthy": False}


class Nlb:
    """An NLB whose TCP listener on the site's port leads to the nodes.

    Args:
        site: whose load balancer, nodes and account.
    """

    pace_s = 1.0

    def __init__(self, site: HarborSite) -> None:
        self._site = site

    def status(self, nodes: Sequence[str] = (), limit_s: float | None = None) -> dict[str, NodeState]:
        """Ask for the listener, then at once for its servers, its group and its health.

        Raises:
            BalancerError: it cannot be asked.
        """
        with asked():
            cloud, deadline = Cloud(self._site, NLB), time.monotonic() + (limit_s or LOOK_S)
            listener = self._listener(cloud, deadline)
            group = self._group(cloud, listener, deadline)
        return {name: state_of(self._site, name, group) for name in listed(self._site, nodes)}

    def drain(self, node: str) -> None:
        """Give the node's entries the weight 0, and wait for the job. The open sessions are not ended by that."""
        with asked():
            cloud, deadline = Cloud(self._site, NLB), time.monotonic() + CALL_S
            group, servers = self._known(cloud, deadline)
            mine = [
                one for one in entries_of(self._site, node, servers) if one.weight != 0 or not one.settled
            ]
            self._change(cloud, "UpdateServerGroupServersAttribute", group, mine, 0, deadline)

    def admit(self, node: str) -> None:
        """Give the node's entries their weight back, or enter the node where it has none; wait for the job."""
        with asked():
            cloud, deadline = Cloud(self._site, NLB), time.monotonic() + CALL_S
            group, servers = self._known(cloud, deadline)
            mine = entries_of(self._site, node, servers)
            if mine:
                sleeping = [one for one in mine if not one.weight or not one.settled]
                self._change(
                    cloud, "UpdateServerGroupServersAttribute", group, sleeping, FULL_WEIGHT, deadline
                )
            else:
                host = self._site.node(node)
                new = Server(str(host.instance_id), "", self._site.harbor.https_port, FULL_WEIGHT, "Ecs")
                self._change(cloud, "AddServersToServerGroup", group, [new], FULL_WEIGHT, deadline)

    def ensure_listener(self) -> bool:
        """Make the TCP listener where there is none, and start it where it does not run; say whether that was needed.

        Raises:
            BalancerError: it could not be made.
        """
        balancer = self._site.balancer
        with asked():
            cloud, deadline = Cloud(self._site, NLB), time.monotonic() + CALL_S
            found = self._find(cloud, deadline)
            if found and word(found, "ListenerStatus") != "Stopped":
                return False
            if found:
                listener = word(found, "ListenerId")
                body = cloud.call("StartListener", deadline, region_id=cloud.region, listener_id=listener)
            else:
                body = cloud.call(
                    "CreateListener",
                    deadline,
                    # Not repeated without an answer: the next run looks first whether it is there.
                    again=False,
                    region_id=cloud.region,
                    load_balancer_id=balancer.instance_id,
                    listener_protocol="TCP",
                    listener_port=balancer.port,
                    server_group_id=balancer.server_group,
                    # The registry is silent for minutes while it writes a layer of some GB.
                    idle_timeout=900,
                )
            self._await_job(cloud, body, deadline)
            return True

    def _listener(self, cloud: Cloud, deadline: float) -> Mapping[str, Any]:
        balancer = self._site.balancer
        found = self._find(cloud, deadline)
        if found is None:
            raise BalancerError(
                f"{balancer.instance_id} has no TCP listener on {balancer.port}.",
                where="load balancer",
                remedy="Make it, or set balancer.create_listener and run bootstrap.",
            )
        return found

    def _find(self, cloud: Cloud, deadline: float) -> Mapping[str, Any] | None:
        balancer = self._site.balancer
        body = cloud.call(
            "ListListeners",
            deadline,
            region_id=cloud.region,
            load_balancer_ids=[balancer.instance_id],
            listener_protocol="TCP",
            max_results=_PAGE,
        )
        found = [
            item
            for item in records(body, "Listeners")
            if word(item, "LoadBalancerId") == balancer.instance_id
            and number(item, "ListenerPort") == balancer.port
        ]
        return found[0] if found else None

    def _known(self, cloud: Cloud, deadline: float) -> tuple[str, list[Server]]:
        group = word(self._listener(cloud, deadline), "ServerGroupId")
        return group, self._servers(cloud, group, deadline)

    def _servers(self, cloud: Cloud, group: str, deadline: float) -> list[Server]:
        body = cloud.call(
            "ListServerGroupServers",
            deadline,
            region_id=cloud.region,
            server_group_id=group,
            max_results=_PAGE,
        )
        if body.get("NextToken"):
            raise BalancerError(
                f"The server group {group} has more than {_PAGE} servers.",
                where="load balancer",
                remedy="Give the site's listener a group of its own.",
            )
        return [
            Server(
                word(item, "ServerId"),
                word(item, "ServerIp"),
                number(item, "Port") or 0,
                number(item, "Weight"),
                word(item, "ServerType"),
                settled=word(item, "Status") == "Available",
            )
            for item in records(body, "Servers")
        ]

    def _group(self, cloud: Cloud, listener: Mapping[str, Any], deadline: float) -> Group:
        group, listening = word(listener, "ServerGroupId"), word(listener, "ListenerId")
        # At once: three answers, one after the other, may be too late for a failover's look.
        with ThreadPoolExecutor(3) as pool:
            servers = pool.submit(self._servers, cloud, group, deadline)
            groups = pool.submit(self._described, cloud, group, deadline)
            health = pool.submit(self._health, cloud, listening, deadline)
        told = _health_of(health.result(), group)
        kinds = [
            word(item, "HealthCheck", "HealthCheckType") for item in records(groups.result(), "ServerGroups")
        ]
        return Group(
            servers=tuple(_checked(one, told) for one in servers.result()),
            listens=word(listener, "ListenerStatus") == "Running",
            checks=told is None or told.get("HeathCheckEnabled") is not False,
            only_connects=kinds != ["HTTP"],
        )

    def _described(self, cloud: Cloud, group: str, deadline: float) -> Mapping[str, Any]:
        return cloud.call("ListServerGroups", deadline, region_id=cloud.region, server_group_ids=[group])

    def _health(self, cloud: Cloud, listener: str, deadline: float) -> Mapping[str, Any]:
        return cloud.call("GetListenerHealthStatus", deadline, region_id=cloud.region, listener_id=listener)

    def _change(
        self, cloud: Cloud, action: str, group: str, servers: Sequence[Server], weight: int, deadline: float
    ) -> None:
        if not servers:
            return
        entries = [
            {"server_id": one.server, "server_type": one.kind, "port": one.port, "weight": weight}
            | ({"server_ip": one.ip} if one.kind != "Ecs" and one.ip else {})
            for one in servers
        ]
        # It names the weight that is wanted, so it may be said twice.
        body = cloud.call(action, deadline, region_id=cloud.region, server_group_id=group, servers=entries)
        self._await_job(cloud, body, deadline)

    def _await_job(self, cloud: Cloud, accepted: Mapping[str, Any], deadline: float) -> None:
        """Wait for what was accepted to be done; what it came to is read back by whoever asked for it.

        Raises:
            BalancerError: it failed, or was not done in time.
        """
        job = word(accepted, "JobId")
        while job:
            # Asked in full to the end: a question that is cut short would hide what has become of it.
            status = word(cloud.call("GetJobStatus", time.monotonic() + _ANSWER_S, job_id=job), "Status")
            if status == "Succeeded":
                return
            late = time.monotonic() + _JOB_S >= deadline
            if late or status not in ("Processing", "processing"):
                raise BalancerError(
                    f"A change of the server group was accepted and is {status or 'of no known state'}"
                    f"{f' after {CALL_S:.0f} s' if late else ''}.",
                    where="load balancer",
                    meaning="Whether it takes effect is not known.",
                    remedy="Look at the NLB in the console, and run the flow again.",
                )
            time.sleep(_JOB_S)


def _health_of(body: Mapping[str, Any], group: str) -> Mapping[str, Any] | None:
    """Find what is said of a group; None when nothing is, which is no sign that all of it is well."""
    for listener in records(body, "ListenerHealthStatus"):
        for info in records(listener, "ServerGroupInfos"):
            if word(info, "ServerGroupId") == group:
                return info
    return None


def _checked(server: Server, told: Mapping[str, Any] | None) -> Server:
    if told is None:
        return replace(server, said="health not told")
    words = [
        word(item, "Status")
        for item in records(told, "NonNormalServers")
        if word(item, "ServerId") == server.server and number(item, "Port") in (None, 0, server.port)
    ]
    if not words:
        return replace(server, healthy=True, said="Normal")
    return replace(server, healthy=_ALIVE.get(words[0]), said=words[0])
