"""A Harbor as people have it becomes a site, killed on the way, and can be put back."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.site_lab import Lab
from tasks.docker import engine
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import HarborRefused, HarborUnreachable, through_balancer, through_node
from tasks.postgres.sql import execute
from tests.lab.site import LabSite

HOME, VOLUME = "/usr/local/harbor", "/data"
OLD = make_image(b"pushed two years ago")
REPOSITORY = "library/old"
BLOBS = 3000
PUT_BACK = "/var/lib/harbor-ha/adopted/put-back"
API = "curl -sfk -u admin:{password} -H 'Content-Type: application/json' https://127.0.0.1/api/v2.0{path} {more}"
# As a registry has them: orphans to the database, and to be copied all the same.
MAKE_BLOBS = f"""
import hashlib, os
base = "{VOLUME}/registry/docker/registry/v2/blobs/sha256/"
for number in range({BLOBS}):
    data = os.urandom(200) * (1 + number % 50)
    name = hashlib.sha256(data).hexdigest()
    os.makedirs(base + name[:2] + "/" + name)
    open(base + name[:2] + "/" + name + "/data", "wb").write(data)
"""
DIGESTS = "cd {}/docker/registry/v2/blobs/sha256 && find . -name data -exec sha256sum {{}} + | sort"
ROWS = (
    "SELECT string_agg(t || ':' || (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || t, false, true,"
    " '')))[1]::text, ',' ORDER BY t) FROM (SELECT relname::text AS t FROM pg_stat_user_tables) AS tables"
)


@pytest.fixture(scope="module", autouse=True)
def bare(standing_lab: Lab) -> Iterator[None]:
    """Bare nodes, before and after: whoever finds the old Harbor put back takes it for the site's, and waits."""
    standing_lab.heal()
    standing_lab.recreate("node-a", "node-b")
    standing_lab.empty_shared()
    yield
    standing_lab.recreate("node-a", "node-b")
    standing_lab.empty_shared()


def api(site: LabSite, path: str, more: str = "") -> str:
    """Call the API of node-a's Harbor as the administrator."""
    password = site.site.harbor.admin_password.get_secret_value()
    return site.shell("node-a", API.format(password=password, path=path, more=more))


def old_rows(site: LabSite, query: str) -> str:
    """Ask the bundled database."""
    return site.shell("node-a", f'docker exec harbor-db psql -U postgres -XAtq -d registry -c "{query}"')


def install(site: LabSite, **more: Any) -> None:
    """Install Harbor as people do: another directory, data_volume as it comes, its own database unless told more."""
    harbor, host = site.site.harbor, site.host("node-a")
    engine.install(site.site, host)
    host.upload(Path(harbor.installer), "/root/harbor.tgz", timeout=120)
    site.shell("node-a", f"mkdir -p {HOME} && tar -C {HOME} -xzf /root/harbor.tgz --strip-components=1")
    host.put("/etc/harbor.pem", harbor.certificate)
    host.put("/etc/harbor.key", harbor.certificate_key.get_secret_value(), mode=0o600)
    settings = yaml.safe_load(site.shell("node-a", f"cat {HOME}/harbor.yml.tmpl"))
    assert settings["data_volume"] == VOLUME
    settings |= {
        "hostname": harbor.hostname,
        "harbor_admin_password": harbor.admin_password.get_secret_value(),
        "https": {"port": 443, "certificate": "/etc/harbor.pem", "private_key": "/etc/harbor.key"},
        **more,
    }
    host.put(f"{HOME}/harbor.yml", yaml.safe_dump(settings), mode=0o600)
    site.shell("node-a", f"cd {HOME} && ./install.sh", timeout=300)
    deadline = time.monotonic() + 90
    while True:
        try:
            with Registry(through_node(site.site, "node-a")) as registry:
                registry.push(REPOSITORY, "v1", OLD)
            break
        except (HarborRefused, HarborUnreachable):
            assert time.monotonic() < deadline, "the old Harbor takes no push"
            time.sleep(0.5)


def use(site: LabSite) -> None:
    """Give it what two years give: blobs, a robot, an endpoint with a credential, a policy."""
    site.lab.exec("node-a", ["python3", "-"], stdin=MAKE_BLOBS, timeout=120)
    site.shell("node-a", f"chown -R 10000:10000 {VOLUME}/registry")
    robot = {"name": "ci", "level": "system", "secret": "Robot-secret-1"}
    api(site, "/robots", f"-d '{json.dumps(robot)}'")
    endpoint = {
        "name": "remote",
        "type": "harbor",
        "url": "https://remote.example.com",
        "credential": {"access_key": "copier", "access_secret": "Remote-secret-1", "type": "basic"},
    }
    api(site, "/registries", f"-d '{json.dumps(endpoint)}'")
    old_rows(site, "INSERT INTO replication_policy (name, dest_registry_id) VALUES ('nightly', 1)")
    user = {"username": "anna", "password": "Anna-secret-1", "email": "anna@example.com", "realname": "Anna"}
    api(site, "/users", f"-d '{json.dumps(user)}'")


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """What the old Harbor held, for the tests that follow."""
    return {}


