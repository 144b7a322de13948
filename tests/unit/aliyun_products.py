"""What ECS, CLB and NLB do with a call, as their documentation says; as much of it as the site's software uses."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.unit.aliyun_endpoint import ApiError, Endpoint

REGION = "cn-shanghai"
A, B = "i-bp1aaaaaaaaaaaaaaaaa", "i-bp1bbbbbbbbbbbbbbbbb"
ADDRESSES = {A: "10.20.0.11", B: "10.20.0.12"}
CLB_ID, NLB_ID, GROUP = (
    "lb-bp1cccccccccccccccccc",
    "nlb-83ckzc8d4xlp8o****".replace("*", "x"),
    "sgp-qy042e1jabmprhxxxx",
)
LISTENER = "lsn-bp1bpn0kn908w4nbwxxxx@443"

Asked = Mapping[str, str]


def in_region(asked: Asked) -> None:
    """Refuse another region."""
    if asked.get("RegionId", REGION) != REGION:
        raise ApiError("InvalidRegionId.NotFound", 404)


class Ecs:
    """Two instances.

    Attributes:
        status: of each.
        looks_until_off: how often one is looked at between the order and `Stopped`; -1: it never gets there.
        refuses_while: in these states the order is not taken.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.addresses = dict(ADDRESSES)
        self.status = dict.fromkeys(self.addresses, "Running")
        self.looks_until_off = 1
        self.refuses_while = ("Starting", "Stopping", "Pending")
        self.after_looks: dict[str, list[str]] = {}
        endpoint.actions |= {"DescribeInstances": self.describe, "StopInstance": self.stop}

    def describe(self, asked: Asked) -> dict[str, Any]:
        in_region(asked)
        wanted = json.loads(asked["InstanceIds"])
        found = [self._one(name) for name in wanted if name in self.status]
        return {"TotalCount": len(found), "Instances": {"Instance": found}}

    def stop(self, asked: Asked) -> dict[str, Any]:
        name = asked["InstanceId"]
        if name not in self.status:
            raise ApiError("InvalidInstanceId.NotFound", 404)
        if asked.get("DryRun", "").lower() == "true":
            raise ApiError("DryRunOperation", 400)
        if self.status[name] in self.refuses_while:
            raise ApiError("IncorrectInstanceStatus", 403)
        if asked.get("ForceStop", "").lower() != "true":
            raise ApiError("InvalidParameter")
        self.status[name] = "Stopping"
        self.after_looks[name] = ["Stopping"] * self.looks_until_off + ["Stopped"]
        if self.looks_until_off < 0:
            self.after_looks[name] = []
        return {}

    def _one(self, name: str) -> dict[str, Any]:
        if self.after_looks.get(name):
            self.status[name] = self.after_looks[name].pop(0)
        private = {"PrivateIpAddress": [self.addresses[name]]}
        card = {
            "PrimaryIpAddress": self.addresses[name],
            "PrivateIpSets": {"PrivateIpSet": [{"PrivateIpAddress": self.addresses[name], "Primary": True}]},
        }
        return {
            "InstanceId": name,
            "Status": self.status[name],
            "VpcAttributes": {
                "VpcId": "vpc-1",
                "PrivateIpAddress": {"IpAddress": private["PrivateIpAddress"]},
            },
            "NetworkInterfaces": {"NetworkInterface": [card]},
            "PublicIpAddress": {"IpAddress": []},
            "EipAddress": {"IpAddress": ""},
            "OperationLocks": {"LockReason": []},
        }


