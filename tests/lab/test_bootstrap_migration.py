"""A Harbor that ran with its own database container becomes a site, with everything that was in it."""

import time
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

# `make test` takes a bundled Harbor over by `adopt`, which shares the steps.
pytestmark = pytest.mark.faults

OLD = make_image(b"pushed before there was a pair")
REPOSITORY = "library/old"
_COUNT = "SELECT count(*) FROM artifact WHERE digest = :'digest'"


@pytest.fixture(scope="module", autouse=True)
def bare(standing_lab: Lab) -> None:
    standing_lab.heal()
    standing_lab.recreate("node-a", "node-b")
    standing_lab.empty_shared()


@pytest.fixture
def document(lab_site: LabSite) -> dict[str, Any]:
    """The lab's site file, which asks for the take-over."""
    document = lab_site.document()
    document["harbor"]["migrate_from_bundled"] = True
    return document


@pytest.fixture(scope="module")
def installed() -> list[str]:
    """Remembers that the old Harbor stands."""
    return []


@pytest.fixture
def old_harbor(lab_site: LabSite, installed: list[str]) -> LabSite:
    """Harbor on node-a as its own installer makes it, with one image whose data lies on the NAS already."""
    if not installed:
        _install(lab_site)
        installed.append("node-a")
    return lab_site


def _install(site: LabSite) -> None:
    harbor, host = site.site.harbor, site.host("node-a")
    engine.install(site.site, host)
    host.upload(Path(harbor.installer), "/root/harbor.tgz", timeout=120)
    site.shell(
        "node-a", "mkdir -p /opt/harbor && tar -C /opt/harbor -xzf /root/harbor.tgz --strip-components=1"
    )
    site.shell(
        "node-a", "mkdir -p /mnt/nas/registry /data/harbor/registry && chown 10000:10000 /mnt/nas/registry"
    )
    site.shell("node-a", "mount --bind /mnt/nas/registry /data/harbor/registry")
    host.put("/etc/harbor.pem", harbor.certificate)
    host.put("/etc/harbor.key", harbor.certificate_key.get_secret_value(), mode=0o600)
    settings = yaml.safe_load(site.shell("node-a", "cat /opt/harbor/harbor.yml.tmpl"))
    settings |= {
        "hostname": harbor.hostname,
        "harbor_admin_password": harbor.admin_password.get_secret_value(),
        "data_volume": "/data/harbor",
        "https": {"port": 443, "certificate": "/etc/harbor.pem", "private_key": "/etc/harbor.key"},
    }
    host.put("/opt/harbor/harbor.yml", yaml.safe_dump(settings), mode=0o600)
    site.shell("node-a", "cd /opt/harbor && ./install.sh", timeout=300)
    _push(site)


def _push(site: LabSite) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            with Registry(through_node(site.site, "node-a")) as registry:
                registry.push(REPOSITORY, "v1", OLD)
            return
        except (HarborRefused, HarborUnreachable):
            assert time.monotonic() < deadline, "the old Harbor takes no push"
            time.sleep(0.5)


def test_a_harbor_with_data_of_its_own_is_not_switched_to_an_empty_pair(
    old_harbor: LabSite, tmp_path: Path
) -> None:
    before = old_harbor.everything("node-b")
    said = old_harbor.variant(old_harbor.document(), tmp_path).refusal
    assert "node-a: there is a Harbor of its own with data in /data/harbor/database" in said
    assert "set harbor.migrate_from_bundled to take the data over" in said
    assert old_harbor.everything("node-b") == before
    _push(old_harbor)


@pytest.mark.timeout(900)
def test_its_data_is_in_the_pair_afterwards_row_by_row_and_its_images_can_be_pulled(
    old_harbor: LabSite, document: dict[str, Any], tmp_path: Path
) -> None:
    secretkey = old_harbor.shell("node-a", "cat /data/harbor/secret/keys/secretkey")

    run = old_harbor.variant(document, tmp_path)

    assert "taken over from the bundled database on node-a" in run.result["report"]
    (moved,) = [step for step in run.records() if step["title"] == "Take over the bundled database"]
    assert moved["detail"].startswith("copied and compared registry: ")
    site = old_harbor.site
    for node in ("node-a", "node-b"):
        rows = execute(site, old_harbor.host(node), _COUNT, database="registry", digest=OLD.digest)
        assert rows == [["1"]], node
        with Registry(through_node(site, node)) as registry:
            assert registry.pull(REPOSITORY, "v1") == OLD
        assert old_harbor.shell(node, "cat /data/harbor/secret/keys/secretkey") == secretkey
        assert not old_harbor.holds(node, "docker ps --format '{{.Names}}' | grep -x harbor-db")
    with Registry(through_balancer(site)) as registry:
        registry.push(REPOSITORY, "v2", make_image(b"pushed into the pair"))


def test_the_next_run_neither_takes_over_again_nor_complains_of_the_old_directory(
    old_harbor: LabSite, document: dict[str, Any], tmp_path: Path
) -> None:
    assert old_harbor.holds("node-a", "test -e /data/harbor/database")
    run = old_harbor.variant(document, tmp_path)
    assert run.result["changed"] == 0, run.result["report"]
    assert old_harbor.variant(old_harbor.document(), tmp_path).result["changed"] == 0
