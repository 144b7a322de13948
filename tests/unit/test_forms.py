"""The forms of Prefect's UI: site and node are choices, and what cannot be undone asks for the site's name again."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from blocks import HarborSite, save_site
from blocks.prefect_api import client_options, prefect_api
from blocks.site_file import read_site_file
from blocks.store import remove_site, saved_sites
from deployments import cli, exits, runs
from deployments.attempts import start_attempt
from deployments.catalogue import CATALOGUE, entry
from deployments.choices import CONFIRMATION, not_offered_yet, offer, update_choices, with_choices
from flows.machinery.typed import require_typed
from tasks.errors import Refused
from tests.unit.site_on_disk import NOW, correct_site, fresh_certificate

SITES = {"paris": ["node-a", "node-b"], "berlin": ["node-b", "node-c"]}
DESTRUCTIVE = {"failover", "disaster-restore", "prune"}


@pytest.mark.parametrize("known", CATALOGUE, ids=lambda known: known.name)
class TestEveryForm:
    """What holds for all of them."""

    def test_site_and_node_are_choices(self, known: Any) -> None:
        made = known.deployment()
        offer([made], SITES)
        properties = made._parameter_openapi_schema.properties
        assert properties["site"]["enum"] == ["berlin", "paris"]
        if known.node:
            assert properties[known.node]["enum"] == ["node-a", "node-b", "node-c"]
            assert "default" not in properties[known.node]

    def test_a_parameter_that_its_description_calls_a_node_is_one_of_the_choices(self, known: Any) -> None:
        described = {
            name: schema["description"].lower() for name, schema in known.flow().parameters.properties.items()
        }
        about_nodes = {name for name, text in described.items() if "node" in text.split(".")[0]}
        assert about_nodes == ({known.node} if known.node else set())

    def test_its_runs_are_called_by_site_and_node(self, known: Any) -> None:
        called = known.flow().flow_run_name
        assert "{site}" in called
        if known.node and known.name != "restore-drill":
            assert f"{{{known.node}}}" in called

    def test_what_cannot_be_undone_asks_for_the_sites_name(self, known: Any) -> None:
        assert (CONFIRMATION in known.flow().parameters.properties) == (known.name in DESTRUCTIVE)


def test_without_any_site_whatever_is_typed_is_taken() -> None:
    schema = {"properties": {"site": {"type": "string", "enum": ["gone"]}, "node": {"default": ""}}}
    assert with_choices(schema, "node", {})["properties"] == {
        "site": {"type": "string"},
        "node": {"default": ""},
    }


def test_a_site_that_no_form_offers_yet_is_told_from_a_wrong_word() -> None:
    made = {
        "name": "failover",
        "parameter_openapi_schema": {
            "properties": {
                "site": {"enum": ["paris"]},
                "expected_primary": {"enum": ["node-a"]},
                "images": {"enum": ["nas"]},
            }
        },
    }
    assert not not_offered_yet(made, {"site": "paris", "images": "tape"})
    assert not_offered_yet(made, {"site": "rome"})
    assert not_offered_yet(made, {"site": "paris", "expected_primary": "node-z"})
    assert not not_offered_yet({"name": "failover", "parameter_openapi_schema": None}, {"site": "rome"})


class TestConfirmation:
    """The site's name is typed once more in a form; a program, the watcher and an alert are not asked."""

    @pytest.fixture
    def deployed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = SimpleNamespace(flow_run=SimpleNamespace(deployment_id="some"))
        monkeypatch.setattr("flows.machinery.typed.FlowRunContext", SimpleNamespace(get=lambda: run))

    def test_a_run_of_a_deployment_with_another_name_or_none_is_refused(self, deployed: None) -> None:
        for typed, said in (("", "confirm_site is empty"), ("berlin", "confirm_site is 'berlin'")):
            with pytest.raises(Refused, match="It is not confirmed that paris is meant") as caught:
                require_typed("paris", typed, "It removes backups for good.")
            assert said in str(caught.value)
        require_typed("paris", " paris ", "")

    def test_a_call_that_is_no_run_of_a_deployment_is_not_asked(self) -> None:
        require_typed("paris", "", "")


