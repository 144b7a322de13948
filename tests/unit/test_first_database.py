"""What bootstrap creates in an empty server is all that this Harbor asks for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks import HarborSite
from tasks.postgres.cluster import create_roles
from tests.unit.harbor_site import NodeInDirectory, make_site
from tests.unit.local_postgres import programs, running_postgres

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeInDirectory]:
    with running_postgres() as running:
        monkeypatch.setenv("PATH", f"{programs()}:/usr/sbin:/usr/bin:/bin")
        monkeypatch.setenv("PGHOST", running.sockets)
        monkeypatch.setenv("PGPORT", "5999")
        yield NodeInDirectory("node-a", tmp_path / "state")


@pytest.fixture
def site_of(tmp_path: Path) -> Callable[..., HarborSite]:
    def made(version: str, *components: str) -> HarborSite:
        site = make_site(tmp_path, version=version)
        site.harbor.components = list(components)
        site.postgres.port, site.postgres.database = 5999, "harbor_data"
        return site

    return made


def databases(node: NodeInDirectory) -> dict[str, str]:
    """The databases with their owners."""
    argv = ["psql", "-XAtq", "-F", " ", "-p", "5999", "-d", "postgres"]
    query = "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE NOT datistemplate;"
    said = node.run(argv, stdin=query, user="postgres").stdout
    return dict(line.split(" ") for line in said.splitlines())


def test_notary_finds_its_two_databases(node: NodeInDirectory, site_of: Callable[..., HarborSite]) -> None:
    site = site_of("v2.3.2", "notary")
    assert create_roles(site, node.as_host()).changed
    owner = site.postgres.application.user
    found = databases(node)
    assert {name: found.get(name) for name in ("harbor_data", "notaryserver", "notarysigner")} == {
        "harbor_data": owner,
        "notaryserver": owner,
        "notarysigner": owner,
    }
    assert not create_roles(site, node.as_host()).changed


def test_without_notary_there_is_harbors_database_alone(
    node: NodeInDirectory, site_of: Callable[..., HarborSite]
) -> None:
    assert create_roles(site_of("v2.3.2"), node.as_host()).changed
    assert "harbor_data" in databases(node)
    assert "notaryserver" not in databases(node)
