"""The installer of the orchestrator and the command in its path, as far as one machine without systemd tells."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.orchestrator import environment, look

ROOT = Path(__file__).parents[2]
INSTALLER = ROOT / "scripts" / "install-orchestrator"
COMMAND = ROOT / "deployments" / "orchestrator" / "harbor-ha"
SERVICES = ("prefect-server", "harbor-ha-runner", "harbor-ha-receiver")
# Written by an operator, by systemd's rules.
ENVIRONMENT = """\
# for all services
PREFECT_API_URL=http://127.0.0.1:4200/api
PREFECT_API_AUTH_STRING="admin:a$HOME`id`\\\\"

HARBOR_HA_SITES="--site main --site other"
"""

pytestmark = pytest.mark.servers


def program(directory: Path, name: str, text: str) -> Path:
    """Put a program of a few lines of shell into a directory of the PATH."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    "script", [INSTALLER, COMMAND, ROOT / "scripts" / "find-python"], ids=lambda path: path.name
)
def test_the_scripts_are_shell_that_each_sh_reads(script: Path) -> None:
    for shell in filter(shutil.which, ("sh", "dash", "bash")):
        subprocess.run([shell, "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)


class TestCommand:
    """/usr/local/bin/harbor-ha, with other places than a machine's own."""

    @pytest.fixture
    def command(self, tmp_path: Path) -> Path:
        text = COMMAND.read_text()
        for place, other in (
            ("/etc/harbor-ha", "etc"),
            ("/var/lib/harbor-ha", "home"),
            ("/opt/harbor-ha", "opt"),
        ):
            text = text.replace(f"={place}\n", f"={tmp_path / other}\n")
            (tmp_path / other).mkdir()
        (tmp_path / "etc" / "environment").write_text(ENVIRONMENT)
        # Says who it is, as whom it was called, and what it was given.
        program(tmp_path / "opt/.venv/bin", "harbor-ha", 'echo "args: $*"; env; [ "$1" != fail ] || exit 5')
        program(tmp_path / "path", "runuser", f'echo "runuser: $1 $2 $3"; shift 3; exec "$@"  # {tmp_path}')
        os.symlink(sys.executable, tmp_path / "opt/.venv/bin/python")
        (tmp_path / "opt" / "deployments").symlink_to(ROOT / "deployments")
        file = tmp_path / "harbor-ha"
        file.write_text(text)
        file.chmod(0o755)
        program(tmp_path / "path", "id", "echo 0")
        return file

    def run(self, command: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        path = f"{command.parent / 'path'}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": "/root", **variables}
        return subprocess.run([str(command), *words], env=env, capture_output=True, text=True, timeout=20)

    def test_it_needs_no_variables_and_changes_to_the_services_user_by_itself(
        self, command: Path, tmp_path: Path
    ) -> None:
        done = self.run(command, "run", "check", "--site", "main", "--watch")
        lines = done.stdout.splitlines()
        assert lines[:2] == ["runuser: -u harbor-ha --", "args: run check --site main --watch"]
        assert "PREFECT_API_AUTH_STRING=admin:a$HOME`id`\\\\" in lines, "data, and never run"
        assert "HARBOR_HA_SITES=--site main --site other" in lines
        assert f"HARBOR_HA_HOME={tmp_path / 'home'}" in lines
        assert f"HOME={tmp_path / 'home'}" in lines

    def test_apply_and_init_stay_root_and_write_nothing_where_another_user_is_at_home(
        self, command: Path, tmp_path: Path
    ) -> None:
        for words in (("apply", "site.yml"), ("init", "/etc/harbor-ha/main")):
            done = self.run(command, *words, OSS_ACCESS_KEY_SECRET="x")
            assert "runuser" not in done.stdout
            lines = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
            assert lines["OSS_ACCESS_KEY_SECRET"] == "x", "{env: NAME} is of root's environment"
            assert lines["HARBOR_HA_USER"] == "harbor-ha"
            assert not lines["PREFECT_HOME"].startswith(str(tmp_path / "home"))
            assert not Path(lines["PREFECT_HOME"]).exists(), "it is removed again"

    def test_the_status_is_the_programs_own(self, command: Path) -> None:
        assert self.run(command, "fail").returncode == 5
        assert self.run(command, "apply", "x").returncode == 0

    def test_another_user_is_told_what_to_do(self, command: Path, tmp_path: Path) -> None:
        program(tmp_path / "path", "id", "echo 1000")
        done = self.run(command, "status", "main")
        assert done.returncode == 2
        assert "sudo harbor-ha status main" in done.stderr
        assert "args: --help" in self.run(command, "--help").stdout

    def test_a_line_that_is_none_is_named_and_nothing_of_it_is_shown(
        self, command: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "etc" / "environment").write_text("PREFECT_API_URL=x\nexport SECRET=hunter2\n")
        done = self.run(command, "sites")
        assert done.returncode == 2
        assert "line 2" in done.stderr
        assert "hunter2" not in done.stderr

    def test_a_removed_site_is_not_served_any_more(self, command: Path, tmp_path: Path) -> None:
        """A runner that was started for a site that is gone does not start: after the next reboot."""
        assert self.run(command, "remove", "main").returncode == 0
        assert "--site main" in (tmp_path / "etc" / "environment").read_text()
        assert "not in HARBOR_HA_SITES any more" in self.run(command, "remove", "--yes", "main").stdout
        file = tmp_path / "etc" / "environment"
        assert file.read_text() == ENVIRONMENT.replace("--site main --site other", "--site other")
        assert file.stat().st_mode & 0o777 == 0o600


class TestEnvironment:
    """One file for systemd, a shell, and the command."""

    def test_a_shell_reads_what_the_installer_writes_as_everybody_else_does(self, tmp_path: Path) -> None:
        file = tmp_path / "environment"
        file.write_text('PREFECT_API_URL="http://127.0.0.1:4200/api"\nHARBOR_HA_SITES=""\n')
        environment.change(file, lambda text: environment.with_site(text, "main"))
        environment.change(file, lambda text: environment.with_site(text, "other"))
        script = f"set -a; . {file}; env"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={})
        read = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        assert read["HARBOR_HA_SITES"] == "--site main --site other"
        wanted = look.read_environment(file.read_text())
        assert {name: read[name] for name in wanted} == wanted

    def test_sites_come_and_go_and_the_rest_stays(self) -> None:
        assert environment.served_sites(ENVIRONMENT) == ["main", "other"]
        assert environment.with_site(ENVIRONMENT, "main") == ENVIRONMENT
        assert environment.served_sites(environment.with_site(ENVIRONMENT, "third")) == [
            "main",
            "other",
            "third",
        ]
        assert environment.served_sites(environment.without_site(ENVIRONMENT, "main")) == ["other"]
        assert environment.without_site(ENVIRONMENT, "mai") == ENVIRONMENT
        assert environment.served_sites(environment.with_site("A=b\n", "main")) == ["main"]
        # As the page said it before, without quotes.
        assert environment.served_sites("HARBOR_HA_SITES=--site main\n") == ["main"]
        options = "HARBOR_HA_SITES=--site main --limit 4\n"
        assert environment.without_site(options, "main") == 'HARBOR_HA_SITES="--limit 4"\n'


class TestCheck:
    """`--check` on another root: one thing is broken, and that one is named."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Path:
        """A root on which all is well; programs that ask the system answer from files."""
        root, stubs = tmp_path / "root", tmp_path / "stubs"
        code, etc = root / "opt/harbor-ha", root / "etc/harbor-ha"
        code.mkdir(parents=True)
        parts = next(line for line in INSTALLER.read_text().splitlines() if line.startswith("parts="))
        for part in parts.split('"')[1].split():
            (code / part).symlink_to(ROOT / part)
        program(
            code / "venvs/one/bin",
            "python",
            f"[ ! -e {tmp_path}/$2.broken ] || {{ cat {tmp_path}/$2.broken; exit 1; }}",
        )
        (code / ".venv").symlink_to("venvs/one")
        for directory, mode in ((etc, 0o750), (root / "var/lib/harbor-ha", 0o700)):
            directory.mkdir(parents=True)
            directory.chmod(mode)
        url = "PREFECT_API_URL=http://127.0.0.1:4200/api\n"
        database = 'PREFECT_SERVER_DATABASE_CONNECTION_URL="postgresql+asyncpg://harbor-ha@/prefect?host=/var/run/postgresql"\n'
        for name, text in (
            ("environment", f'{url}PREFECT_API_AUTH_STRING="admin:x"\nHARBOR_HA_SITES=""\n'),
            ("server.environment", f'{database}PREFECT_SERVER_API_AUTH_STRING="admin:x"\n'),
            ("receiver.yml", "routes: []\n"),
            ("receiver-token", "token"),
        ):
            (etc / name).write_text(text)
            (etc / name).chmod(0o600)
        shutil.copytree(ROOT / "deployments/systemd", root / "etc/systemd/system")
        (root / "usr/local/bin").mkdir(parents=True)
        shutil.copy(COMMAND, root / "usr/local/bin/harbor-ha")
        program(stubs, "systemctl", f'for last; do :; done; [ ! -e "{tmp_path}/$1.$last" ]')
        program(stubs, "getent", f"[ ! -e {tmp_path}/no-user ]")
        program(stubs, "pg_lsclusters", "echo 15 main 5432 online postgres /data /log")
        program(stubs, "runuser", f"[ -e {tmp_path}/no-database ] || echo 1")
        return root

    def check(self, machine: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        env = {
            **os.environ,
            "DESTDIR": str(machine),
            "PATH": f"{machine.parent / 'stubs'}:{os.environ['PATH']}",
        }
        argv = [str(INSTALLER), *(words or ("--check",))]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)

    def test_a_whole_machine_lacks_nothing(self, machine: Path) -> None:
        done = self.check(machine)
        assert (done.stdout, done.stderr) == ("The orchestrator is whole: nothing is missing.\n", "")
        assert done.returncode == 0

    def test_a_bare_machine_lacks_all_of_it_and_gets_none(self, tmp_path: Path, machine: Path) -> None:
        bare = tmp_path / "bare"
        bare.mkdir()
        shutil.copytree(tmp_path / "stubs", bare / "stubs")
        (tmp_path / "no-user").touch()
        root = bare / "root"
        root.mkdir()
        done = self.check(root)
        assert done.returncode == 1
        for part in (
            "no user",
            "var/lib/harbor-ha",
            "the code",
            "no venv",
            "environment",
            "receiver",
            "usr/local/bin",
        ):
            assert part in done.stdout
        assert list(root.iterdir()) == []

    @pytest.mark.parametrize(
        ("broken", "named"),
        [
            (
                lambda root: (root.parent / "is-active.harbor-ha-runner").touch(),
                "harbor-ha-runner does not run",
            ),
            (
                lambda root: (root.parent / "is-enabled.prefect-server").touch(),
                "prefect-server is not enabled",
            ),
            (lambda root: (root.parent / "no-database").touch(), "no role harbor-ha"),
            (
                lambda root: (root / "etc/harbor-ha/environment").chmod(0o644),
                "environment is not there with mode 600",
            ),
            (lambda root: (root / "etc/harbor-ha/receiver-token").unlink(), "receiver-token is not there"),
            (lambda root: (root / "opt/harbor-ha/flows").unlink(), "is not that of"),
            (
                lambda root: (root / "usr/local/bin/harbor-ha").write_text("old"),
                "usr/local/bin/harbor-ha is not the one",
            ),
            (
                lambda root: (root / "var/lib/harbor-ha").chmod(0o755),
                "var/lib/harbor-ha is not there with mode 700",
            ),
            (
                lambda root: (root.parent / "venv.broken").write_text("prefect 3 is not installed\n"),
                "prefect 3 is not",
            ),
            (lambda root: (root.parent / "api.broken").write_text("answers 401\n"), "answers 401"),
            (
                lambda root: (root / "etc/systemd/system/harbor-ha-watch.service").unlink(),
                "harbor-ha-watch.service",
            ),
        ],
        ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
    )
    def test_what_is_broken_is_named_and_nothing_else(
        self, machine: Path, broken: Callable[[Path], object], named: str
    ) -> None:
        broken(machine)
        done = self.check(machine)
        assert done.returncode == 1
        assert named in done.stdout
        assert len(done.stdout.splitlines()) <= 2, done.stdout

    def test_sites_without_quotes_are_told_since_no_shell_can_read_them(self, machine: Path) -> None:
        file = machine / "etc/harbor-ha/environment"
        file.write_text(file.read_text().replace('HARBOR_HA_SITES=""', "HARBOR_HA_SITES=--site main"))
        assert "has spaces and no quotes" in self.check(machine).stdout

    def test_two_passwords_are_told(self, machine: Path) -> None:
        file = machine / "etc/harbor-ha/server.environment"
        file.write_text(file.read_text().replace("admin:x", "admin:y"))
        told = self.check(machine).stdout
        assert "is not PREFECT_SERVER_API_AUTH_STRING" in told
        assert "admin:" not in told

    def test_uninstall_keeps_the_data_and_purge_does_not(self, machine: Path) -> None:
        done = self.check(machine, "--uninstall")
        assert done.returncode == 0, done.stderr
        for gone in (
            "opt/harbor-ha",
            "usr/local/bin/harbor-ha",
            "etc/systemd/system/harbor-ha-runner.service",
        ):
            assert not (machine / gone).exists()
        assert (machine / "etc/harbor-ha/environment").exists()
        assert (ROOT / "flows").is_dir(), "what a link leads to stays"
        assert "Nothing was there any more" in self.check(machine, "--uninstall").stdout
        program(machine.parent / "stubs", "userdel", f"echo {machine.parent}")
        assert self.check(machine, "--uninstall", "--purge").returncode == 0
        assert not (machine / "etc/harbor-ha").exists()
        assert not (machine / "var/lib/harbor-ha").exists()

    def test_an_option_that_does_not_exist_changes_nothing(self, machine: Path) -> None:
        for words in (("--unistall",), ("--purge",)):
            assert self.check(machine, *words).returncode == 1
        assert self.check(machine).returncode == 0


class TestLooks:
    """What the installer asks Python."""

    def test_the_lock_is_compared_with_what_is_installed(self) -> None:
        lock = "prefect==3.8.8 \\\n    --hash=sha256:0\nruamel-yaml-clib==0.2.15 ; os_name == 'X' \\\n"
        there = {"prefect": "3.8.7"}
        told = list(look.missing_packages(lock, lambda marker: "'X'" not in marker, there))
        assert told == ["prefect 3.8.8 is not installed, but 3.8.7"]
        assert list(look.missing_packages(lock, lambda _: True, {"prefect": "3.8.8"})) == [
            "ruamel-yaml-clib 0.2.15 is not installed"
        ]

    def test_every_line_of_the_lock_is_understood(self) -> None:
        lock = (ROOT / "requirements.lock").read_text()
        pins = [
            line for line in lock.splitlines() if "==" in line.partition(";")[0] and not line.startswith(" ")
        ]
        assert len(list(look.missing_packages(lock, lambda _: True, {}))) == len(pins) > 50

    def test_the_venv_of_these_tests_has_what_the_lock_names(self) -> None:
        told = look.look_at_venv(ROOT)
        assert [line for line in told if "is not installed in it" not in line] == []

    @pytest.fixture
    def server(self) -> Iterator[str]:
        """Answers whoever knows the password, and with `open` in its list everybody."""
        served = http.server.HTTPServer(("127.0.0.1", 0), _Guarded)
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/api"
        served.shutdown()
        served.server_close()

    def test_a_server_is_asked_with_its_password_and_without(
        self, server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = {"PREFECT_API_URL": server, "PREFECT_API_AUTH_STRING": "admin:x"}
        assert look.look_at_api(good) == []
        assert "answers 401" in look.look_at_api({**good, "PREFECT_API_AUTH_STRING": "admin:y"})[0]
        monkeypatch.setattr(_Guarded, "open", True)
        assert "without a password" in look.look_at_api(good)[0]
        assert "does not answer" in look.look_at_api({**good, "PREFECT_API_URL": "http://127.0.0.1:9/api"})[0]
        assert "is not set" in look.look_at_api({})[0]


class _Guarded(http.server.BaseHTTPRequestHandler):
    open = False

    def do_GET(self) -> None:
        allowed = self.open or self.headers.get("Authorization") == "Basic YWRtaW46eA=="
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(b'"3.8.8"')

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""
