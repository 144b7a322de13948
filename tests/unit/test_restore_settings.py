"""What an operator keeps in harbor.yml and in the override comes back with the site."""

from pathlib import Path

import pytest
import yaml

from blocks import HarborSite
from tasks.backup.restore import recovery
from tasks.backup.restore.restore_config import Configuration
from tasks.backup.restore.restore_settings import put_back_settings
from tasks.harbor import prepare
from tests.unit.harbor_site import NodeInDirectory, make_site

pytestmark = pytest.mark.servers
TEMPLATE = Path(__file__).parent / "harbor_templates" / "v2.13.yml"
OPERATORS = """
proxy:
  http_proxy: http://10.20.0.99:3128   # 公司代理
  no_proxy: 10.0.0.0/8
metric: {enabled: true, port: 9191, path: /metrics}
"""
OVERRIDE = "services:\n  core:\n    extra_hosts: ['ldap.example.com:10.20.0.77']  # ours\n"


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    home = tmp_path / "harbor"
    home.mkdir()
    (home / "harbor.yml.tmpl").write_text(TEMPLATE.read_text())
    return make_site(tmp_path, version="v2.13.2", install_dir=str(home))


@pytest.fixture
def node(tmp_path: Path) -> NodeInDirectory:
    return NodeInDirectory("node-a", tmp_path / "state")


def saved(tmp_path: Path, harbor_yml: str, override: str = OVERRIDE) -> Configuration:
    return Configuration(
        {
            "/srv/old/harbor.yml": harbor_yml.encode(),
            "/srv/old/docker-compose.override.yml": override.encode(),
            f"{tmp_path}/ca/uaa.crt": b"a certificate",
        }
    )


def settled(site: HarborSite, node: NodeInDirectory) -> str:
    prepare.configure(site, node.as_host(), database_host="10.20.0.12")
    return (Path(site.harbor.install_dir) / "harbor.yml").read_text()


def test_the_operators_settings_stay_and_the_sites_are_written_into_them(
    site: HarborSite, node: NodeInDirectory, tmp_path: Path
) -> None:
    text = TEMPLATE.read_text() + OPERATORS + f"uaa:\n  ca_file: {tmp_path}/ca/uaa.crt\n"
    outcome = put_back_settings(site, node.as_host(), saved(tmp_path, text))
    assert outcome.changed
    found = settled(site, node)
    assert "# 公司代理" in found
    document = yaml.safe_load(found)
    assert document["metric"]["port"] == 9191
    assert document["external_database"]["harbor"]["host"] == "10.20.0.12"
    assert (tmp_path / "ca/uaa.crt").read_bytes() == b"a certificate"
    assert "ldap.example.com" in (Path(site.harbor.install_dir) / "docker-compose.override.yml").read_text()
    assert not put_back_settings(site, node.as_host(), saved(tmp_path, text)).changed


def test_what_stands_on_the_node_already_is_not_replaced(
    site: HarborSite, node: NodeInDirectory, tmp_path: Path
) -> None:
    before = settled(site, node)
    put_back_settings(site, node.as_host(), saved(tmp_path, TEMPLATE.read_text() + OPERATORS))
    assert (Path(site.harbor.install_dir) / "harbor.yml").read_text() == before


@pytest.mark.parametrize("broken", ["hostname: [", "hostname: a\nhostname: b\n"])
def test_settings_that_cannot_be_used_do_not_stop_a_restore_and_are_told(
    broken: str, site: HarborSite, node: NodeInDirectory, tmp_path: Path
) -> None:
    outcome = put_back_settings(site, node.as_host(), saved(tmp_path, broken, "services: [a]\n"))
    assert not outcome.changed
    assert "not taken from the backup: harbor.yml: " in outcome.detail
    assert "the override: " in outcome.detail
    assert yaml.safe_load(settled(site, node))["hostname"] == site.harbor.hostname


def test_no_settings_are_taken_from_a_backup_that_nobody_vouches_for(
    site: HarborSite, node: NodeInDirectory
) -> None:
    backup = "20261122T030405Z-abcdef"
    outcome = recovery.restore_settings(site, node.as_host(), backup=backup, accept_unsigned=True)
    assert not outcome.changed
    assert node.calls == []
