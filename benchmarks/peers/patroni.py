"""Patroni with one member of etcd: its settings file, what it says of its nodes, and its planned switchover."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from benchmarks.peers.machines import WATCHER, Machines, wait_for
from lab.shell import LabError
from lab.topology import PAIR

DATA = "/var/lib/postgresql/peer"
SETTINGS = "/etc/patroni/config.yml"
_API_PORT = 8008
_BOOTSTRAP_S = 90.0
_SWITCH_S = 60.0


@dataclass(frozen=True)
class Timing:
    """Patroni's three times, in seconds, under its own names."""

    ttl: int
    loop_wait: int
    retry_timeout: int

    def __str__(self) -> str:
        return f"ttl {self.ttl}, loop_wait {self.loop_wait}, retry_timeout {self.retry_timeout}"


DEFAULT = Timing(30, 10, 10)
# The least that its documentation gives for each of them.
FASTEST = Timing(20, 1, 3)


class Patroni:
    """A pair under Patroni.

    Args:
        nodes: bare machines.
        timing: its settings.
    """

    data = DATA

    def __init__(self, nodes: Machines, timing: Timing) -> None:
        self.nodes = nodes
        self.timing = timing

    @property
    def period_s(self) -> float:
        """Seconds between two looks of its own."""
        return float(self.timing.loop_wait)

    def install(self) -> str:
        """Set it up on bare machines; returns its version and settings.

        Raises:
            LabError: it has no leader after a while.
        """
        nodes = self.nodes
        addresses = {machine: nodes.address(machine) for machine in (*PAIR, WATCHER)}
        nodes.write(WATCHER, "/etc/default/etcd", etcd_settings(addresses[WATCHER]))
        nodes.run(WATCHER, "systemctl", "enable", "--now", "etcd.service", timeout=_BOOTSTRAP_S)
        for node in PAIR:
            wanted = settings(node, addresses, nodes.network, nodes.programs, self.timing)
            nodes.write(node, SETTINGS, yaml.safe_dump(wanted, sort_keys=False))
            nodes.run(node, "systemctl", "enable", "--now", "patroni.service")
        wait_for(lambda: self.roles() is not None, _BOOTSTRAP_S, "Patroni has a leader and a replica")
        etcd, patroni = nodes.version("etcd-server"), nodes.version("patroni")
        return f"Patroni {patroni}, etcd {etcd} with one member; {self.timing}"

    def roles(self) -> tuple[str, str] | None:
        """The primary and the standby, when Patroni says that both are well."""
        for node in PAIR:
            try:
                answer = httpx.get(self._api(node, "cluster"), timeout=2.0)
                return roles(answer.json())
            except (httpx.HTTPError, ValueError):
                continue
        return None

    def switch_over(self, primary: str, standby: str) -> None:
        """Exchange the roles, as `patronictl switchover` does.

        Raises:
            LabError: it did not.
        """
        wanted = {"leader": primary, "candidate": standby}
        try:
            answer = httpx.post(self._api(primary, "switchover"), json=wanted, timeout=_SWITCH_S)
        except httpx.HTTPError as error:
            raise LabError(f"Patroni did not answer to a switchover: {error}", where=primary) from error
        if answer.status_code != 200:
            raise LabError(f"Patroni refused a switchover: {answer.text[:200]}", where=primary)

    def _api(self, node: str, path: str) -> str:
        return f"http://{self.nodes.address(node)}:{_API_PORT}/{path}"


def etcd_settings(address: str) -> str:
    """The environment of an etcd of one member."""
    peers = f"http://{address}:2380"
    values = {
        "ETCD_NAME": "only",
        "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
        "ETCD_ADVERTISE_CLIENT_URLS": f"http://{address}:2379",
        "ETCD_LISTEN_PEER_URLS": peers,
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peers,
        "ETCD_INITIAL_CLUSTER": f"only={peers}",
    }
    return "".join(f'{name}="{value}"\n' for name, value in values.items())


def settings(
    node: str, addresses: Mapping[str, str], network: str, programs: str, timing: Timing
) -> dict[str, Any]:
    """The settings file of a node; what is not in it is Patroni's default.

    Args:
        node: whose it is.
        addresses: of the nodes and of etcd's machine.
        network: that the nodes share; nobody else is on it, so that no passwords are needed.
        programs: the directory of PostgreSQL's programs.
        timing: what is measured.
    """
    address = addresses[node]
    return {
        "scope": "peer",
        "name": node,
        "etcd3": {"hosts": [f"{addresses[WATCHER]}:2379"]},
        "restapi": {"listen": f"0.0.0.0:{_API_PORT}", "connect_address": f"{address}:{_API_PORT}"},
        "bootstrap": {
            "dcs": {
                **vars(timing),
                "maximum_lag_on_failover": 1048576,
                "postgresql": {"use_pg_rewind": True},
            },
            "initdb": [{"encoding": "UTF8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": "0.0.0.0:5432",
            "connect_address": f"{address}:5432",
            "data_dir": DATA,
            "bin_dir": programs,
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator"},
            },
            "pg_hba": [
                "local all all trust",
                "host all all 127.0.0.1/32 trust",
                # By this one Patroni reads its own node's timeline, and sees that it has to rewind.
                "host replication all 127.0.0.1/32 trust",
                f"host all all {network} trust",
                f"host replication all {network} trust",
            ],
            "parameters": {"unix_socket_directories": "/var/run/postgresql"},
        },
    }


def roles(cluster: Mapping[str, Any]) -> tuple[str, str] | None:
    """Read Patroni's answer to GET /cluster.

    Returns:
        the leader and its replica, when both run on one timeline without a lag; else None.
    """
    members = {str(member.get("role")): member for member in cluster.get("members", [])}
    leader, replica = members.get("leader"), members.get("replica")
    if leader is None or replica is None or len(cluster["members"]) != 2:
        return None
    well = all(member.get("state") in ("running", "streaming") for member in (leader, replica))
    if not well or leader.get("timeline") != replica.get("timeline") or replica.get("lag") != 0:
        return None
    return str(leader["name"]), str(replica["name"])
