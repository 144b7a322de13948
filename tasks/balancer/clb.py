"""Alibaba Cloud's CLB: a TCP listener, and the server group behind it; a drained node has weight 0."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.aliyun.answers import number, records, word
from tasks.aliyun.client import CLB, Cloud
from tasks.balancer.cloud import FULL_WEIGHT, CloudBalancer, Listener
from tasks.balancer.group import Group, Server
from tasks.balancer.states import BalancerError

_ALIVE = {"normal": True, "abnormal": False}


class Clb(CloudBalancer):
    """A CLB: its listener's server group is its default group or a vServer group."""

    product = CLB

    def _ensure_listener(self, cloud: Cloud, deadline: float) -> bool:
        if not self._listens(cloud, deadline):
            self._create(cloud, deadline)
        elif word(self._listener(cloud, deadline), "Status") == "running":
            return False
        cloud.call(
            "StartLoadBalancerListener",
            deadline,
            **self._place(cloud),
            **self._port(),
            listener_protocol="tcp",
        )
        return True

    def _listens(self, cloud: Cloud, deadline: float) -> bool:
        body = cloud.call("DescribeLoadBalancerAttribute", deadline, **self._place(cloud))
        return any(
            number(item, "ListenerPort") == self._site.balancer.port
            and word(item, "ListenerProtocol") == "tcp"
            for item in records(body, "ListenerPortsAndProtocol", "ListenerPortAndProtocol")
        )

    def _create(self, cloud: Cloud, deadline: float) -> None:
        balancer = self._site.balancer
        cloud.call(
            "CreateLoadBalancerTCPListener",
            deadline,
            # Not repeated without an answer: the next run looks first whether it is there.
            again=False,
            **self._place(cloud),
            **self._port(),
            backend_server_port=self._site.harbor.https_port,
            vserver_group_id=balancer.server_group,
            bandwidth=-1,
            scheduler="wrr",
            health_check_switch="on",
            health_check_type="tcp",
            health_check_interval=2,
            health_check_connect_timeout=3,
            healthy_threshold=2,
            unhealthy_threshold=2,
            # The registry is silent for minutes while it writes a layer of some GB.
            established_timeout=900,
            # Else the sessions of a machine that is gone stay for as long.
            connection_drain="on",
            connection_drain_timeout=10,
        )

    def _listener(self, cloud: Cloud, deadline: float) -> Listener:
        listener = cloud.call(
            "DescribeLoadBalancerTCPListenerAttribute", deadline, **self._place(cloud), **self._port()
        )
        if word(listener, "MasterSlaveServerGroupId"):
            raise BalancerError(
                f"The listener of {self._site.balancer.instance_id} has a primary/secondary server group: no weights.",
                where="load balancer",
                remedy="Give it the default server group, or a vServer group.",
            )
        return listener

    def _group(self, cloud: Cloud, listener: Listener, deadline: float) -> Group:
        servers = self._servers(cloud, listener, deadline)
        told = cloud.call(
            "DescribeHealthStatus", deadline, **self._place(cloud), **self._port(), listener_protocol="tcp"
        )
        health = records(told, "BackendServers", "BackendServer")
        return Group(
            servers=tuple(_checked(one, health) for one in servers),
            listens=word(listener, "Status") == "running",
            checks=word(listener, "HealthCheck") != "off",
            only_connects=word(listener, "HealthCheckType") != "http",
        )

    def _servers(self, cloud: Cloud, listener: Listener, deadline: float) -> list[Server]:
        group = word(listener, "VServerGroupId")
        if group:
            body = cloud.call(
                "DescribeVServerGroupAttribute", deadline, region_id=cloud.region, vserver_group_id=group
            )
        else:
            body = cloud.call("DescribeLoadBalancerAttribute", deadline, **self._place(cloud))
        return [
            Server(
                word(item, "ServerId"),
                word(item, "ServerIp"),
                number(item, "Port") or 0,
                number(item, "Weight"),
                word(item, "Type") or "ecs",
            )
            for item in records(body, "BackendServers", "BackendServer")
        ]

    def _weigh(
        self,
        cloud: Cloud,
        listener: Listener,
        servers: Sequence[Server],
        weight: int,
        deadline: float,
    ) -> None:
        group = word(listener, "VServerGroupId")
        entries = json.dumps([_entry(one, weight, with_port=bool(group)) for one in servers])
        if group:
            cloud.call(
                "SetVServerGroupAttribute",
                deadline,
                region_id=cloud.region,
                vserver_group_id=group,
                backend_servers=entries,
            )
        else:
            cloud.call("SetBackendServers", deadline, **self._place(cloud), backend_servers=entries)

    def _enter(self, cloud: Cloud, listener: Listener, node: str, deadline: float) -> None:
        host, group = self._site.node(node), word(listener, "VServerGroupId")
        new = Server(str(host.instance_id), host.address, self._site.harbor.https_port, FULL_WEIGHT, "ecs")
        entries = json.dumps([_entry(new, FULL_WEIGHT, with_port=bool(group))])
        if group:
            cloud.call(
                "AddVServerGroupBackendServers",
                deadline,
                region_id=cloud.region,
                vserver_group_id=group,
                backend_servers=entries,
            )
        else:
            cloud.call("AddBackendServers", deadline, **self._place(cloud), backend_servers=entries)

    def _place(self, cloud: Cloud) -> dict[str, Any]:
        return {"region_id": cloud.region, "load_balancer_id": self._site.balancer.instance_id}

    def _port(self) -> dict[str, Any]:
        return {"listener_port": self._site.balancer.port}


def _checked(server: Server, told: Sequence[Mapping[str, Any]]) -> Server:
    found = {word(item, "ServerHealthStatus") for item in told if _about(item, server)}
    # Two words for one server are none.
    said = found.pop() if len(found) == 1 else "health not told"
    return replace(server, healthy=_ALIVE.get(said), said=said)


def _about(item: Mapping[str, Any], server: Server) -> bool:
    ip, port = word(item, "ServerIp"), number(item, "Port")
    return (
        word(item, "ServerId") == server.server
        and (not ip or not server.ip or ip == server.ip)
        and (not port or not server.port or port == server.port)
    )


def _entry(server: Server, weight: int, *, with_port: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"ServerId": server.server, "Weight": str(weight), "Type": server.kind}
    if server.kind != "ecs" and server.ip:
        entry["ServerIp"] = server.ip
    if with_port:
        entry["Port"] = str(server.port)
    return entry
