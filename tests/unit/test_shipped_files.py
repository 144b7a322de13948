"""Files for production are at least well formed, and name things that exist."""

import configparser
import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments import arguments
from deployments.receiver import read_receiver_file
from tasks.harbor.boot import UNIT

FOLDER = Path(__file__).parents[2] / "deployments"


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
            arguments.make_parser().parse_args(command)

    @pytest.mark.parametrize("unit", ["harbor-ha-runner", "harbor-ha-watch"])
    def test_what_may_run_a_failover_lets_its_fence_command_become_root(self, unit: str) -> None:
        """The watcher's own unit forbade sudo: a failover that it ran without Prefect could not have fenced."""
        text = (FOLDER / "systemd" / f"{unit}.service").read_text()
        assert "\nNoNewPrivileges" not in text
        assert "\nProtectSystem=full" in text

    def test_a_failover_outlives_the_watcher_that_has_started_it(self) -> None:
        # It ends by itself when a site is applied anew; systemd would kill what it has started along with it.
        assert "\nKillMode=process\n" in (FOLDER / "systemd" / "harbor-ha-watch.service").read_text()

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

    def test_the_installer_stops_and_takes_away_every_unit_that_it_puts_in_place(self) -> None:
        text = (FOLDER.parent / "scripts" / "install-orchestrator").read_text()
        named = {
            name: re.search(rf'^{name}="(.*)"$', text, re.MULTILINE) for name in ("services", "all_services")
        }
        started, stopped = (found[1].split() for found in named.values() if found)
        shipped = {path.stem for path in (FOLDER / "systemd").glob("*.service")}
        assert set(stopped) == shipped
        assert set(started) == shipped - {"harbor-ha-watch"}, "the watcher runs beside the runner"
        assert [name for name in reversed(stopped) if name in started] == started

    def test_the_page_takes_away_from_the_nodes_every_unit_that_is_put_there(self) -> None:
        page = (FOLDER.parent / "docs" / "operations.md").read_text()
        away = page[page.index("\n## Take it away") : page.index("\n## When something is wrong")]
        for unit in (UNIT, "harbor-ha-guard.service", "harbor-ha-durability.service"):
            assert f"/etc/systemd/system/{unit}" in away
            assert re.search(rf"disable --now .*\b{unit.removesuffix('.service')}\b", away)

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
