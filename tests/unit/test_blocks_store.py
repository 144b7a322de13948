"""Sites are kept in Prefect and found without it."""

import json
import logging
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import HarborSite, PostgresPair, SiteUnknown, SshHost, load_site, save_site
from blocks.site_file import read_site_file
from blocks.store import copy_path, forget, read_copy, remember, site_as_data, write_copy
from tests.unit.site_on_disk import NOW, correct_site

NOBODY_LISTENS = "http://127.0.0.1:9/api"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    forget()
    yield tmp_path / "home"
    forget()


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)


@pytest.mark.servers
class TestWithPrefect:
    """Against a real server."""

    def test_a_saved_site_comes_back_with_its_secrets(self, prefect_server: str, site: HarborSite) -> None:
        save_site(site)
        forget()
        copy_path(site.name).unlink()
        loaded = load_site("example")
        assert site_as_data(loaded) == site_as_data(site)

    def test_saving_twice_leaves_the_second_state(self, prefect_server: str, site: HarborSite) -> None:
        save_site(site)
        site.redis.port = 6380
        site.nodes.pop()
        save_site(site)
        forget()
        loaded = load_site("example")
        assert loaded.redis.port == 6380
        assert len(loaded.nodes) == 1

    def test_a_node_that_has_left_the_site_leaves_no_key_behind(
        self, prefect_server: str, site: HarborSite
    ) -> None:
        save_site(site)
        other = site.model_copy(update={"name": "other"})
        save_site(other)
        site.nodes.pop()
        save_site(site)
        found = httpx.post(f"{prefect_server}/block_documents/filter", json={}, timeout=30).json()
        names = {document["name"] for document in found}
        assert "example-node-a" in names
        assert "example-node-b" not in names
        assert "other-node-b" in names

    def test_an_edit_of_a_part_in_the_ui_takes_effect(self, prefect_server: str, site: HarborSite) -> None:
        save_site(site)
        part = PostgresPair.load("example-postgres")
        assert isinstance(part, PostgresPair)
        part.durability = "required"
        part.save("example-postgres", overwrite=True)
        forget()
        assert load_site("example").postgres.durability == "required"

    def test_an_edit_of_a_node_in_the_ui_takes_effect(self, prefect_server: str, site: HarborSite) -> None:
        save_site(site)
        node = SshHost.load("example-node-b")
        assert isinstance(node, SshHost)
        node.address = "10.20.0.99"
        node.save("example-node-b", overwrite=True)
        forget()
        assert load_site("example").node("node-b").address == "10.20.0.99"

    def test_secrets_are_hidden_from_who_does_not_ask_for_them(
        self, prefect_server: str, site: HarborSite
    ) -> None:
        save_site(site)
        answer = httpx.post(f"{prefect_server}/block_documents/filter", json={}, timeout=30).text
        assert "10.20.0.11" in answer
        for secret in ("Harbor-secret.1", "Redis-secret.1", "Oss-secret-1", "Harbor12345", "PRIVATE KEY"):
            assert secret not in answer

    def test_a_site_that_prefect_does_not_know_is_unknown_even_with_a_copy(
        self, prefect_server: str, site: HarborSite
    ) -> None:
        site.name = "removed"
        write_copy(site)
        with pytest.raises(SiteUnknown, match="harbor-ha apply"):
            load_site("removed")


class TestWithoutPrefect:
    """The server is down, as it may be in the night of a failover."""

    @pytest.fixture(autouse=True)
    def down(self) -> Iterator[None]:
        with temporary_settings({PREFECT_API_URL: NOBODY_LISTENS}):
            yield

    def test_the_copy_is_used_quickly_and_with_a_warning(
        self, site: HarborSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_copy(site)
        begin = time.monotonic()
        with caplog.at_level(logging.WARNING, "harbor_ha.site"):
            loaded = load_site("example")
        assert time.monotonic() - begin < 3.5
        assert site_as_data(loaded) == site_as_data(site)
        assert "using the local copy" in caplog.text

    def test_without_a_copy_the_site_is_unknown(self) -> None:
        with pytest.raises(SiteUnknown, match="No such file"):
            load_site("example")

    def test_a_damaged_copy_does_not_show_what_is_in_it(self, home: Path) -> None:
        copy_path("example").parent.mkdir(parents=True)
        copy_path("example").write_text(json.dumps({"name": 5, "redis": {"password": "sEcReT"}}))
        with pytest.raises(SiteUnknown) as caught:
            load_site("example")
        assert "sEcReT" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    def test_a_site_is_read_once_in_a_process(self, site: HarborSite) -> None:
        remember(site)
        assert load_site("example") is site


def test_the_copy_is_readable_by_its_owner_only(site: HarborSite, home: Path) -> None:
    path = write_copy(site)
    assert path == home / "sites" / "example.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert site_as_data(read_copy("example")) == site_as_data(site)
    write_copy(site)
    assert [file.name for file in path.parent.iterdir()] == ["example.json"]
