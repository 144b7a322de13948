"""Bootstrap begins only when nothing speaks against it, and says everything that does at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite, read_site_file
from flows.rules.preflight import plan_bootstrap
from tasks.errors import Refused
from tasks.hosts.preflight import DatabaseSeen, NodeSeen
from tests.unit.site_on_disk import NOW, correct_site

EMPTY = DatabaseSeen(False, None, None, None, False, False)
PRIMARY = DatabaseSeen(True, "7100", "7100", "example", False, False)
STANDBY = replace(PRIMARY, standby=True)


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return read_site_file(correct_site(tmp_path).write(), now=NOW)


def node(name: str, **changes: Any) -> NodeSeen:
    bare = NodeSeen(
        name=name,
        skew_s=0.1,
        os_id="debian",
        os_version="12",
        systemd=252,
        memory_bytes=4 << 30,
        free_bytes={"/data/harbor": 50 << 30},
        listeners={},
        harbor_installed=False,
        nas_mounted="nfs",
        resolves={"harbor.example.com": ["10.20.0.10"]},
        redis="ok",
        connects={"10.20.0.12:22": "ok"},
        database=EMPTY,
        secretkey=None,
        postgres_available=True,
        tools={"apt-get": True},
    )
    return replace(bare, **changes)


def test_two_bare_nodes_get_the_first_one_as_primary(site: HarborSite) -> None:
    plan = plan_bootstrap(site, [node("node-a"), node("node-b")], NOW)
    assert (plan.primary, plan.standbys, plan.first_time) == ("node-a", ("node-b",), True)


def test_after_a_failover_the_primary_is_read_off_the_nodes_and_not_the_file(site: HarborSite) -> None:
    plan = plan_bootstrap(site, [node("node-a", database=STANDBY), node("node-b", database=PRIMARY)], NOW)
    assert (plan.primary, plan.standbys, plan.first_time) == ("node-b", ("node-a",), False)
    assert plan.harbor[0] == "node-b"


def test_a_restored_node_becomes_the_primary_of_a_bare_one(site: HarborSite) -> None:
    plan = plan_bootstrap(site, [node("node-a"), node("node-b", database=PRIMARY)], NOW)
    assert (plan.primary, plan.standbys) == ("node-b", ("node-a",))


def test_a_creation_that_was_killed_is_taken_up_again(site: HarborSite) -> None:
    half = DatabaseSeen(True, "7100", None, None, True, False)
    assert plan_bootstrap(site, [node("node-a", database=half), node("node-b")], NOW).first_time


OBJECTIONS: list[tuple[str, Callable[[], list[NodeSeen]]]] = [
    (r"fedora 41 is not supported", lambda: [node("node-a", os_id="fedora", os_version="41")]),
    (r"debian 10 is not supported", lambda: [node("node-a", os_version="10")]),
    (r"/data/harbor has 1\.1 GB free", lambda: [node("node-a", free_bytes={"/data/harbor": 1 << 30})]),
    (r"1\.1 GB of memory", lambda: [node("node-a", memory_bytes=1 << 30)]),
    (r"port 443 is held by nginx", lambda: [node("node-a", listeners={"443": "nginx"})]),
    (r"port 443 is held by docker-proxy", lambda: [node("node-a", listeners={"443": "docker-proxy"})]),
    (r"port 5432 is held by postgres", lambda: [node("node-a", listeners={"5432": "postgres"})]),
    (r"clock is \+3\.0 s off", lambda: [node("node-a", skew_s=3.0)]),
    (r"harbor\.example\.com does not resolve", lambda: [node("node-a", resolves={"harbor.example.com": []})]),
    (r"nothing is mounted on /mnt/harbor", lambda: [node("node-a", nas_mounted=None)]),
    (r"Redis at .* says: WRONGPASS", lambda: [node("node-a", redis="WRONGPASS invalid")]),
    (
        r"10\.20\.0\.12:22 cannot be reached",
        lambda: [node("node-a", connects={"10.20.0.12:22": "timed out"})],
    ),
    (r"systemd 237 is too old", lambda: [node("node-a", systemd=237)]),
    (r"apt-get is missing", lambda: [node("node-a", tools={"apt-get": False})]),
    (
        r"holds the database 999, which this site did not create",
        lambda: [node("node-a", database=DatabaseSeen(True, "999", None, None, False, False))],
    ),
    (
        r"holds files, which this site did not create",
        lambda: [node("node-a", database=DatabaseSeen(True, None, None, None, False, False))],
    ),
    (
        r"holds the database 999, the site's is 7100",
        lambda: [node("node-a", database=replace(PRIMARY, sysid="999"))],
    ),
    (
        r"belongs to the site other",
        lambda: [node("node-a", database=replace(PRIMARY, record_site="other"))],
    ),
    (
        r"hold different secretkeys",
        lambda: [node("node-a", secretkey="aaaa"), node("node-b", secretkey="bbbb")],
    ),
    (
        r"hold different databases \(node-a 7100, node-b 7200\)",
        lambda: [
            node("node-a", database=PRIMARY),
            node("node-b", database=replace(STANDBY, sysid="7200", record_sysid="7200")),
        ],
    ),
    (
        r"node-a and node-b would both start as primary",
        lambda: [node("node-a", database=PRIMARY), node("node-b", database=PRIMARY)],
    ),
    (
        r"node-a and node-b are all standbys",
        lambda: [node("node-a", database=STANDBY), node("node-b", database=STANDBY)],
    ),
]


@pytest.mark.parametrize(("said", "seen"), OBJECTIONS, ids=[said for said, _ in OBJECTIONS])
def test_each_objection_is_raised_before_anything_is_changed(
    site: HarborSite, said: str, seen: Callable[[], list[NodeSeen]]
) -> None:
    with pytest.raises(Refused, match=said) as refused:
        plan_bootstrap(site, seen(), NOW)
    assert all("->" in reason for reason in refused.value.reasons)


def test_all_objections_of_all_nodes_come_at_once(site: HarborSite) -> None:
    seen = [node("node-a", redis="NOAUTH", skew_s=5), node("node-b", nas_mounted=None)]
    with pytest.raises(Refused) as refused:
        plan_bootstrap(site, seen, NOW)
    assert [reason.split(":")[0] for reason in refused.value.reasons] == ["node-a", "node-a", "node-b"]


def test_a_certificate_that_expired_since_the_site_was_applied_is_found(site: HarborSite) -> None:
    with pytest.raises(Refused, match="expired"):
        plan_bootstrap(site, [node("node-a"), node("node-b")], NOW.replace(year=NOW.year + 2))


def test_the_sites_own_services_may_hold_their_ports(site: HarborSite) -> None:
    own = node(
        "node-a",
        database=PRIMARY,
        harbor_installed=True,
        listeners={"443": "docker-proxy", "80": "docker-proxy", "5432": "postgres"},
    )
    assert plan_bootstrap(site, [own, node("node-b", database=STANDBY)], NOW).primary == "node-a"
