"""Names, addresses, rights and cuts of a lab: the parts that are decided without a container."""

import ipaddress
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lab import machines, partition, state, topology
from lab.services import haproxy_cfg, redis_conf
from lab.shell import LabError
from lab.topology import NODES, Topology, free_subnet, read_releases

_LAB = Topology("demo", ipaddress.IPv4Network("172.30.90.0/24"), "mark")


def test_every_machine_has_the_address_that_the_documentation_promises() -> None:
    wanted = {"orchestrator": 1, "node-a": 11, "node-b": 12, "node-c": 13, "redis": 21, "lb": 22, "oss": 23}
    assert {name: _LAB.address(name) for name in wanted} == {
        name: f"172.30.90.{last}" for name, last in wanted.items()
    }


@pytest.mark.parametrize("name", ["", "Demo", "-x", "1st", "a/b", "a" * 22, "a b"])
def test_a_lab_name_that_docker_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name"):
        Topology(name, _LAB.subnet, "mark")


def test_a_network_that_is_too_small_is_refused() -> None:
    with pytest.raises(LabError, match="too small"):
        Topology("demo", ipaddress.IPv4Network("172.30.90.0/28"), "mark")


def test_a_second_lab_gets_the_next_network_that_overlaps_with_nobody() -> None:
    taken = [ipaddress.IPv4Network("172.30.90.0/24"), ipaddress.IPv4Network("172.30.91.128/25")]
    assert free_subnet([]) == ipaddress.IPv4Network("172.30.90.0/24")
    assert free_subnet(taken) == ipaddress.IPv4Network("172.30.92.0/24")
    with pytest.raises(LabError, match="No free subnet"):
        free_subnet([ipaddress.IPv4Network("172.16.0.0/12")])


def test_secrets_are_not_among_the_arguments_of_any_container() -> None:
    secret = Path("/secrets/oss-access-key-secret")
    arguments = machines.oss_arguments(_LAB, "image", "ID", secret) + machines.redis_arguments(_LAB, "image")
    assert "requirepass" not in " ".join(arguments)
    assert f"{secret}:/etc/lab/access-key-secret:ro" in arguments


def test_version_two_of_cgroups_tries_a_privileged_node_with_a_cgroup_namespace_first() -> None:
    assert machines.candidates("2")[0].arguments == ("--privileged", "--cgroupns=private")


def test_version_one_of_cgroups_never_hands_over_the_machines_devices() -> None:
    for powers in machines.candidates("1"):
        assert "--privileged" not in powers.arguments
        assert "/sys/fs/cgroup:/sys/fs/cgroup:ro" in powers.arguments


def test_a_cut_is_the_same_whichever_end_is_named_first() -> None:
    assert partition.ordered("node-b", "node-a") == partition.ordered("node-a", "node-b")
    cuts = {partition.ordered("node-b", "node-a"), partition.ordered("orchestrator", "node-a")}
    assert partition.peers("node-a", cuts) == ["node-b", "orchestrator"]
    assert partition.peers("node-c", cuts) == []
    assert partition.ends(("node-a", "orchestrator")) == ["node-a"]


def test_a_cut_drops_both_directions_where_forwarded_packets_pass() -> None:
    script = partition.script(["172.30.90.12"])
    assert "-t raw -A HARBOR_HA_CUT -s 172.30.90.12 -j DROP" in script
    assert "-t mangle -A HARBOR_HA_CUT -d 172.30.90.12 -j DROP" in script
    assert "-X" not in script


def test_healing_removes_the_chain_and_names_no_rule_of_others() -> None:
    script = partition.script([])
    assert "-t raw -X HARBOR_HA_CUT" in script
    assert "-t mangle -X HARBOR_HA_CUT" in script
    assert "DROP" not in script


def test_both_scripts_are_valid_shell() -> None:
    for script in (partition.script([]), partition.script(["10.0.0.1", "10.0.0.2"])):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_the_health_check_survives_haproxys_own_quoting() -> None:
    """Double quotes in haproxy.cfg are HAProxy's: the pattern lost its own, and no node was ever healthy."""
    expected = [
        line.partition(" rstring ")[2] for line in haproxy_cfg(_LAB).splitlines() if "rstring" in line
    ]
    assert len(expected) == 4
    assert [text for text in expected if (text[0], text[-1]) != ("'", "'") or '"healthy"' not in text] == []


def test_the_third_node_waits_disabled_behind_the_balancer() -> None:
    servers = [line.split() for line in haproxy_cfg(_LAB).splitlines() if line.startswith("    server ")]
    assert {server[1]: "disabled" in server for server in servers} == {
        "node-a": False,
        "node-b": False,
        "node-c": True,
    }


def test_redis_asks_for_its_password() -> None:
    assert "requirepass geheim\n" in redis_conf("geheim")


def test_a_release_is_chosen_for_all_nodes_or_for_one() -> None:
    assert read_releases([]) == {}
    assert read_releases(["trixie"]) == dict.fromkeys(NODES, "trixie")
    assert read_releases(["node-c=trixie", "bullseye"]) == {
        "node-a": "bullseye",
        "node-b": "bullseye",
        "node-c": "trixie",
    }
    with pytest.raises(LabError, match="no node 'redis'"):
        read_releases(["redis=trixie"])


def test_a_pair_of_two_releases_is_refused() -> None:
    """WAL of one major version of PostgreSQL cannot be replayed by another."""
    with pytest.raises(LabError, match="node-a and node-b"):
        replace(_LAB, releases={"node-a": "bullseye", "node-b": "trixie"})
    replace(_LAB, releases={"node-a": "bullseye", "node-b": "bullseye", "node-c": "trixie"})


def test_a_lab_remembers_its_releases_and_its_harbor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (state, topology):
        monkeypatch.setattr(module, "STATE", tmp_path)
    made = replace(_LAB, releases=read_releases(["bullseye", "node-c=trixie"]), harbor="2.3.2")
    state.remember(made)
    assert state.known_labs() == {"demo": made}
    # Of a clone from before there was a choice.
    (tmp_path / "demo" / "lab.json").write_text('{"subnet": "172.30.90.0/24", "mark": "mark"}')
    assert state.known_labs() == {"demo": _LAB}
