"""CLB and NLB: a node is drained when the cloud says so after it was told, and a witness only where it looks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from tasks.balancer import balancer as module
from tasks.balancer import cloud as cloud_module
from tasks.balancer import nlb as nlb_module
from tasks.balancer import serving
from tasks.balancer.balancer import admit_confirmed, balancer_of, drain_confirmed, listener_of
from tasks.balancer.clb import Clb
from tasks.balancer.cloud import CloudBalancer
from tasks.balancer.nlb import Nlb
from tasks.balancer.states import BalancerError, NodeState, Served
from tests.unit.aliyun_endpoint import FORBIDDEN, SAID_BY_THE_CLOUD, THROTTLED, Fault
from tests.unit.aliyun_products import ADDRESSES, GROUP, A, B
from tests.unit.aliyun_site import Cloud, cloud_site, hurry, read, stand_in

pytest.importorskip("alibabacloud_slb20140515", reason="the extra [aliyun] is not installed")

pytestmark = pytest.mark.servers

KINDS = ("aliyun-clb", "aliyun-nlb")
TELLS = {"aliyun-clb": "SetBackendServers", "aliyun-nlb": "UpdateServerGroupServersAttribute"}
ENTERS = {"aliyun-clb": "AddBackendServers", "aliyun-nlb": "AddServersToServerGroup"}
LISTS = {"aliyun-clb": "DescribeLoadBalancerAttribute", "aliyun-nlb": "ListServerGroupServers"}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    hurry(monkeypatch)
    monkeypatch.setattr(nlb_module, "_JOB_S", 0.02)
    for kind in (Clb, Nlb):
        monkeypatch.setattr(kind, "pace_s", 0.02)
    monkeypatch.setattr(module, "_CONFIRM_S", 1.0)
    with stand_in() as made:
        yield made


def site_of(cloud: Cloud, directory: Path, kind: str, **balancer: Any) -> HarborSite:
    file = cloud_site(directory, kind, cloud.endpoint.address)
    file.data["balancer"] |= balancer
    return read(file)


def asked(site: HarborSite, node: str = "node-a") -> NodeState:
    balancer = balancer_of(site)
    assert balancer is not None
    return balancer.status([node])[node]


def servers(cloud: Cloud, kind: str) -> dict[str, Any]:
    return cloud.clb.servers if kind == "aliyun-clb" else cloud.nlb.servers


def fall_ill(cloud: Cloud, kind: str, name: str = A) -> None:
    if kind == "aliyun-clb":
        cloud.clb.health[name] = "abnormal"
    else:
        cloud.nlb.ill[name] = "Unhealthy"


def stop_listening(cloud: Cloud, kind: str) -> None:
    if kind == "aliyun-clb":
        cloud.clb.listener["Status"] = "stopped"
    else:
        assert cloud.nlb.listener is not None
        cloud.nlb.listener["ListenerStatus"] = "Stopped"


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_is_drained_and_served_again(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    balancer = balancer_of(site_of(cloud, tmp_path, kind))
    assert balancer is not None
    state = drain_confirmed(balancer, "node-a")
    assert (state.served, state.alive) == (Served.DRAINED, None)
    assert servers(cloud, kind) == {A: 0, B: 100}
    assert admit_confirmed(balancer, "node-a").served is Served.UP
    assert servers(cloud, kind) == {A: 100, B: 100}


@pytest.mark.parametrize("kind", KINDS)
def test_a_drain_that_is_done_already_changes_nothing(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    servers(cloud, kind)[A] = 0
    balancer = balancer_of(site_of(cloud, tmp_path, kind))
    assert balancer is not None
    balancer.drain("node-a")
    assert TELLS[kind] not in cloud.endpoint.calls


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_else_is_in_the_group_is_drained_also_whom_the_site_does_not_know(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    """After a disaster the lost machines are not in the site file any more, and still are in the group."""
    servers(cloud, kind)["eni-bp1xxxxxxxxxx"] = 100
    balancer = balancer_of(site_of(cloud, tmp_path, kind))
    assert isinstance(balancer, CloudBalancer)
    assert sorted(balancer.drain_others("node-a")) == sorted([B, "eni-bp1xxxxxxxxxx"])
    assert servers(cloud, kind) == {A: 100, B: 0, "eni-bp1xxxxxxxxxx": 0}
    assert balancer.drain_others("node-a") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_is_not_in_the_group_is_entered(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    del servers(cloud, kind)[A]
    balancer = balancer_of(site_of(cloud, tmp_path, kind))
    assert balancer is not None
    assert admit_confirmed(balancer, "node-a").served is Served.UP
    assert servers(cloud, kind)[A] == 100
    assert ENTERS[kind] in cloud.endpoint.calls


def test_a_vserver_group_is_told_by_its_own_name(cloud: Cloud, tmp_path: Path) -> None:
    cloud.clb.group = "rsp-cige6jxxxxxx"
    balancer = balancer_of(site_of(cloud, tmp_path, "aliyun-clb"))
    assert balancer is not None
    assert drain_confirmed(balancer, "node-a").served is Served.DRAINED
    assert admit_confirmed(balancer, "node-a").served is Served.UP
    assert "SetVServerGroupAttribute" in cloud.endpoint.calls


def test_a_node_is_entered_into_a_vserver_group_with_harbors_port(cloud: Cloud, tmp_path: Path) -> None:
    cloud.clb.group = "rsp-cige6jxxxxxx"
    del cloud.clb.servers[A]
    balancer = balancer_of(site_of(cloud, tmp_path, "aliyun-clb"))
    assert balancer is not None
    assert admit_confirmed(balancer, "node-a").served is Served.UP
    (asked_for,) = cloud.endpoint.parameters["AddVServerGroupBackendServers"]
    assert '"Port": "443"' in asked_for["BackendServers"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_is_a_witness_of_both_answers(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    site = site_of(cloud, tmp_path, kind)
    up = asked(site)
    assert (up.served, up.alive, up.only_connects) == (Served.UP, True, True)
    fall_ill(cloud, kind)
    down = asked(site)
    assert (down.served, down.alive) == (Served.DOWN, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drained_nodes_check_is_no_witness_whatever_it_says(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    """CLB goes on calling a server of weight 0 well: taken for a sighting, it would hold up every failover."""
    servers(cloud, kind)[A] = 0
    assert asked(site_of(cloud, tmp_path, kind)).alive is None
    fall_ill(cloud, kind)
    assert asked(site_of(cloud, tmp_path, kind)) == asked(site_of(cloud, tmp_path, kind))
    assert asked(site_of(cloud, tmp_path, kind)).alive is None


def test_an_http_check_sees_more_than_a_handshake(cloud: Cloud, tmp_path: Path) -> None:
    cloud.clb.listener["HealthCheckType"] = "http"
    assert asked(site_of(cloud, tmp_path, "aliyun-clb")).only_connects is False


@pytest.mark.parametrize("word", ["unavailable", "something new", ""])
def test_a_word_of_clb_that_says_nothing_is_neither_up_nor_down(
    cloud: Cloud, tmp_path: Path, word: str
) -> None:
    cloud.clb.health[A] = word
    state = asked(site_of(cloud, tmp_path, "aliyun-clb"))
    assert (state.served, state.alive) == (Served.UNKNOWN, None)


def test_of_the_clouds_words_only_plain_ones_reach_a_report(cloud: Cloud, tmp_path: Path) -> None:
    cloud.clb.health[A] = "password=hunter2 <b>"
    assert "hunter2" not in asked(site_of(cloud, tmp_path, "aliyun-clb")).check


@pytest.mark.parametrize("word", ["Initial", "Unavailable", "Something new"])
def test_a_word_of_nlb_that_says_nothing_is_neither_up_nor_down(
    cloud: Cloud, tmp_path: Path, word: str
) -> None:
    cloud.nlb.ill[A] = word
    state = asked(site_of(cloud, tmp_path, "aliyun-nlb"))
    assert (state.served, state.alive) == (Served.UNKNOWN, None)


def test_an_nlb_that_tells_nothing_of_the_group_has_not_called_it_well(cloud: Cloud, tmp_path: Path) -> None:
    """Its list has those that are not well: an empty answer looked like two healthy nodes."""
    cloud.nlb.tells = False
    state = asked(site_of(cloud, tmp_path, "aliyun-nlb"))
    assert (state.served, state.alive) == (Served.UNKNOWN, None)


def test_a_clb_that_does_not_tell_of_a_server_has_not_lost_it(cloud: Cloud, tmp_path: Path) -> None:
    del cloud.clb.health[A]
    state = asked(site_of(cloud, tmp_path, "aliyun-clb"))
    assert (state.served, state.alive) == (Served.UNKNOWN, None)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_health_check_a_node_is_served_and_nobody_looks(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    cloud.clb.listener["HealthCheck"] = "off"
    cloud.nlb.checks = False
    state = asked(site_of(cloud, tmp_path, kind))
    assert (state.served, state.alive) == (Served.UP, None)


@pytest.mark.parametrize("kind", KINDS)
def test_behind_a_listener_that_does_not_run_nobody_is_served_and_nobody_is_lost(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    stop_listening(cloud, kind)
    state = asked(site_of(cloud, tmp_path, kind))
    assert (state.served, state.alive) == (Served.UNKNOWN, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_without_an_entry_gets_no_clients(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    del servers(cloud, kind)[A]
    state = asked(site_of(cloud, tmp_path, kind))
    assert (state.served, state.alive) == (Served.DRAINED, None)


@pytest.mark.parametrize("kind", KINDS)
def test_beside_a_server_that_nobody_knows_a_missing_entry_proves_nothing(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    """The node may be entered by its network interface; it was called drained and had clients."""
    del servers(cloud, kind)[A]
    servers(cloud, kind)["eni-bp1xxxxxxxxxx"] = 100
    state = asked(site_of(cloud, tmp_path, kind))
    assert state.served is Served.UNKNOWN
    assert "eni-bp1xxxxxxxxxx" in state.check


@pytest.mark.parametrize("weight", ["0", None, True, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_cannot_be_read_is_no_drain(
    cloud: Cloud, tmp_path: Path, kind: str, weight: Any
) -> None:
    servers(cloud, kind)[A] = weight
    site = site_of(cloud, tmp_path, kind)
    assert asked(site).served is Served.UNKNOWN
    balancer = balancer_of(site)
    assert balancer is not None
    balancer.drain("node-a")
    assert asked(site).served is Served.DRAINED


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_nodes_instance_is_neither_believed_nor_drained(
    cloud: Cloud, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the instances of two nodes exchanged, the drain of the dead one would take out the living one."""
    file = cloud_site(tmp_path, kind, cloud.endpoint.address)
    file.data["nodes"]["node-a"]["instance_id"], file.data["nodes"]["node-b"]["instance_id"] = B, A
    site = read(file)
    assert asked(site).served is Served.UNKNOWN
    balancer = balancer_of(site)
    assert balancer is not None
    with pytest.raises(BalancerError, match="has the address of node-b"):
        balancer.drain("node-a")
    assert servers(cloud, kind) == {A: 100, B: 100}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cloud_that_cannot_be_asked_says_nothing_of_any_node(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    site = site_of(cloud, tmp_path, kind)
    for fault, said in ((FORBIDDEN, "RAM does not allow"), (Fault(silent_s=0.6), "got no answer")):
        cloud.endpoint.faults[LISTS[kind]] = (fault,)
        with pytest.raises(BalancerError, match=said) as caught:
            balancer_of(site).status(["node-a"], 0.5)  # type: ignore[union-attr]
        assert SAID_BY_THE_CLOUD not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drain_that_is_throttled_or_found_busy_is_told_again(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    busy = "ServiceIsConfiguring" if kind == "aliyun-clb" else "Conflict.Lock"
    cloud.endpoint.faults[TELLS[kind]] = [THROTTLED, Fault(busy, 400)]
    balancer = balancer_of(site_of(cloud, tmp_path, kind))
    assert balancer is not None
    assert drain_confirmed(balancer, "node-a").served is Served.DRAINED


@pytest.mark.parametrize("kind", KINDS)
def test_a_drain_that_is_not_allowed_names_the_right_that_is_missing(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    cloud.endpoint.faults[TELLS[kind]] = (FORBIDDEN,)
    balancer = balancer_of(site_of(cloud, tmp_path, kind))
    assert balancer is not None
    with pytest.raises(BalancerError, match=f"RAM does not allow .*{TELLS[kind]}"):
        balancer.drain("node-a")


def test_a_drain_that_was_accepted_without_an_answer_is_found_out(cloud: Cloud, tmp_path: Path) -> None:
    cloud.endpoint.faults["SetBackendServers"] = [Fault(silent_s=0.6)]
    balancer = balancer_of(site_of(cloud, tmp_path, "aliyun-clb"))
    assert balancer is not None
    assert drain_confirmed(balancer, "node-a").served is Served.DRAINED


def test_a_job_of_an_nlb_that_fails_is_no_drain(cloud: Cloud, tmp_path: Path) -> None:
    cloud.nlb.job_ends = "Failed"
    balancer = balancer_of(site_of(cloud, tmp_path, "aliyun-nlb"))
    assert balancer is not None
    with pytest.raises(BalancerError, match="was accepted and is Failed"):
        balancer.drain("node-a")
    assert asked(site_of(cloud, tmp_path, "aliyun-nlb")).served is not Served.DRAINED


def test_a_job_of_an_nlb_is_waited_for_with_a_limit(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (nlb_module, cloud_module):
        monkeypatch.setattr(place, "CALL_S", 0.5)
    cloud.nlb.job_looks = 10_000
    balancer = balancer_of(site_of(cloud, tmp_path, "aliyun-nlb"))
    assert balancer is not None
    with pytest.raises(BalancerError, match="was accepted and is Processing"):
        balancer.drain("node-a")
    assert asked(site_of(cloud, tmp_path, "aliyun-nlb")).served is Served.UNKNOWN


def test_a_job_of_an_nlb_that_succeeded_and_changed_nothing_is_not_believed(
    cloud: Cloud, tmp_path: Path
) -> None:
    cloud.endpoint.actions["UpdateServerGroupServersAttribute"] = lambda asked: {}
    balancer = balancer_of(site_of(cloud, tmp_path, "aliyun-nlb"))
    assert balancer is not None
    with pytest.raises(BalancerError, match="node-a is up"):
        drain_confirmed(balancer, "node-a")


def test_a_group_of_an_nlb_that_is_not_seen_as_a_whole_is_not_judged(cloud: Cloud, tmp_path: Path) -> None:
    whole = cloud.endpoint.actions["ListServerGroupServers"]
    cloud.endpoint.actions["ListServerGroupServers"] = lambda asked: whole(asked) | {"NextToken": "more"}
    with pytest.raises(BalancerError, match="more than 100 servers"):
        asked(site_of(cloud, tmp_path, "aliyun-nlb"))


def test_a_primary_secondary_group_has_no_weights(cloud: Cloud, tmp_path: Path) -> None:
    cloud.clb.listener["MasterSlaveServerGroupId"] = "rsp-1"
    with pytest.raises(BalancerError, match="no weights"):
        asked(site_of(cloud, tmp_path, "aliyun-clb"))


@pytest.mark.parametrize("kind", KINDS)
def test_bootstrap_makes_the_listener_once_where_it_is_asked_to(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    site = site_of(cloud, tmp_path, kind, create_listener=True)
    cloud.clb.listener, cloud.nlb.listener = {}, None
    assert serving.listen(site).changed
    assert asked(site).served is Served.UP
    assert not serving.listen(site).changed


@pytest.mark.parametrize("kind", KINDS)
def test_a_listener_that_does_not_run_is_started(cloud: Cloud, tmp_path: Path, kind: str) -> None:
    stop_listening(cloud, kind)
    assert serving.listen(site_of(cloud, tmp_path, kind, create_listener=True)).changed
    assert asked(site_of(cloud, tmp_path, kind)).served is Served.UP


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_listener_is_an_error_where_nobody_asked_for_it(
    cloud: Cloud, tmp_path: Path, kind: str
) -> None:
    site = site_of(cloud, tmp_path, kind)
    cloud.clb.listener, cloud.nlb.listener = {}, None
    assert listener_of(site) is None
    assert not serving.listen(site).changed
    with pytest.raises(BalancerError) as caught:
        asked(site)
    assert "balancer.create_listener" in str(caught.value)


def test_the_stand_in_knows_what_the_site_names(cloud: Cloud, tmp_path: Path) -> None:
    site = site_of(cloud, tmp_path, "aliyun-nlb")
    assert {node.instance_id: node.address for node in site.nodes} == ADDRESSES
    assert site.balancer.server_group == GROUP
