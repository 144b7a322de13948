"""Bootstrap begins only when nothing speaks against it, and says everything that does at once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite, read_site_file
from flows.rules.preflight import Plan, plan_bootstrap
from tasks.docker.engine import EngineFacts
from tasks.errors import Refused
from tasks.hosts.observation import SiteSeen
from tasks.hosts.preflight import DatabaseSeen, NodeSeen, OperationSeen, missing_packages
from tests.unit.site_on_disk import NOW, correct_site

EMPTY = DatabaseSeen(False, None, None, None, False, False)
PLENTY = {"/data/harbor": 50 << 30}
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
        free_bytes=PLENTY,
        listeners={},
        harbor_installed=False,
        nas_mounted="nfs",
        resolves={"harbor.example.com": ["10.20.0.10"]},
        redis="ok",
        connects={"10.20.0.12:22": "ok"},
        database=EMPTY,
        secretkey=None,
        tools={"apt-get": True},
        docker=EngineFacts(None, False, None, None, False),
        bundled_database=None,
        images_beside=False,
        wal_repository=False,
        daemon_json=None,
        lacking=["postgresql-15"],
        harbor_sha256=None,
        packages={"Docker": "ok", "compose": "ok", "postgresql-15": "ok"},
        installer="ok",
        operation=None,
        unfinished=[],
    )
    return replace(bare, **changes)


def plan(site: HarborSite, *nodes: NodeSeen, now: datetime = NOW, **seen: Any) -> Plan:
    return plan_bootstrap(site, SiteSeen(nodes, **seen), now)


def failover(phase: str) -> OperationSeen:
    return OperationSeen("failover", "failover-1", phase)


def test_two_bare_nodes_get_the_first_one_as_primary(site: HarborSite) -> None:
    found = plan(site, node("node-a"), node("node-b"))
    assert (found.primary, found.standbys, found.first_time) == ("node-a", ("node-b",), True)


def test_after_a_failover_the_primary_is_read_off_the_nodes_and_not_the_file(site: HarborSite) -> None:
    found = plan(site, node("node-a", database=STANDBY), node("node-b", database=PRIMARY))
    assert (found.primary, found.standbys, found.first_time) == ("node-b", ("node-a",), False)
    assert found.harbor[0] == "node-b"


def test_a_restored_node_becomes_the_primary_of_a_bare_one(site: HarborSite) -> None:
    found = plan(site, node("node-a"), node("node-b", database=PRIMARY))
    assert (found.primary, found.standbys) == ("node-b", ("node-a",))


def test_a_creation_that_was_killed_is_taken_up_again(site: HarborSite) -> None:
    half = DatabaseSeen(True, "7100", None, None, True, False)
    assert plan(site, node("node-a", database=half), node("node-b")).first_time


def test_a_node_whose_wal_goes_to_the_bucket_no_more_loses_the_key_of_the_bucket(site: HarborSite) -> None:
    seen = node("node-a", wal_repository=True), node("node-b")
    assert plan(site, *seen).forget == ("node-a",)
    policy = site.backup.model_copy(update={"wal_archive": "oss"})
    assert plan(site.model_copy(update={"backup": policy}), *seen).forget == ()


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
        r"postgresql-19 is in no package repository",
        lambda: [node("node-a", packages={"postgresql-19": "postgresql-19 is in no package repository"})],
    ),
    (r"cannot be fetched: 404", lambda: [node("node-a", installer="404")]),
    (
        r"Docker 1\.13\.1 is too old",
        lambda: [node("node-a", docker=EngineFacts("1.13.1", True, None, "1.8.0", True))],
    ),
    (r"daemon\.json: It is not valid JSON", lambda: [node("node-a", daemon_json="{mirrors:")]),
    (r"failover failover-1 is open \(promoting\)", lambda: [node("node-a", operation=failover("promoting"))]),
    (
        r"Harbor of its own with data in /data/harbor/database",
        lambda: [node("node-a", bundled_database="running")],
    ),
    (r"holds images that are not on the NAS", lambda: [node("node-a", images_beside=True)]),
    (
        r"holds the database 999, which this site did not create",
        lambda: [node("node-a", database=DatabaseSeen(True, "999", None, None, False, False))],
    ),
    (
        r"holds files, which this site did not create",
        lambda: [node("node-a", database=DatabaseSeen(True, None, None, None, False, False))],
    ),
    (
        r"/data/pgsql/data is itself a mount point.* mount the disk at /data/pgsql or elsewhere",
        lambda: [node("node-a", database=replace(PRIMARY, mount_points=["/data/pgsql/data"]))],
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
        plan(site, *seen())
    assert all("->" in reason for reason in refused.value.reasons)


def test_all_objections_of_all_nodes_come_at_once(site: HarborSite) -> None:
    seen = [node("node-a", redis="NOAUTH", skew_s=5), node("node-b", nas_mounted=None)]
    with pytest.raises(Refused) as refused:
        plan(site, *seen)
    assert [reason.split(":")[0] for reason in refused.value.reasons] == ["node-a", "node-a", "node-b"]


def test_a_certificate_that_expired_since_the_site_was_applied_is_found(site: HarborSite) -> None:
    with pytest.raises(Refused, match="expired"):
        plan(site, node("node-a"), node("node-b"), now=NOW.replace(year=NOW.year + 2))


def test_the_sites_own_services_may_hold_their_ports(site: HarborSite) -> None:
    own = node(
        "node-a",
        database=PRIMARY,
        harbor_installed=True,
        listeners={"443": "docker-proxy", "80": "docker-proxy", "5432": "postgres"},
    )
    assert plan(site, own, node("node-b", database=STANDBY)).primary == "node-a"


def test_problems_of_bucket_and_installer_and_unreachable_nodes_come_with_the_others(
    site: HarborSite,
) -> None:
    with pytest.raises(Refused) as refused:
        plan(
            site,
            node("node-a", redis="NOAUTH"),
            unreachable=("node-b: no answer -> switch it on",),
            bucket=("The AccessKey is unknown.",),
            installer="0" * 64,
        )
    told = "\n".join(refused.value.reasons)
    for text in ("node-b: no answer", "OSS: The AccessKey is unknown.", "has the checksum 000", "NOAUTH"):
        assert text in told


def test_an_installer_that_is_no_file_is_found_before_anything_is_changed(site: HarborSite) -> None:
    with pytest.raises(Refused, match="is no file on the orchestrator"):
        plan(site, node("node-a"), node("node-b"), installer="")


def test_a_failover_that_one_node_knows_to_be_done_is_no_open_one(site: HarborSite) -> None:
    late = node("node-a", operation=failover("promoting"))
    assert plan(site, late, node("node-b", operation=failover("done"))).first_time


def test_a_site_that_stands_is_not_refused_for_a_disk_that_has_filled_up_meanwhile(site: HarborSite) -> None:
    filled = {"/data/harbor": 1 << 30}
    standing = node("node-a", database=PRIMARY, harbor_sha256="a" * 64, free_bytes=filled)
    assert plan(site, standing, node("node-b", database=STANDBY)).primary == "node-a"


def migrating(site: HarborSite) -> HarborSite:
    return site.model_copy(update={"harbor": site.harbor.model_copy(update={"migrate_from_bundled": True})})


def test_a_bundled_database_is_taken_over_from_the_node_that_has_one(site: HarborSite) -> None:
    found = plan(migrating(site), node("node-a"), node("node-b", bundled_database="running"))
    assert found.migrate_from == "node-b"


def test_a_bundled_database_that_does_not_run_is_refused_before_anything_is_changed(site: HarborSite) -> None:
    with pytest.raises(Refused, match="harbor-db does not run -> start it"):
        plan(migrating(site), node("node-a", bundled_database="stopped"), node("node-b"))


def test_two_bundled_databases_are_refused_since_only_one_can_be_taken_over(site: HarborSite) -> None:
    with pytest.raises(Refused, match="node-a and node-b each have a bundled database"):
        plan(
            migrating(site),
            node("node-a", bundled_database="running"),
            node("node-b", bundled_database="running"),
        )


@pytest.mark.parametrize(
    ("docker", "wanted"),
    [
        (EngineFacts(None, False, None, None, False), {"Docker": ["docker.io"]}),
        (EngineFacts("", False, "2.26.1", None, True), {"Docker's client": ["docker-cli", "docker.io"]}),
        (EngineFacts("", True, "2.26.1", None, True), {}),
    ],
    ids=["nothing", "no client", "an engine that does not answer"],
)
def test_what_must_be_installable_is_what_the_node_lacks(
    site: HarborSite, docker: EngineFacts, wanted: dict[str, list[str]]
) -> None:
    found = missing_packages(site, node("node-a", docker=docker, lacking=[]))
    assert {name: choices for name, choices in found.items() if name != "compose"} == wanted
