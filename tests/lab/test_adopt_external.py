"""A Harbor whose database is on a server elsewhere becomes a site, and its server stays as it was."""

import time
from collections.abc import Iterator

import pytest

from lab.site_lab import Lab
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import HarborRefused, HarborUnreachable, through_balancer, through_node
from tasks.postgres.sql import execute
from tests.lab.site import LabSite
from tests.lab.test_adopt import HOME, OLD, PUT_BACK, REPOSITORY, ROWS, files, install

# `test_adopt.py` stands for it in `make test`; this is one of the exhaustive ones, `make test-faults`.
pytestmark = pytest.mark.faults
PASSWORD = "Elsewhere.secret-1"
STEP = "Take over the external database"
# As Debian installs a server: TLS with a certificate of its own making.
SERVER = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq postgresql > /dev/null
conf=$(echo /etc/postgresql/*/main)
echo "listen_addresses = '*'" > $conf/conf.d/lab.conf
echo "hostssl harbor_prod harbor all scram-sha-256" >> $conf/pg_hba.conf
systemctl restart postgresql
runuser -u postgres -- psql -qc "CREATE ROLE harbor LOGIN PASSWORD '{PASSWORD}'"
runuser -u postgres -- createdb -O harbor harbor_prod
"""


@pytest.fixture(scope="module", autouse=True)
def bare(standing_lab: Lab) -> Iterator[None]:
    """Bare nodes, before and after; the third one is the server that somebody else runs."""
    nodes = ("node-a", "node-b", "node-c")
    standing_lab.heal()
    standing_lab.recreate(*nodes)
    standing_lab.empty_shared()
    yield
    standing_lab.recreate(*nodes)
    standing_lab.empty_shared()


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """What the old Harbor held, for the tests that follow."""
    return {}


@pytest.fixture
def old(lab_site: LabSite, before: dict[str, str]) -> LabSite:
    if not before:
        lab_site.shell("node-c", SERVER, timeout=600)
        section = {
            "host": lab_site.lab.node_address("node-c"),
            "port": 5432,
            "db_name": "harbor_prod",
            "username": "harbor",
            "password": PASSWORD,
            "ssl_mode": "require",
            "max_idle_conns": 2,
            "max_open_conns": 20,
        }
        install(lab_site, external_database={"harbor": section})
        before["files"] = files(lab_site)
    return lab_site


def elsewhere(site: LabSite, query: str) -> str:
    """Ask the external server as its superuser."""
    return site.shell("node-c", f'runuser -u postgres -- psql -XAtq -d harbor_prod -c "{query}"')


def serves(site: LabSite, node: str) -> None:
    """Wait until a node's Harbor gives out the old image and takes a push."""
    deadline = time.monotonic() + 90
    while True:
        try:
            with Registry(through_node(site.site, node)) as registry:
                assert registry.pull(REPOSITORY, "v1") == OLD
                registry.push("library/after", "v1", make_image(b"it takes pushes"))
            return
        except (HarborRefused, HarborUnreachable):
            assert time.monotonic() < deadline, f"the Harbor of {node} does not serve"
            time.sleep(0.5)


def test_a_server_that_it_may_not_dump_is_refused_before_the_first_change(
    old: LabSite, before: dict[str, str]
) -> None:
    standing = old.everything("node-b")
    elsewhere(old, "CREATE TABLE hidden (x int)")
    said = old.flow("adopt").wait(120).refusal
    assert "harbor may not read all of public.hidden" in said
    elsewhere(old, "DROP TABLE hidden")
    old.shell("node-c", "systemctl stop postgresql")
    said = old.flow("adopt").wait(120).refusal
    assert "cannot be asked from node-a: Connection refused" in said
    old.shell("node-c", "systemctl start postgresql")
    assert PASSWORD not in said
    assert files(old) == before["files"]
    assert old.everything("node-b") == standing
    serves(old, "node-a")
    before["files"] = files(old)


def test_the_dry_run_names_the_server_and_what_is_done_with_it(old: LabSite) -> None:
    report = old.flow("adopt", dry_run=True).wait(120).result["report"]
    print(report)
    assert f"harbor_prod of harbor at {old.lab.node_address('node-c')}:5432 (TLS require" in report
    assert "stays as it is" in report
    assert PASSWORD not in report


@pytest.mark.timeout(1800)
def test_killed_on_the_way_and_run_again_every_row_is_in_the_pair_and_the_server_is_as_it_was(
    old: LabSite, before: dict[str, str]
) -> None:
    for title in ("Stop what writes in the old Harbor", STEP):
        killed = old.flow("adopt", accident={"title": title}).wait(900)
        assert killed.killed(), killed.log()
    rows = elsewhere(old, ROWS)

    run = old.flow("adopt").wait(900)

    print(run.result["report"])
    assert elsewhere(old, ROWS) == rows, "nothing of the external server may be changed"
    assert PASSWORD not in run.log()
    for node in ("node-a", "node-b"):
        with Registry(through_node(old.site, node)) as registry:
            assert registry.pull(REPOSITORY, "v1") == OLD
    with Registry(through_balancer(old.site)) as registry:
        registry.push(REPOSITORY, "v2", make_image(b"pushed into the pair"))
    (owners,) = execute(
        old.site,
        old.host("node-a"),
        "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'",
        database=old.site.postgres.database,
    )
    assert owners == [old.site.postgres.application.user]
    assert files(old) == before["files"], "nothing of the old Harbor may be changed"
    modes = old.shell("node-a", "stat -c '%a %U' /var/lib/harbor-ha/adopted/database.*")
    assert set(modes.splitlines()) == {"600 root"}


@pytest.mark.timeout(600)
def test_put_back_it_runs_against_its_own_server_again(old: LabSite) -> None:
    old.shell("node-a", PUT_BACK, timeout=300)
    serves(old, "node-a")
    assert old.holds("node-a", "! docker ps --format '{{.Names}}' | grep -x harbor-db")
    assert elsewhere(old, "SELECT v FROM properties WHERE k = 'read_only'") in ("false", "")


@pytest.mark.timeout(1800)
def test_after_a_put_back_it_is_adopted_again_on_the_same_nodes_and_the_first_copy_is_kept(
    old: LabSite,
) -> None:
    assert "run `adopt` with set_aside" in old.flow("adopt").wait(120).refusal
    dry = old.flow("adopt", dry_run=True, set_aside=True).wait(120).result["report"]
    assert "is renamed to" in dry

    run = old.flow("adopt", set_aside=True).wait(900)

    print(run.result["report"])
    names = execute(old.site, old.host("node-a"), "SELECT datname FROM pg_database ORDER BY 1")
    (aside,) = [name for (name,) in names if "_aside_" in name]
    tags = "SELECT count(*) FROM tag WHERE name = 'v2'"
    assert execute(old.site, old.host("node-a"), tags, database=aside) == [["1"]]
    for node in ("node-a", "node-b"):
        with Registry(through_node(old.site, node)) as registry:
            assert registry.pull("library/after", "v1") == make_image(b"it takes pushes")
    assert HOME in run.result["report"]
