"""Catalogue, prefect.yaml and Prefect's own server agree with each other and with the flows."""

import contextlib
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import BLOCKS, HarborSite, save_site
from blocks.prefect_api import prefect_api
from blocks.site_file import read_site_file
from blocks.store import _PARTS, copy_path
from deployments import cli, exits, runs
from deployments.backup_alert import OVERDUE
from deployments.catalogue import CATALOGUE, TAG, DeploymentEntry, entry
from deployments.schedules import NOT_SERVED, remove_schedules, scheduled_sites, update_schedules
from deployments.serve import remove_other_schedules
from deployments.setup import ZOMBIES, setup
from tests.unit.example_deployment import EXAMPLE
from tests.unit.site_on_disk import NOW, correct_site, fresh_certificate

FOLDER = Path(__file__).parents[2] / "deployments"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    return read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)


@pytest.mark.parametrize("known", CATALOGUE, ids=lambda known: known.name)
class TestEveryDeployment:
    """What holds for all of them."""

    def test_its_flow_can_be_imported_and_takes_a_site(self, known: DeploymentEntry) -> None:
        assert "site" in inspect.signature(known.flow().fn).parameters

    def test_every_parameter_is_typed_and_described_in_the_form(self, known: DeploymentEntry) -> None:
        for name, schema in known.flow().parameters.properties.items():
            assert schema.get("description"), f"{known.name}: Args: {name}"
            assert {"type", "anyOf", "allOf", "$ref", "enum"} & set(schema), f"{known.name}: type of {name}"

    def test_its_default_parameters_are_the_flows(self, known: DeploymentEntry) -> None:
        assert set(known.parameters) <= set(known.flow().parameters.properties)

    def test_it_is_run_from_its_module_and_not_from_a_path(self, known: DeploymentEntry) -> None:
        made = known.deployment()
        assert made.entrypoint == known.entrypoint
        assert TAG in made.tags

    def test_every_flow_module_has_its_function(self, known: DeploymentEntry) -> None:
        module, _, function = known.entrypoint.rpartition(".")
        assert module == f"flows.{function}"
        assert known.name == function.replace("_", "-")


def test_every_flow_in_the_tree_is_in_the_catalogue() -> None:
    flows = {
        f"flows.{path.stem}.{path.stem}"
        for path in (FOLDER.parent / "flows").glob("*.py")
        if f"\ndef {path.stem}(" in path.read_text() and "@flow" in path.read_text()
    }
    assert flows == {known.entrypoint for known in CATALOGUE}


def test_prefect_yaml_and_the_catalogue_agree() -> None:
    written = yaml.safe_load((FOLDER / "prefect.yaml").read_text())
    assert written["pull"] == []
    by_name = {item["name"]: item for item in written["deployments"]}
    assert set(by_name) == {known.name for known in CATALOGUE}
    for known in CATALOGUE:
        item = by_name[known.name]
        assert item["entrypoint"] == known.entrypoint
        assert item["description"] == known.description
        assert item["tags"] == [TAG, *known.tags]
        assert item.get("parameters", {}) == known.parameters


def prefect_yaml_commands() -> list[list[str]]:
    """The commands that prefect.yaml gives on its top, in their order."""
    lines = (FOLDER / "prefect.yaml").read_text().splitlines()
    return [line.removeprefix("#   ").split() for line in lines if line.startswith("#   prefect ")]


