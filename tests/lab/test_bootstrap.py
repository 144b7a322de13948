"""Two bare hosts become a site, whatever happens on the way; the second time nothing is changed."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from lab.faults.processes import Run
from lab.faults.stage import wait_for
from lab.site_lab import Lab
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import through_balancer, through_node
from tasks.observation.look import look
from tasks.postgres.sql import execute
from tests.lab.faults.pace import best_of_two
from tests.lab.site import LabSite

RECORD = "/var/lib/harbor-ha/cluster.json"
SECRETKEY = "/data/harbor/secret/keys/secretkey"

# A package that dpkg has unpacked, or is about to, and not yet configured: its programs are there and do not work.
BEGUN = "dpkg-query --show --showformat='${{db:Status-Status}}' {} | grep -E 'half|unpacked'"

LOADING = "while images are loaded"
# Where the flow's process is killed, in the order in which bootstrap comes past: node, and what is so just then.
MOMENTS = (
    ("between the intent of a cluster and its record", "node-a", "test -e /var/lib/harbor-ha/creating.json"),
    ("during the base backup", "node-b", "test -e /data/pgsql/data.new"),
    (LOADING, "node-a", "pgrep -f '[d]ocker load'"),
    ("while prepare runs", "node-b", "pgrep -f '[.]/prepare'"),
    (
        "between the start of one node and of the other",
        "node-a",
        "docker ps --format '{{.Names}}' | grep nginx",
    ),
)


def killed_when(site: LabSite, node: str, condition: str) -> Run:
    """Run bootstrap and kill its process at the moment at which a condition holds on a node."""
    run = site.flow("bootstrap")
    deadline = time.monotonic() + 600
    while not site.holds(node, condition):
        assert run.alive, f"it ended before: {run.log()}"
        assert time.monotonic() < deadline, "the moment never came"
    os.kill(run.pid, signal.SIGKILL)
    while run.alive:
        time.sleep(0.01)
    assert run.killed()
    return run


@pytest.fixture(scope="module", autouse=True)
def bare(standing_lab: Lab) -> None:
    """Begin with two hosts that have nothing."""
    standing_lab.heal()
    standing_lab.recreate("node-a", "node-b")
    standing_lab.empty_shared()


@pytest.mark.timeout(1200)
@pytest.mark.faults
def test_killed_again_and_again_on_the_way_it_still_ends_as_one_site(lab_site: LabSite) -> None:
    # On the other node apt goes on, and the next run has to wait for it.
    for node, package in (("node-b", "postgresql-15"), ("node-a", "docker.io")):
        killed_when(lab_site, node, BEGUN.format(package))
        lab_site.lab.stop(node)
        lab_site.lab.start(node)
        assert lab_site.shell(node, f"dpkg --audit {package}"), "the power was cut too late"
        print(f"killed, and the power of {node} cut, while {package} is installed")
    for moment, node, condition in MOMENTS:
        if moment == LOADING:
            # Where the engine is quick they are loaded by now, beside the pair that was killed twice.
            lab_site.shell(node, "docker images --quiet | sort -u | xargs -r docker rmi --force")
        killed_when(lab_site, node, condition)
        print(f"killed {moment}")

    secretkeys = {lab_site.shell(node, f"cat {SECRETKEY}") for node in ("node-a", "node-b")}
    identifiers = {lab_site.shell(node, f"cat {RECORD}") for node in ("node-a", "node-b")}
    assert len(secretkeys) == 1
    assert len(identifiers) == 1

    run = lab_site.bootstrap()

    assert run.result["changed"] > 0
    assert {lab_site.shell(node, f"cat {SECRETKEY}") for node in ("node-a", "node-b")} == secretkeys
    assert {lab_site.shell(node, f"cat {RECORD}") for node in ("node-a", "node-b")} == identifiers


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_killed_after_every_single_step_it_still_ends_as_one_site(
    lab_site: LabSite, fresh_nodes: Callable[..., None]
) -> None:
    """Run k is killed after its k-th step, until one comes to its end; each finds what those before it left."""
    fresh_nodes("node-a", "node-b")
    steps = 0
    while True:
        steps += 1
        run = lab_site.flow("bootstrap", accident={"after": steps}).wait(600)
        if not run.killed():
            break
    assert steps > 40, run.log()
    assert run.result["changed"] == 0, run.result["report"]
    assert len({lab_site.shell(node, f"cat {SECRETKEY} {RECORD}") for node in ("node-a", "node-b")}) == 1
    test_there_is_one_database_and_the_standby_follows_it(lab_site)


def test_there_is_one_database_and_the_standby_follows_it(site: LabSite) -> None:
    (row,) = execute(
        site.site,
        site.host("node-a"),
        "SELECT state, client_addr FROM pg_stat_replication",
        database="postgres",
    )
    assert row == ["streaming", site.site.node("node-b").address]
    for node in ("node-a", "node-b"):
        clusters = site.shell(node, "find / -xdev -name PG_VERSION -path '*/data/*' -not -path '*/base/*'")
        whole = [path for path in clusters.splitlines() if re.search(r"/pgsql/data/PG_VERSION$", path)]
        assert whole == ["/data/pgsql/data/PG_VERSION"], clusters


def test_a_second_run_changes_nothing_and_takes_seconds(site: LabSite) -> None:
    def attempt() -> float:
        # Within the attempt: when both were slow, Docker is timed with a restart of the cores, which is a change.
        before = {node: site.configuration(node) for node in ("node-a", "node-b")}
        run = site.bootstrap()
        assert run.result["changed"] == 0, run.result["report"]
        assert "nothing was changed" in run.headline
        assert {node: site.configuration(node) for node in ("node-a", "node-b")} == before
        return run.seconds

    best_of_two(15.0, attempt, site.shell)


def test_a_dry_run_on_a_site_that_stands_shows_the_steps_and_runs_none(site: LabSite) -> None:
    run = site.bootstrap(dry_run=True)
    assert run.headline == f"Would bring up {site.name}: primary node-a, standby node-b."
    assert "would run" in run.result["report"]
    assert run.result["changed"] == 0


def test_an_image_goes_in_through_the_balancer_and_out_through_each_node_and_is_on_the_standby(
    site: LabSite,
) -> None:
    image, repository = make_image(f"bootstrap {time.time()}".encode()), "bootstrap-test/image"
    with HarborApi(through_balancer(site.site)) as api:
        api.ensure_project("bootstrap-test")
    with Registry(through_balancer(site.site)) as registry:
        registry.push(repository, "latest", image)
    for node in ("node-a", "node-b"):
        with Registry(through_node(site.site, node)) as registry:
            assert registry.pull(repository, image.digest) == image

    rows = execute(
        site.site,
        site.host("node-b"),
        "SELECT count(*) FROM artifact WHERE digest = :'digest'",
        database=site.site.postgres.database,
        digest=image.digest,
    )
    assert rows == [["1"]]


def test_a_run_finds_what_a_stranger_broke_and_repairs_only_that(site: LabSite) -> None:
    settings = f"/etc/postgresql/{site.site.postgres.major}/main/conf.d/10-harbor-ha.conf"
    site.shell("node-b", f"docker rm -f harbor-jobservice; rm {settings}")

    run = site.bootstrap()

    did = {record["title"]: record["nodes"] for record in run.records() if record["changed"]}
    # The balancer may have seen that the node was ill, and then serves it again.
    did.pop("Serve the node through the load balancer", None)
    steps = ("Configure PostgreSQL", "Start PostgreSQL", "Start Harbor")
    assert did == {title: ["node-b"] for title in steps}


def test_a_jobservice_that_is_older_than_its_core_is_seen_and_restarted(site: LabSite) -> None:
    home = site.site.harbor.install_dir
    site.shell("node-b", f"cd {home} && docker-compose up -d --no-deps --force-recreate --timeout 1 core")
    assert jobs_behind(site) == ["node-b"]

    run = site.bootstrap()

    (did,) = [record for record in run.records() if record["changed"] and record["title"] == "Start Harbor"]
    assert "harbor-jobservice restarted" in did["detail"]
    assert jobs_behind(site) == []


def jobs_behind(site: LabSite) -> list[str]:
    return [
        node.name for node in look(site.site).every if node.harbor is not None and node.harbor.jobs_behind
    ]


def test_a_core_that_came_back_under_another_address_is_found_again(site: LabSite) -> None:
    """nginx resolves core once; it answered 502 or 404 while every container was healthy, for good."""
    # The engine gives the lowest free address: the one that is started first gets the other's.
    both = ["harbor-core", "registryctl"]
    address = "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "
    both.sort(key=lambda name: ip_address(site.shell("node-b", address + name)), reverse=True)
    site.shell("node-b", f"docker stop -t 1 {' '.join(both)}; docker start {both[0]}; docker start {both[1]}")
    status = "curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1/api/v2.0/ping"
    core = "docker inspect -f '{{.State.Health.Status}}' harbor-core"
    wait_for(lambda: site.shell("node-b", core) == "healthy", 60.0, "core is not healthy")
    assert site.shell("node-b", status) != "200", "the accident did not happen"

    run = site.bootstrap()

    did = [record for record in run.records() if record["changed"] and record["title"] == "Start Harbor"]
    assert [record["detail"] for record in did] == ["nginx reloaded"]
    assert site.shell("node-b", status) == "200"


@pytest.fixture
def another_secretkey(site: LabSite) -> Iterator[str]:
    """Another secretkey on node-b, for as long as the test takes."""
    site.shell("node-b", f"cp -p {SECRETKEY} {SECRETKEY}.kept; echo another-secret16 > {SECRETKEY}")
    yield "another-secret16"
    site.shell("node-b", f"mv {SECRETKEY}.kept {SECRETKEY}")


def test_nodes_with_different_secretkeys_are_refused_and_neither_is_overwritten(
    site: LabSite, another_secretkey: str
) -> None:
    before = {node: site.configuration(node) for node in ("node-a", "node-b")}

    run = site.bootstrap()

    assert "node-a and node-b hold different secretkeys of Harbor" in run.refusal
    assert another_secretkey not in run.refusal
    assert {node: site.configuration(node) for node in ("node-a", "node-b")} == before
