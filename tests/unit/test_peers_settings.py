"""The settings that the other tools are measured with, and what they say of their nodes."""

from typing import Any

import pytest

from benchmarks.peers import auto_failover, patroni

ADDRESSES = {"node-a": "10.0.0.11", "node-b": "10.0.0.12", "node-c": "10.0.0.13"}


def patroni_settings(timing: patroni.Timing) -> dict[str, Any]:
    return patroni.settings("node-b", ADDRESSES, "10.0.0.0/24", "/usr/lib/postgresql/15/bin", timing)


def cluster(**of_replica: Any) -> dict[str, Any]:
    leader = {"name": "node-b", "role": "leader", "state": "running", "timeline": 3}
    replica = {"name": "node-a", "role": "replica", "state": "running", "timeline": 3, "lag": 0}
    return {"members": [{**replica, **of_replica}, leader]}


@pytest.mark.parametrize("timing", [patroni.DEFAULT, patroni.FASTEST])
def test_the_times_that_are_measured_keep_the_rule_of_patronis_documentation(timing: patroni.Timing) -> None:
    assert timing.loop_wait + 2 * timing.retry_timeout <= timing.ttl
    dcs = patroni_settings(timing)["bootstrap"]["dcs"]
    assert {name: dcs[name] for name in vars(timing)} == vars(timing)


def test_a_node_under_patroni_tells_the_others_its_own_address_and_asks_the_third_machine() -> None:
    made = patroni_settings(patroni.DEFAULT)
    assert made["name"] == "node-b"
    assert made["etcd3"] == {"hosts": ["10.0.0.13:2379"]}
    assert made["postgresql"]["connect_address"] == "10.0.0.12:5432"
    assert made["restapi"]["connect_address"] == "10.0.0.12:8008"


def test_etcd_listens_for_the_nodes_and_has_one_member() -> None:
    lines = dict(line.split("=", 1) for line in patroni.etcd_settings("10.0.0.13").splitlines())
    assert lines["ETCD_ADVERTISE_CLIENT_URLS"] == '"http://10.0.0.13:2379"'
    assert lines["ETCD_INITIAL_CLUSTER"] == '"only=http://10.0.0.13:2380"'


def test_patronis_roles_are_read_when_both_are_well() -> None:
    assert patroni.roles(cluster()) == ("node-b", "node-a")


@pytest.mark.parametrize(
    "ill",
    [
        {"state": "starting"},
        {"state": "start failed"},
        {"timeline": 2},
        {"timeline": None},
        {"lag": 4096},
        {"lag": "unknown"},
        {"role": "leader"},
    ],
)
def test_a_replica_that_is_not_there_yet_is_waited_for(ill: dict[str, Any]) -> None:
    assert patroni.roles(cluster(**ill)) is None


def test_a_leader_alone_is_waited_for() -> None:
    assert patroni.roles({"members": cluster()["members"][1:]}) is None
    assert patroni.roles({}) is None


def test_the_monitor_gets_no_settings_where_its_defaults_are_measured() -> None:
    assert auto_failover.monitor_statements(auto_failover.DEFAULT.monitor) == []


def test_the_monitor_reads_its_settings_after_the_last_of_them() -> None:
    statements = auto_failover.monitor_statements({"health_check_period": 1000})
    assert statements == [
        "ALTER SYSTEM SET pgautofailover.health_check_period = 1000",
        "SELECT pg_reload_conf()",
    ]


def test_a_primary_that_is_alone_stops_before_the_other_is_promoted() -> None:
    fastest = auto_failover.FASTEST
    assert fastest.partition_s is not None
    assert fastest.partition_s * 1000 < fastest.monitor["primary_demote_timeout"]


def test_the_monitors_roles_are_read_when_both_are_well() -> None:
    answer = "node-a|secondary|secondary|1\nnode-b|primary|primary|1\n"
    assert auto_failover.roles(answer) == ("node-b", "node-a")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "node-a|single|single|1\n",
        "node-a|primary|primary|1\n",
        "node-a|wait_primary|wait_primary|1\nnode-b|demoted|catchingup|0\n",
        "node-a|primary|draining|1\nnode-b|secondary|prepare_promotion|1\n",
        "node-a|primary|primary|1\nnode-b|secondary|secondary|0\n",
        "node-a|primary|primary|1\nnode-b|catchingup|secondary|1\n",
    ],
)
def test_a_pair_on_its_way_is_waited_for(answer: str) -> None:
    assert auto_failover.roles(answer) is None


def test_a_node_under_patroni_may_ask_itself_how_its_timeline_differs() -> None:
    # Without it a primary that came back never rewound, and never was a standby again.
    assert (
        "host replication all 127.0.0.1/32 trust" in patroni_settings(patroni.DEFAULT)["postgresql"]["pg_hba"]
    )
