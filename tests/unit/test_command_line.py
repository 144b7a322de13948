"""What an operator can put right ends with one message and a documented status."""

from pathlib import Path
from typing import Any

import pyrage
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import HarborSite
from blocks.site_file import read_site_file
from blocks.store import copy_path, write_copy
from deployments import arguments, cli, exits, runs
from tests.unit.site_on_disk import NOW, correct_site, fresh_certificate


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    return read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)


class TestCommandLine:
    """What an operator can put right ends with one message and a documented status."""

    def test_the_mistakes_of_a_site_file_are_printed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "site.yml").write_text("name: x\nnodez: {}\n")
        assert cli.main(["apply", str(tmp_path / "site.yml")]) == exits.INVALID
        assert "did you mean nodes?" in capsys.readouterr().err

    def test_what_the_weekly_drill_will_prove_is_told_when_it_is_chosen(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without an identity it was red each week, by schedule; now it is green, and says less."""
        on_disk = correct_site(tmp_path)
        on_disk.data["harbor"] |= fresh_certificate()
        assert cli.main(["apply", "--check", str(on_disk.write())]) == exits.DONE
        assert "not that it can be decrypted and restored" in capsys.readouterr().out
        own = pyrage.x25519.Identity.generate()
        on_disk.data["backup"] = {
            "age_recipients": [str(own.to_public())],
            "age_identity": {"file": "identity"},
        }
        on_disk.secret("identity", str(own))
        assert cli.main(["apply", "--check", str(on_disk.write())]) == exits.DONE
        assert "restores the newest backup" in capsys.readouterr().out

    def test_a_server_that_is_down_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            assert cli.main(["run", "bootstrap", "--site", "a"]) == exits.NO_PREFECT
        assert "Prefect does not answer" in capsys.readouterr().err

    def test_a_missing_address_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            assert cli.main(["setup"]) == exits.NO_PREFECT
        assert "export PREFECT_API_URL" in capsys.readouterr().err

    def test_without_prefect_the_local_copies_are_listed(
        self, site: HarborSite, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_copy(site)
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            assert cli.main(["sites"]) == exits.DONE
            assert cli.main(["remove", "example", "--yes"]) == exits.NO_PREFECT
        assert "example  local copy" in capsys.readouterr().out
        assert copy_path("example").exists(), "nothing is half removed"

    def test_wrong_usage_has_the_usual_status(self) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["no-such-command"])
        assert caught.value.code == exits.USAGE

    @pytest.mark.parametrize("text", ["dry_run", "dryrun=true"])
    def test_a_parameter_that_the_flow_does_not_take_is_refused(self, text: str) -> None:
        deployment = runs.Deployment(
            "id", "bootstrap", {"site": {"type": "string"}, "dry_run": {"type": "boolean"}}
        )
        with pytest.raises(runs.RunRefused, match=r"KEY=VALUE|did you mean dry_run"):
            runs.parse_parameters(deployment, [text])

    @pytest.mark.parametrize(
        ("text", "value"),
        [("true", True), ("True", True), ("false", False), ("False", False), ("null", None), ("None", None)],
    )
    def test_yes_and_no_may_be_written_as_json_or_as_python(self, text: str, value: bool | None) -> None:
        """A word of another form was sent as a text, and refused in the night in which it was typed."""
        schemas: dict[str, dict[str, Any]] = {
            "dry_run": {"type": "boolean"},
            "sign": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "reason": {"type": "string"},
        }
        deployment = runs.Deployment("id", "failover", schemas)
        given = [f"{name}={text}" for name in schemas]
        assert runs.parse_parameters(deployment, given) == {"dry_run": value, "sign": value, "reason": text}

    def test_every_status_is_documented_in_the_help(self) -> None:
        for status in range(exits.NOT_ENDED + 1):
            assert f"\n  {status}  " in arguments.EPILOG