@pytest.fixture
def old(lab_site: LabSite, before: dict[str, str]) -> LabSite:
    if not before:
        install(lab_site)
        use(lab_site)
        before["secretkey"] = lab_site.shell("node-a", f"cat {VOLUME}/secret/keys/secretkey")
        before["blobs"] = lab_site.shell("node-a", DIGESTS.format(f"{VOLUME}/registry"))
        before["files"] = files(lab_site)
    return lab_site


def files(site: LabSite) -> str:
    """Hash what adoption must leave alone: the old directory, its secrets and its images."""
    return site.shell(
        "node-a",
        f"find {HOME} {VOLUME}/secret {VOLUME}/registry -type f -exec sha256sum {{}} + | sort | sha256sum",
        timeout=120,
    )


def test_bootstrap_refuses_and_names_the_flow_that_takes_it_over(old: LabSite) -> None:
    run = old.bootstrap()
    assert f"is installed in {HOME}" in run.refusal
    assert "run `adopt`" in run.refusal


def test_the_dry_run_says_what_it_found_and_changes_nothing(old: LabSite, before: dict[str, str]) -> None:
    standing = old.everything("node-b")
    run = old.flow("adopt", dry_run=True).wait(120)
    report = run.result["report"]
    print(report)
    for word in (
        f"in {HOME} on node-a",
        "out of harbor-db into the pair",
        f"{BLOBS // 1000},0",
        "read-only (pulls",
    ):
        assert word in report
    assert files(old) == before["files"]
    assert old.everything("node-b") == standing


@pytest.mark.timeout(1800)
def test_killed_on_the_way_and_run_again_it_is_a_site_with_everything_that_was_in_it(
    old: LabSite, before: dict[str, str]
) -> None:
    for title in ("Copy the images while the old Harbor serves", "Stop what writes in the old Harbor"):
        killed = old.flow("adopt", accident={"title": title}).wait(900)
        assert killed.killed(), killed.log()
        assert "run `adopt`" in old.bootstrap().refusal
    rows = old_rows(old, ROWS)

    run = old.flow("adopt").wait(900)

    report = run.result["report"]
    print(report)
    assert PUT_BACK in report
    (moved,) = [step for step in run.records() if step["title"] == "Take over the bundled database"]
    assert moved["detail"].startswith("copied and compared registry: ")
    assert rows.count(":") > 20
    site = old.site
    copied = old.shell("node-a", DIGESTS.format(site.nas.registry), timeout=120)
    assert set(before["blobs"].splitlines()) <= set(copied.splitlines())
    for node in ("node-a", "node-b"):
        with Registry(through_node(site, node)) as registry:
            assert registry.pull(REPOSITORY, "v1") == OLD
        key = f"{site.harbor.data_volume}/secret/keys/secretkey"
        assert old.shell(node, f"cat {key}") == before["secretkey"]
        for user, password in (("robot$ci", "Robot-secret-1"), ("anna", "Anna-secret-1")):
            with Registry(replace(through_node(site, node), user=user, password=password)) as registry:
                assert registry.pull(REPOSITORY, "v1") == OLD
        assert old.holds(node, "! docker ps --format '{{.Names}}' | grep -x harbor-db")
    with Registry(through_balancer(site)) as registry:
        registry.push(REPOSITORY, "v2", make_image(b"pushed into the pair"))
    query = (
        "SELECT p.name, r.name, r.id FROM replication_policy p JOIN registry r ON r.id = p.dest_registry_id"
    )
    ((policy, endpoint, number),) = execute(site, old.host("node-b"), query, database="registry")
    assert (policy, endpoint) == ("nightly", "remote")
    # Its credential is decrypted by secretkey.
    api(old, "/registries/ping", f"""-d '{{"id": {number}}}'""")
    assert files(old) == before["files"], "nothing of the old Harbor may be changed"


@pytest.mark.timeout(600)
def test_bootstrap_goes_on_from_there_and_changes_nothing(old: LabSite) -> None:
    run = old.bootstrap()
    assert run.result["changed"] == 0, run.result["report"]


@pytest.mark.timeout(600)
def test_one_command_puts_the_old_harbor_back_as_it_was(old: LabSite) -> None:
    old.shell("node-a", PUT_BACK, timeout=300)
    deadline = time.monotonic() + 90
    while True:
        try:
            with Registry(through_node(old.site, "node-a")) as registry:
                assert registry.pull(REPOSITORY, "v1") == OLD
                registry.push("library/after", "v1", make_image(b"it takes pushes"))
            break
        except (HarborRefused, HarborUnreachable):
            assert time.monotonic() < deadline, "the old Harbor does not serve"
            time.sleep(0.5)
    assert old.holds("node-a", "docker ps --format '{{.Names}}' | grep -x harbor-db")
    again = old.flow("adopt").wait(120)
    assert "was put back after an adoption" in again.refusal