@pytest.mark.servers
class TestOnAServer:
    """Against a real server, whose API refuses what is not among the choices."""

    @pytest.fixture
    def site(
        self, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[HarborSite]:
        monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
        site = read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)
        yield site
        for name in (site.name, "later"):
            remove_site(name)
        # The server is the whole session's: a runner of another test would run what was only started here.
        with prefect_api(timeout=30) as api:
            for run in api.post("flow_runs/filter", json={}).raise_for_status().json():
                if run["state_type"] == "SCHEDULED":
                    api.delete(f"flow_runs/{run['id']}").raise_for_status()

    @staticmethod
    def choices(name: str, parameter: str) -> list[str] | None:
        with prefect_api(timeout=30) as api:
            found: Any = runs.find_deployment(api, name).properties[parameter].get("enum")
        return found

    def test_apply_and_remove_keep_the_choices(
        self, site: HarborSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A site that is saved while the runner goes on: its form would not offer it, and the API refuse it."""
        save_site(site)
        # Other tests of the process save sites on the same server.
        before = sorted(saved_sites())
        nodes = sorted({node for known in saved_sites().values() for node in known})
        for name in ("check", "switchover", "failover"):
            made = entry(name).deployment()
            offer([made], {site.name: ["node-a"]})
            made.apply()
        on_disk = correct_site(tmp_path)
        on_disk.data |= {"name": "later"}
        on_disk.data["harbor"] |= fresh_certificate()
        with prefect_api(timeout=30) as api, pytest.raises(runs.RunRefused, match="later"):
            runs.start(api, runs.find_deployment(api, "check"), {"site": "later"})
        assert cli.main(["apply", str(on_disk.write())]) == exits.DONE
        assert "later" not in before
        assert self.choices("check", "site") == sorted([*before, "later"])
        assert self.choices("switchover", "to") == nodes
        with prefect_api(timeout=30) as api:
            assert update_choices(api) == 0, "nothing differs"
            runs.start(api, runs.find_deployment(api, "check"), {"site": "later"})
        assert cli.main(["remove", "later", "--yes"]) == exits.DONE
        assert self.choices("check", "site") == before
        # What is registered anew, as by a runner of an older state, is a form without choices, and takes everything.
        entry("check").deployment().apply()
        assert self.choices("check", "site") is None

    def test_an_alert_about_a_site_that_no_form_offers_yet_starts_failover_all_the_same(
        self, site: HarborSite
    ) -> None:
        made = entry("failover").deployment()
        offer([made], {"other": ["other-a"]})
        made.apply()
        given = {"site": "later", "expected_primary": "node-a", "reason": "an alert"}

        async def call(parameters: dict[str, Any]) -> str:
            async with httpx.AsyncClient(**client_options(30)) as api:
                return await start_attempt(
                    api, "failover", parameters, "test-forms", ["test"], datetime.now(UTC)
                )

        run_id = asyncio.run(call(given))
        with prefect_api(timeout=30) as api:
            parameters = api.get(f"flow_runs/{run_id}").raise_for_status().json()["parameters"]
            with pytest.raises(runs.RunRefused):
                runs.start(api, runs.find_deployment(api, "failover"), given)
        assert {name: parameters[name] for name in given} == given

    def test_the_command_line_types_the_name_for_whoever_typed_it_already(
        self, site: HarborSite, capsys: pytest.CaptureFixture[str]
    ) -> None:
        entry("prune").deployment().apply()
        assert cli.main(["run", "prune", "--site", "example", "--param", "confirm=true"]) == exits.DONE
        run_id = capsys.readouterr().out.rpartition("(")[2].split(")")[0]
        with prefect_api(timeout=30) as api:
            parameters = api.get(f"flow_runs/{run_id}").raise_for_status().json()["parameters"]
        assert parameters == {"site": "example", "confirm": True, "confirm_site": "example"}
