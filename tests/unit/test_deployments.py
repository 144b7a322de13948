"""Catalogue, prefect.yaml, command line and shipped files agree with each other and with the flows."""

import configparser
import contextlib
import inspect
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import BLOCKS, HarborSite, save_site
from blocks.prefect_api import prefect_api
from blocks.site_file import read_site_file
from blocks.store import _PARTS, copy_path, write_copy
from deployments import cli, runs
from deployments.backup_alert import OVERDUE
from deployments.catalogue import CATALOGUE, TAG, DeploymentEntry, entry
from deployments.receiver import read_receiver_file
from deployments.schedules import NOT_SERVED, remove_schedules, scheduled_sites, update_schedules
from deployments.serve import remove_other_schedules
from deployments.setup import ZOMBIES, setup
from tasks.harbor.boot import UNIT
from tests.unit.site_on_disk import NOW, correct_site

EXAMPLE = DeploymentEntry("example", "tests.unit.example_flow.example", "Does nothing.", ("test",))
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
        assert cli.main(["run", "nothing", "--site", "a"]) == cli.REFUSED
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
        assert cli.main(["apply", str(on_disk.write())]) == cli.DONE
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
        assert cli.main(["sites"]) == cli.DONE
        told = capsys.readouterr().out
        assert "example  node-a, node-b; schedules run; local copy" in told
        assert cli.main(["remove", "example"]) == cli.DONE
        assert "nothing was done" in capsys.readouterr().out
        assert self.blocks_of("example") == {f"example{end}" for end in self.ENDS}
        assert cli.main(["remove", "example", "--yes"]) == cli.DONE
        assert "1 schedules" in capsys.readouterr().out
        assert self.blocks_of("example") == set()
        assert not copy_path("example").exists()
        # Another site is not touched, whatever it is called.
        assert self.blocks_of("example-node") == {f"example-node{end}" for end in self.ENDS}
        with prefect_api(timeout=30) as api:
            assert set(self.schedules(api)) == {"example-example-node"}
        assert cli.main(["remove", "example", "--yes"]) == cli.REFUSED
        assert "example-node" in capsys.readouterr().err
        assert cli.main(["remove", "example-node", "--yes"]) == cli.DONE
        capsys.readouterr()
        assert cli.main(["sites"]) == cli.DONE
        assert "example" not in capsys.readouterr().out

    ENDS = ("", *(f"-{part}" for part in _PARTS), "-node-a", "-node-b")

    @staticmethod
    def blocks_of(site: str) -> set[str]:
        """The Blocks that a site of this name has on the server."""
        with prefect_api(timeout=30) as api:
            found = api.post("block_documents/filter", json={"limit": 200}).json()
        names = {item["name"] for item in found if item["block_type"]["slug"].startswith("harbor-ha")}
        return names & {f"{site}{end}" for end in TestAgainstAServer.ENDS}

    def test_a_served_flow_is_started_watched_and_its_report_printed(
        self, prefect_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        program = (
            "import deployments.catalogue as catalogue\n"
            "from tests.unit.test_deployments import EXAMPLE\n"
            "from deployments.serve import prepare_environment, serve_all\n"
            "catalogue.CATALOGUE = (EXAMPLE,)\n"
            "prepare_environment()\n"
            "serve_all([], None)\n"
        )
        EXAMPLE.deployment().apply()
        with (tmp_path / "runner.log").open("wb") as log:
            runner = subprocess.Popen(
                [sys.executable, "-c", program],
                env={**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_RUNNER_POLL_FREQUENCY": "1"},
                cwd=FOLDER.parent,
                stdout=log,
                stderr=log,
            )
        try:
            status = cli.main(
                ["run", "example", "--site", "a", "--param", "dry_run=true", "--watch", "--timeout", "90"]
            )
        finally:
            runner.send_signal(signal.SIGTERM)
            runner.wait(60)
        assert status == cli.DONE, (tmp_path / "runner.log").read_text()
        assert "# example of a, dry_run=True" in capsys.readouterr().out


def fresh_certificate() -> dict[str, str]:
    """A certificate that is valid now."""
    from datetime import UTC, datetime, timedelta

    from tests.unit.site_on_disk import certificate

    pem, key = certificate("harbor.example.com", start=datetime.now(UTC) - timedelta(days=1))
    return {"certificate": pem, "certificate_key": key}


class TestCommandLine:
    """What an operator can put right ends with one message and a documented status."""

    def test_the_mistakes_of_a_site_file_are_printed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "site.yml").write_text("name: x\nnodez: {}\n")
        assert cli.main(["apply", str(tmp_path / "site.yml")]) == cli.INVALID
        assert "did you mean nodes?" in capsys.readouterr().err

    def test_what_the_weekly_drill_will_prove_is_told_when_it_is_chosen(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without an identity it was red each week, by schedule; now it is green, and says less."""
        on_disk = correct_site(tmp_path)
        on_disk.data["harbor"] |= fresh_certificate()
        assert cli.main(["apply", "--check", str(on_disk.write())]) == cli.DONE
        assert "not that it can be decrypted and restored" in capsys.readouterr().out
        own = pyrage.x25519.Identity.generate()
        on_disk.data["backup"] = {
            "age_recipients": [str(own.to_public())],
            "age_identity": {"file": "identity"},
        }
        on_disk.secret("identity", str(own))
        assert cli.main(["apply", "--check", str(on_disk.write())]) == cli.DONE
        assert "restores the newest backup" in capsys.readouterr().out

    def test_a_server_that_is_down_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            assert cli.main(["run", "bootstrap", "--site", "a"]) == cli.NO_PREFECT
        assert "Prefect does not answer" in capsys.readouterr().err

    def test_a_missing_address_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            assert cli.main(["setup"]) == cli.NO_PREFECT
        assert "export PREFECT_API_URL" in capsys.readouterr().err

    def test_without_prefect_the_local_copies_are_listed(
        self, site: HarborSite, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_copy(site)
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            assert cli.main(["sites"]) == cli.DONE
            assert cli.main(["remove", "example", "--yes"]) == cli.NO_PREFECT
        assert "example  local copy" in capsys.readouterr().out
        assert copy_path("example").exists(), "nothing is half removed"

    def test_wrong_usage_has_the_usual_status(self) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["no-such-command"])
        assert caught.value.code == cli.USAGE

    @pytest.mark.parametrize("text", ["dry_run", "dryrun=true"])
    def test_a_parameter_that_the_flow_does_not_take_is_refused(self, text: str) -> None:
        deployment = runs.Deployment(
            "id", "bootstrap", {"site": {"type": "string"}, "dry_run": {"type": "boolean"}}
        )
        with pytest.raises(runs.RunRefused, match=r"KEY=VALUE|did you mean dry_run"):
            runs.parse_parameters(deployment, [text])

    def test_every_status_is_documented_in_the_help(self) -> None:
        for status in range(cli.NOT_ENDED + 1):
            assert f"\n  {status}  " in cli.EPILOG


class TestShippedFiles:
    """Files for production are at least well formed, and name things that exist."""

    @pytest.mark.parametrize(
        "unit", sorted((FOLDER / "systemd").glob("*.service")), ids=lambda path: path.name
    )
    def test_a_unit_starts_our_program_and_is_restarted(self, unit: Path) -> None:
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_file(io.StringIO(unit.read_text()))
        assert parser["Service"]["ExecStart"].startswith("/opt/harbor-ha/.venv/bin/")
        assert parser["Service"]["Restart"] == "always"
        if "/harbor-ha " in parser["Service"]["ExecStart"]:
            words = parser["Service"]["ExecStart"].split()[1:]
            command = ["serve", "--site", "a"] if "$HARBOR_HA_SITES" in words else words
            cli._parser().parse_args(command)

    def test_the_server_of_the_compose_file_listens_on_loopback_and_asks_who_is_there(self) -> None:
        services: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text())["services"]
        assert services["server"]["ports"] == ["127.0.0.1:4200:4200"]
        assert "PREFECT_SERVER_API_AUTH_STRING" in services["server"]["environment"]
        assert "ports" not in services["database"]

    def test_every_alert_of_the_receiver_is_raised_and_routed(self, tmp_path: Path) -> None:
        (tmp_path / "receiver-token").write_text("0123456789abcdef0123456789abcdef\n")
        (tmp_path / "receiver-token").chmod(0o600)
        example = tmp_path / "receiver.yml"
        example.write_text((FOLDER / "receiver.example.yml").read_text())
        rules = yaml.safe_load((FOLDER / "alerts" / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
        raised = {rule["alert"]: rule for rule in rules if "alert" in rule}
        routed = (FOLDER / "alerts" / "alertmanager.yml").read_text()
        for route in read_receiver_file(example).routes:
            assert route.alert in raised
            assert f'alertname="{route.alert}"' in routed

    def test_the_page_takes_away_every_unit_that_is_put_in_place(self) -> None:
        page = (FOLDER.parent / "docs" / "operations.md").read_text()
        away = page[page.index("\n## Take it away") : page.index("\n## When something is wrong")]
        upgrade = page[page.index("\n## Upgrade") : page.index("\n## Take it away")]
        shipped = {path.name for path in (FOLDER / "systemd").glob("*.service")}
        on_nodes = {UNIT, "harbor-ha-guard.service", "harbor-ha-durability.service"}
        for unit in shipped | on_nodes:
            assert f"/etc/systemd/system/{unit}" in away
            assert re.search(rf"disable --now .*\b{unit.removesuffix('.service')}\b", away)
        for unit in shipped:
            assert re.search(rf"systemctl stop .*\b{unit.removesuffix('.service')}\b", upgrade)
            assert re.search(rf"systemctl start .*\b{unit.removesuffix('.service')}\b", upgrade)

    def test_a_lock_of_another_content_makes_the_venv_anew_however_old_it_is(self, tmp_path: Path) -> None:
        """After an upgrade from an archive the lock is older than the venv, and nothing was installed."""
        for name in ("Makefile", "requirements.lock", "pyproject.toml"):
            shutil.copy(FOLDER.parent / name, tmp_path)
        lock, stamp = tmp_path / "requirements.lock", ".venv/.ready-"

        def wanted() -> str:
            argv = ["make", "-n", "venv"]
            return subprocess.run(
                argv, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True
            ).stdout

        (made,) = [line.split()[-1] for line in wanted().splitlines() if line.startswith(f"touch {stamp}")]
        (tmp_path / ".venv").mkdir()
        (tmp_path / made).touch()
        assert "pip install" not in wanted()
        lock.write_text(lock.read_text() + "# another\n")
        os.utime(lock, (1, 1))
        assert "pip install" in wanted()

    def test_every_alert_says_what_to_do(self) -> None:
        rules = yaml.safe_load((FOLDER / "alerts" / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
        for rule in rules:
            assert "record" in rule or {"summary", "action"} <= set(rule["annotations"])