class Clb:
    """One CLB with a TCP listener on 443.

    Attributes:
        group: name of the listener's vServer group; empty: the default group.
        servers: weight by instance; more about one in `entries`.
        health: the check's word by instance; who is not in it is not told.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.group = ""
        self.servers: dict[str, Any] = {A: 100, B: 100}
        self.ips = dict(ADDRESSES)
        self.health = {A: "normal", B: "normal"}
        self.listener: dict[str, Any] = {"Status": "running", "HealthCheck": "on", "HealthCheckType": "tcp"}
        endpoint.actions |= {
            "DescribeLoadBalancerTCPListenerAttribute": self.describe_listener,
            "DescribeLoadBalancerAttribute": self.describe,
            "DescribeVServerGroupAttribute": self.describe_group,
            "DescribeHealthStatus": self.describe_health,
            "SetBackendServers": self.weigh,
            "SetVServerGroupAttribute": self.weigh,
            "AddBackendServers": self.add,
            "AddVServerGroupBackendServers": self.add,
            "CreateLoadBalancerTCPListener": self.create_listener,
            "StartLoadBalancerListener": self.start_listener,
        }

    def describe_listener(self, asked: Asked) -> dict[str, Any]:
        self._here(asked)
        if not self.listener:
            raise ApiError("ListenerNotFound", 400)
        return {**self.listener, "ListenerPort": 443, "VServerGroupId": self.group}

    def describe(self, asked: Asked) -> dict[str, Any]:
        self._here(asked)
        ports = [{"ListenerPort": 443, "ListenerProtocol": "tcp"}] if self.listener else []
        listed = [] if self.group else self._listed()
        return {
            "LoadBalancerId": CLB_ID,
            "BackendServers": {"BackendServer": listed},
            "ListenerPortsAndProtocol": {"ListenerPortAndProtocol": ports},
        }

    def describe_group(self, asked: Asked) -> dict[str, Any]:
        in_region(asked)
        if not self.group or asked["VServerGroupId"] != self.group:
            raise ApiError("InvalidVServerGroupId.NotFound", 404)
        return {"BackendServers": {"BackendServer": [item | {"Port": 443} for item in self._listed()]}}

    def describe_health(self, asked: Asked) -> dict[str, Any]:
        self._here(asked)
        told = [
            {"ServerId": name, "ServerIp": self.ips.get(name, ""), "Port": 443, "ServerHealthStatus": word}
            for name, word in self.health.items()
        ]
        return {"BackendServers": {"BackendServer": told}}

    def weigh(self, asked: Asked) -> dict[str, Any]:
        self._right_group(asked)
        for item in json.loads(asked["BackendServers"]):
            if item["ServerId"] not in self.servers:
                raise ApiError("InvalidBackendServers.NotExist")
            self.servers[item["ServerId"]] = int(item["Weight"])
        return {}

    def add(self, asked: Asked) -> dict[str, Any]:
        self._right_group(asked)
        for item in json.loads(asked["BackendServers"]):
            self.servers.setdefault(item["ServerId"], int(item["Weight"]))
        return {}

    def create_listener(self, asked: Asked) -> dict[str, Any]:
        self._here(asked)
        if self.listener:
            raise ApiError("ListenerAlreadyExists")
        self.listener = {
            "Status": "stopped",
            "HealthCheck": asked["HealthCheckSwitch"],
            "HealthCheckType": "tcp",
        }
        return {}

    def start_listener(self, asked: Asked) -> dict[str, Any]:
        self._here(asked)
        self.listener["Status"] = "running"
        return {}

    def _listed(self) -> list[dict[str, Any]]:
        return [
            {"ServerId": name, "ServerIp": self.ips.get(name, ""), "Weight": weight, "Type": "ecs"}
            for name, weight in self.servers.items()
        ]

    def _right_group(self, asked: Asked) -> None:
        if self.group and asked.get("VServerGroupId") != self.group:
            raise ApiError("InvalidVServerGroupId.NotFound", 404)
        if not self.group:
            self._here(asked)

    def _here(self, asked: Asked) -> None:
        in_region(asked)
        if asked["LoadBalancerId"] != CLB_ID:
            raise ApiError("InvalidLoadBalancerId.NotFound", 404)


class Nlb:
    """One NLB with a TCP listener on 443 and its server group; each change is a job.

    Attributes:
        servers: weight by instance.
        ill: the word of the health check for those that are not well.
        job_looks: how often a job is asked for until it has succeeded.
        job_ends: as what it ends.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.servers: dict[str, Any] = {A: 100, B: 100}
        self.ill: dict[str, str] = {}
        self.checks, self.tells = True, True
        self.listener: dict[str, Any] | None = self._new_listener()
        self.job_looks, self.job_ends = 2, "Succeeded"
        self._jobs: dict[str, list[Any]] = {}
        endpoint.actions |= {
            "ListListeners": self.list_listeners,
            "ListServerGroupServers": self.list_servers,
            "ListServerGroups": self.list_groups,
            "GetListenerHealthStatus": self.health,
            "UpdateServerGroupServersAttribute": self.change,
            "AddServersToServerGroup": self.change,
            "GetJobStatus": self.job,
            "CreateListener": self.create_listener,
            "StartListener": self.start_listener,
        }

    def list_listeners(self, asked: Asked) -> dict[str, Any]:
        in_region(asked)
        return {
            "Listeners": [self.listener] if self.listener and asked["LoadBalancerIds.1"] == NLB_ID else []
        }

    def list_servers(self, asked: Asked) -> dict[str, Any]:
        in_region(asked)
        if asked["ServerGroupId"] != GROUP:
            raise ApiError("ResourceNotFound.serverGroup", 404)
        busy = {name for job in self._jobs.values() if job[0] > 0 for name in job[1]}
        listed = [
            {
                "ServerId": name,
                "ServerIp": ADDRESSES.get(name, ""),
                "ServerType": "Ecs",
                "Port": 443,
                "Weight": weight,
                "Status": "Configuring" if name in busy else "Available",
            }
            for name, weight in self.servers.items()
        ]
        return {"Servers": listed, "TotalCount": len(listed)}

    def list_groups(self, asked: Asked) -> dict[str, Any]:
        check = {"HealthCheckEnabled": self.checks, "HealthCheckType": "TCP"}
        return {"ServerGroups": [{"ServerGroupId": asked["ServerGroupIds.1"], "HealthCheck": check}]}

    def health(self, asked: Asked) -> dict[str, Any]:
        assert asked["ListenerId"] == LISTENER
        words = {name: "Unused" for name, weight in self.servers.items() if weight == 0} | self.ill
        bad = [{"ServerId": name, "Port": 443, "Status": word} for name, word in words.items()]
        info = {"ServerGroupId": GROUP, "HeathCheckEnabled": self.checks, "NonNormalServers": bad}
        infos = [info] if self.tells else []
        return {"ListenerHealthStatus": [{"ListenerId": LISTENER, "ServerGroupInfos": infos}]}

    def change(self, asked: Asked) -> dict[str, Any]:
        assert asked["ServerGroupId"] == GROUP
        numbers = {found.group(1) for key in asked if (found := re.match(r"Servers\.(\d+)\.", key))}
        wanted = {asked[f"Servers.{n}.ServerId"]: int(asked[f"Servers.{n}.Weight"]) for n in sorted(numbers)}
        return self._job(wanted)

    def job(self, asked: Asked) -> dict[str, Any]:
        job = self._jobs[asked["JobId"]]
        if job[0] > 0:
            job[0] -= 1
            return {"Status": "Processing"}
        if self.job_ends == "Succeeded":
            self.servers |= job[1]
        return {"Status": self.job_ends}

    def create_listener(self, asked: Asked) -> dict[str, Any]:
        if self.listener:
            raise ApiError("ResourceAlreadyExist.Listener")
        assert asked["ServerGroupId"] == GROUP
        self.listener = self._new_listener()
        return {"ListenerId": LISTENER, **self._job({})}

    def start_listener(self, asked: Asked) -> dict[str, Any]:
        assert self.listener is not None
        self.listener["ListenerStatus"] = "Running"
        return self._job({})

    def _job(self, wanted: dict[str, int]) -> dict[str, Any]:
        name = f"job-{len(self._jobs)}"
        self._jobs[name] = [self.job_looks, wanted]
        return {"JobId": name}

    @staticmethod
    def _new_listener() -> dict[str, Any]:
        return {
            "ListenerId": LISTENER,
            "LoadBalancerId": NLB_ID,
            "ListenerPort": 443,
            "ListenerProtocol": "TCP",
            "ListenerStatus": "Running",
            "ServerGroupId": GROUP,
        }