@contextlib.contextmanager
def running(argv: list[str], environment: dict[str, str], directory: Path) -> Iterator[None]:
    """Run a program in the background, in its own process group, and end it."""
    with (directory / "output").open("ab") as log:
        process = subprocess.Popen(
            argv, cwd=directory, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def test_the_page_gives_the_commands_of_prefect_yaml() -> None:
    page = (FOLDER.parent / "docs" / "operations.md").read_text().splitlines()
    for command in prefect_yaml_commands():
        assert " ".join(command) in page


def test_an_entry_is_found_with_dash_or_underscore() -> None:
    assert entry("bootstrap") is CATALOGUE[0]
    with pytest.raises(KeyError):
        entry("nothing")


class TestSchedules:
    """Schedules belong to sites."""

    nightly = replace(EXAMPLE, schedule="cron")

    def test_without_a_site_nothing_is_scheduled(self) -> None:
        assert not self.nightly.deployment().schedules

    def test_each_site_has_its_own_time_and_its_own_parameter(self, site: HarborSite) -> None:
        other = site.model_copy(update={"name": "other"}, deep=True)
        other.backup.cron = "30 3 * * *"
        other.backup.timezone = "Europe/Berlin"
        first, second = self.nightly.deployment((site, other)).schedules or []
        assert first.parameters == {"site": "example"}
        assert second.parameters == {"site": "other"}
        assert second.schedule.cron == "30 3 * * *"  # type: ignore[union-attr]
        assert second.schedule.timezone == "Europe/Berlin"
        assert first.slug != second.slug

    def test_a_site_without_a_bucket_has_no_backup_schedule(self, site: HarborSite) -> None:
        site.oss = None
        assert not self.nightly.deployment((site,)).schedules

    def test_base_backups_are_scheduled_only_where_wal_goes_into_the_bucket(self, site: HarborSite) -> None:
        base = entry("base-backup")
        assert not base.deployment((site,)).schedules
        site.backup.wal_archive = "oss"
        (weekly,) = base.deployment((site,)).schedules or []
        assert weekly.schedule.cron == site.backup.base_cron  # type: ignore[union-attr]

    def test_a_hundred_sites_are_not_looked_at_in_one_second(self, site: HarborSite) -> None:
        sites = tuple(site.model_copy(update={"name": f"site-{number}"}) for number in range(100))
        schedules = entry("check").deployment(sites).schedules or []
        begins = [schedule.schedule.anchor_date for schedule in schedules]  # type: ignore[union-attr]
        assert max(begins.count(begin) for begin in begins) < 8
        again = entry("check").deployment(sites[:1]).schedules or []
        assert again[0].schedule == schedules[0].schedule, "a restart of the runner moves nothing"

    def test_how_often_a_site_is_checked_is_its_setting(self, site: HarborSite) -> None:
        other = site.model_copy(update={"name": "other"}, deep=True)
        other.failover.check_every_s = 60
        first, second = entry("check").deployment((site, other)).schedules or []
        assert first.schedule.interval.total_seconds() == 900  # type: ignore[union-attr]
        assert second.schedule.interval.total_seconds() == 60  # type: ignore[union-attr]


@pytest.mark.servers
class TestAgainstAServer:
    """Registered on a real server, started over its API."""

    def test_a_limit_for_all_sites_of_an_earlier_version_is_taken_off(self, prefect_server: str) -> None:
        made = EXAMPLE.deployment()
        made.concurrency_limit = 1
        made.apply()
        limits = [self.limit()]
        EXAMPLE.deployment().apply()
        assert [*limits, self.limit()] == [1, None]

    @staticmethod
    def limit() -> int | None:
        """How many runs of the example may be under way at once."""
        with prefect_api(timeout=30) as api:
            found = api.post("deployments/filter", json={}).json()
        (known,) = [item for item in found if item["name"] == "example"]
        limit = known["global_concurrency_limit"]
        return limit["limit"] if limit else None

    @staticmethod
    def zombies(*, again: bool = False) -> str:
        """The id of the automation for killed runs."""
        if again:
            setup()
        with prefect_api(timeout=30) as api:
            found = api.post("automations/filter", json={}).json()
        (known,) = [item for item in found if item["name"] == ZOMBIES]
        return str(known["id"])

    def test_setup_can_be_repeated(self, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        setup()
        setup()
        with prefect_api(timeout=30) as api:
            found = api.post("automations/filter", json={}).json()
            slugs = {kind["slug"] for kind in api.post("block_types/filter", json={"limit": 200}).json()}
        names = [automation["name"] for automation in found]
        assert (names.count(ZOMBIES), names.count(OVERDUE)) == (1, 1)
        assert self.zombies() == self.zombies(again=True), "what it knows of heartbeats is not thrown away"
        monkeypatch.setattr("deployments.setup.SILENT_FOR", timedelta(seconds=120))
        assert self.zombies() != self.zombies(again=True), "another definition takes its place"
        assert {block.get_block_type_slug() for block in BLOCKS} <= slugs

    def test_a_schedule_of_a_site_that_is_not_served_any_more_is_gone(
        self, prefect_server: str, site: HarborSite
    ) -> None:
        other = site.model_copy(update={"name": "other"}, deep=True)
        with prefect_api(timeout=30) as api:
            for sites, removed in (((site, other), 0), ((other,), 1), ((), 1), ((), 0)):
                served = [TestSchedules.nightly.deployment(sites)]
                assert remove_other_schedules(api, served) == removed
                served[0].apply()
                found = api.post("deployments/filter", json={}).json()
                (known,) = [item for item in found if item["name"] == "example"]
                slugs = {schedule["slug"] for schedule in known["schedules"]}
                assert slugs == {f"example-{one.name}" for one in sites}

    def test_a_changed_schedule_is_that_of_the_server_when_the_site_is_applied(
        self, prefect_server: str, site: HarborSite
    ) -> None:
        """A new time for the backup did nothing until somebody restarted the runner."""
        other = site.model_copy(update={"name": "other"}, deep=True)
        hourly = replace(EXAMPLE, every="check_every_s")
        for entry_of in (TestSchedules.nightly, hourly):
            with prefect_api(timeout=30) as api:
                remove_schedules(api, "example")
                remove_schedules(api, "other")
                assert scheduled_sites(api).isdisjoint({"example", "other"})
                assert update_schedules(api, site, [entry_of]) == [NOT_SERVED.format(site="example")]
                entry_of.deployment((site, other)).apply()
                assert scheduled_sites(api) >= {"example", "other"}
                assert update_schedules(api, site, [entry_of]) == [], "nothing differs"
        entry_of = TestSchedules.nightly
        entry_of.deployment((site, other)).apply()
        with prefect_api(timeout=30) as api:
            before = self.schedules(api)
            place = f"deployments/{runs.find_deployment(api, 'example').id}/schedules"
            paused = {"active": False, "parameters": {"site": "example"}}
            api.patch(f"{place}/{before['example-example']['id']}", json=paused).raise_for_status()
            site.backup.cron, site.backup.timezone = "15 4 * * *", "Europe/Berlin"
            assert update_schedules(api, site, [entry_of]) == [
                "example of example is scheduled: 15 4 * * * (Europe/Berlin)"
            ]
            after = self.schedules(api)
            assert after["example-other"] == before["example-other"]
            changed = after["example-example"]
            assert (changed["schedule"]["cron"], changed["active"]) == ("15 4 * * *", False)
            assert changed["parameters"] == {"site": "example"}
            # A runner that is started later finds what it would have made itself.
            entry_of.deployment((site, other)).apply()
            assert update_schedules(api, site, [entry_of]) == []
            site.oss = None
            check_of = replace(hourly, name="example-of-check")
            check_of.deployment((site,)).apply()
            told = update_schedules(api, site, [entry_of, check_of])
            assert told == ["example of example is not scheduled any more"]
            assert set(self.schedules(api)) == {"example-other"}
            assert remove_schedules(api, "example") == 1
            assert remove_schedules(api, "other") == 1

    @staticmethod
    def schedules(api: Any) -> dict[str, Any]:
        """The example's schedules on the server, by slug, without what the server counts."""
        found = api.post("deployments/filter", json={}).json()
        (known,) = [item for item in found if item["name"] == "example"]
        return {item["slug"]: {**item, "updated": ""} for item in known["schedules"]}

    def test_a_schedule_makes_runs(self, prefect_server: str, site: HarborSite) -> None:
        """With SQLAlchemy 2.1 it did not: the scheduler's insert failed at every pass, and nothing else did."""
        TestSchedules.nightly.deployment((site,)).apply()
        with prefect_api(timeout=30) as api:
            found = runs.find_deployment(api, "example")
            body = {"min_runs": 2}
            assert api.post(f"deployments/{found.id}/schedule", json=body).raise_for_status().is_success
            asked = {
                "deployments": {"id": {"any_": [found.id]}},
                "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
            }
            assert api.post("flow_runs/count", json=asked).json() >= 2

    def test_a_run_is_started_with_typed_parameters_and_once_for_a_key(self, prefect_server: str) -> None:
        EXAMPLE.deployment().apply()
        with prefect_api(timeout=30) as api:
            deployment = runs.find_deployment(api, "example")
            parameters = runs.parse_parameters(deployment, ["site=7", "dry_run=true"])
            assert parameters == {"site": "7", "dry_run": True}
            first = runs.start(api, deployment, parameters, key="k")
            again = runs.start(api, deployment, parameters, key="k")
            assert first.id == again.id
            assert first.state == "SCHEDULED"
            seen: list[str] = []
            waited = runs.wait(api, first, 1, lambda run: seen.append(run.state), interval=0.1)
            assert not waited.ended
            assert seen[0] == "SCHEDULED"
            assert runs.reports(api, first.id) == []

    def test_a_wrong_type_is_refused_before_the_run(self, prefect_server: str) -> None:
        EXAMPLE.deployment().apply()
        with prefect_api(timeout=30) as api:
            deployment = runs.find_deployment(api, "example")
            with pytest.raises(runs.RunRefused, match="dry_run"):
                runs.start(api, deployment, {"site": "a", "dry_run": "perhaps"})

    def test_an_unknown_flow_is_refused_with_the_known_ones(
        self, prefect_server: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        EXAMPLE.deployment().apply()
        assert cli.main(["run", "nothing", "--site", "a"]) == exits.REFUSED
        assert "example" in capsys.readouterr().err

    def test_the_commands_on_top_of_prefect_yaml_lead_from_nothing_to_runs_on_two_workers(
        self, prefect_server: str, tmp_path: Path
    ) -> None:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_API_URL": prefect_server,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "HARBOR_HA_HOME": str(tmp_path / "home"),
        }
        *once, worker = prefect_yaml_commands()
        for command in once:
            done = subprocess.run(
                ["env", *command],
                cwd=FOLDER.parent,
                env=environment,
                capture_output=True,
                text=True,
                timeout=180,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        with prefect_api(timeout=30) as api, contextlib.ExitStack() as ends:
            for number in (1, 2):
                ends.enter_context(
                    running(["env", *worker, "--name", f"worker-{number}"], environment, tmp_path)
                )
            deployment = runs.find_deployment(api, "pause")
            started = [runs.start(api, deployment, {"site": "unknown"}, key=key) for key in ("w1", "w2")]
            # Two starts of the interpreter on two slow cores; the runs say why they end.
            ended = [runs.wait(api, run, 120, lambda run: None, interval=0.5) for run in started]
            assert {run.state for run in ended} == {"FAILED"}
            assert all("unknown" in run.message for run in ended)
            workers = api.post("work_pools/harbor-ha/workers/filter", json={}).json()
        assert {found["name"] for found in workers} == {"worker-1", "worker-2"}

    def test_apply_saves_the_site(
        self,
        prefect_server: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
        on_disk = correct_site(tmp_path)
        # The command judges certificates by the clock.
        on_disk.data["harbor"] |= fresh_certificate()
        assert cli.main(["apply", str(on_disk.write())]) == exits.DONE
        told = capsys.readouterr().out
        assert "site example is saved: node-a, node-b" in told
        assert "no runner serves example" in told
        assert "restore-drill: without backup.age_identity" in told
        assert (tmp_path / "home" / "sites" / "example.json").exists()

    def test_sites_are_listed_and_one_is_forgotten_with_all_that_is_kept_of_it(
        self, prefect_server: str, site: HarborSite, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """There was no way to get rid of a site, nor of the private keys of its nodes."""
        other = site.model_copy(update={"name": "example-node"}, deep=True)
        for one in (site, other):
            save_site(one)
        TestSchedules.nightly.deployment((site, other)).apply()
        assert cli.main(["sites"]) == exits.DONE
        told = capsys.readouterr().out
        assert "example  node-a, node-b; schedules run; local copy" in told
        assert cli.main(["remove", "example"]) == exits.DONE
        assert "nothing was done" in capsys.readouterr().out
        assert self.blocks_of("example") == {f"example{end}" for end in self.ENDS}
        assert cli.main(["remove", "example", "--yes"]) == exits.DONE
        assert "1 schedules" in capsys.readouterr().out
        assert self.blocks_of("example") == set()
        assert not copy_path("example").exists()
        # Another site is not touched, whatever it is called.
        assert self.blocks_of("example-node") == {f"example-node{end}" for end in self.ENDS}
        with prefect_api(timeout=30) as api:
            assert set(self.schedules(api)) == {"example-example-node"}
        assert cli.main(["remove", "example", "--yes"]) == exits.REFUSED
        assert "example-node" in capsys.readouterr().err
        assert cli.main(["remove", "example-node", "--yes"]) == exits.DONE
        capsys.readouterr()
        assert cli.main(["sites"]) == exits.DONE
        assert "example" not in capsys.readouterr().out

    # This site has no account at a cloud.
    ENDS = ("", *(f"-{part}" for part in _PARTS if part != "aliyun"), "-node-a", "-node-b")

    @staticmethod
    def blocks_of(site: str) -> set[str]:
        """The Blocks that a site of this name has on the server."""
        with prefect_api(timeout=30) as api:
            found = api.post("block_documents/filter", json={"limit": 200}).json()
        names = {item["name"] for item in found if item["block_type"]["slug"].startswith("harbor-ha")}
        return names & {f"{site}{end}" for end in TestAgainstAServer.ENDS}
