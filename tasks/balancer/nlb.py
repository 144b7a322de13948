"""Alibaba Cloud's NLB: a TCP listener and its server group; what changes it is a job that is waited for."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tasks.aliyun.answers import number, records, word
from tasks.aliyun.client import NLB, Cloud
from tasks.balancer.cloud import CALL_S, FULL_WEIGHT, CloudBalancer, Listener
from tasks.balancer.group import Group, Server
from tasks.balancer.states import BalancerError

_JOB_S = 1.0
_ANSWER_S = 5.0
# The page's size, and how many of a group are looked at: a site has two.
_PAGE = 100
# What GetListenerHealthStatus says of a server that is not well; who is not in its list is.
_ALIVE = {"Unhealthy": False}


class Nlb(CloudBalancer):
    """An NLB: each change of its server group is a job, which is waited for."""

    product = NLB

    def _ensure_listener(self, cloud: Cloud, deadline: float) -> bool:
        balancer, found = self._site.balancer, self._find(cloud, deadline)
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

    def _listener(self, cloud: Cloud, deadline: float) -> Listener:
        balancer = self._site.balancer
        found = self._find(cloud, deadline)
        if found is None:
            raise BalancerError(
                f"{balancer.instance_id} has no TCP listener on {balancer.port}.",
                where="load balancer",
                remedy="Make it, or set balancer.create_listener and run bootstrap.",
            )
        return found

    def _find(self, cloud: Cloud, deadline: float) -> Listener | None:
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

    def _servers(self, cloud: Cloud, listener: Listener, deadline: float) -> list[Server]:
        group = word(listener, "ServerGroupId")
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

    def _group(self, cloud: Cloud, listener: Listener, deadline: float) -> Group:
        group, listening = word(listener, "ServerGroupId"), word(listener, "ListenerId")
        # At once: three answers, one after the other, may be too late for a failover's look.
        with ThreadPoolExecutor(3) as pool:
            servers = pool.submit(self._servers, cloud, listener, deadline)
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

    def _weigh(
        self, cloud: Cloud, listener: Listener, servers: Sequence[Server], weight: int, deadline: float
    ) -> None:
        entries = [_entry(one, weight) for one in servers]
        self._change(cloud, "UpdateServerGroupServersAttribute", listener, entries, deadline)

    def _enter(self, cloud: Cloud, listener: Listener, node: str, deadline: float) -> None:
        name, port = str(self._site.node(node).instance_id), self._site.harbor.https_port
        entries = [_entry(Server(name, "", port, None, "Ecs"), FULL_WEIGHT)]
        self._change(cloud, "AddServersToServerGroup", listener, entries, deadline)

    def _change(
        self, cloud: Cloud, action: str, listener: Listener, servers: list[dict[str, Any]], deadline: float
    ) -> None:
        # It names the weight that is wanted, so it may be said twice.
        group = word(listener, "ServerGroupId")
        body = cloud.call(action, deadline, region_id=cloud.region, server_group_id=group, servers=servers)
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


def _entry(server: Server, weight: int) -> dict[str, Any]:
    entry = {
        "server_id": server.server,
        "server_type": server.kind,
        "port": server.port,
        "weight": weight,
    }
    return entry | ({"server_ip": server.ip} if server.kind != "Ecs" and server.ip else {})


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
