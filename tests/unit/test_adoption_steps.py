"""The old Harbor on its node: noted before anything, taken down without a loss, put back by one command."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.harbor.on_node import adoption_look, harbor_found
from tasks.harbor.on_node import adoption_steps as program
from tasks.on_node import lib
from tests.unit.harbor_site import program as script


class Node:
    """A node's state directory, an old Harbor's directory, and programs that write down how they are called."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.state = root, root / "usr/local/harbor", root / "state"
        (self.home / "common/config/core").mkdir(parents=True)
        (self.home / "harbor.yml").write_text("hostname: old.example.com\n")
        (self.home / "docker-compose.yml").write_text("services: {}\n")
        (self.home / "common/config/core/env").write_text("A=b\n")
        log = root / "called"
        for name in ("docker", "systemctl"):
            script(root / "bin", name, f'echo "{name} $*" >> {log}\n. {root}/{name}.sh\n')
        (root / "docker.sh").write_text("exit 0\n")
        (root / "systemctl.sh").write_text("[ $1 != is-enabled ] || echo enabled\n")

    def called(self) -> list[str]:
        log = self.root / "called"
        return log.read_text().splitlines() if log.exists() else []

    def given(self, **changes: Any) -> dict[str, Any]:
        found = {"directory": str(self.home), "data_volume": "/data", "images_at": "/data/registry"}
        given = {
            "found": found,
            "project": "harbor",
            "database": {"major": 13},
            "units": ["harbor.service"],
            "planned": "",
            "install_dir": "/opt/harbor",
            "psql": "",
            "access": {},
        }
        return given | changes

    def at(self, phase: str) -> None:
        """Have the adoption come so far."""
        (self.state / "harbor_adoption.json").write_text(
            json.dumps({**self.record(), "phase": phase}, sort_keys=True)
        )

    def record(self) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads((self.state / "harbor_adoption.json").read_text())
        return kept


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    made = Node(tmp_path)
    monkeypatch.setattr(lib, "STATE_DIR", str(made.state))
    monkeypatch.setattr(program, "KEPT_AT", str(made.state / "adopted"))
    monkeypatch.setattr(program, "BACK", str(made.state / "adopted/put-back"))
    return made


def test_the_configuration_is_copied_aside_and_the_begin_is_noted_once(node: Node) -> None:
    assert program.begin(node.given()) == {"first": True}
    kept = node.state / "adopted/configuration"
    assert (kept / "harbor.yml").read_text() == "hostname: old.example.com\n"
    assert (kept / "config/core/env").read_text() == "A=b\n"
    assert (node.record()["phase"], node.record()["units"]) == ("copying", ["harbor.service"])
    (node.home / "harbor.yml").write_text("hostname: changed\n")
    assert program.begin(node.given(project="other", planned="copying")) == {"first": False}
    assert node.record()["project"] == "harbor", "what stands is no longer what was found"
    assert (kept / "harbor.yml").read_text() == "hostname: old.example.com\n"


def test_the_command_that_puts_it_back_is_sound_shell_and_starts_the_old_directory(node: Node) -> None:
    program.begin(node.given())
    back = node.state / "adopted/put-back"
    assert back.stat().st_mode & 0o777 == 0o700
    assert subprocess.run(["bash", "-n", str(back)], check=False).returncode == 0
    text = back.read_text()
    assert f"cd {node.home}" in text
    assert "systemctl enable harbor.service" in text
    assert "docker compose -p harbor up -d log" in text
    assert "UPDATE properties SET v = 'false' WHERE k = 'read_only'" in text


def test_what_a_flow_puts_back_can_be_adopted_again(node: Node) -> None:
    program.begin(node.given())
    node.at("moving")
    back = node.state / "adopted/put-back"
    lines = [line for line in back.read_text().splitlines() if line.startswith(("exec 9", "flock ", "sed "))]
    back.write_text("\n".join(["#!/bin/bash", "set -eu", *lines, ""]))
    assert program.put_back({}) == {"changed": True}
    assert node.record()["phase"] == "copying"


@pytest.mark.parametrize(
    ("phase", "after"),
    [("copying", "copying"), ("moving", "returned"), ("moved", "returned"), ("done", "returned")],
)
def test_what_was_put_back_is_noted_so_that_no_old_copy_is_taken_for_a_whole_one(
    phase: str, after: str, node: Node
) -> None:
    program.begin(node.given())
    node.at(phase)
    back = node.state / "adopted/put-back"
    lines = [line for line in back.read_text().splitlines() if line.startswith("sed ")]
    for _ in range(2):
        subprocess.run(["bash", "-euc", "\n".join(lines)], check=True)
    assert node.record()["phase"] == after
    assert node.record().get("was") == (None if phase == "copying" else phase)
    program.begin(node.given(planned=after))
    assert (node.record()["phase"], node.record().get("was")) == ("copying", None), "it can be adopted again"


def described(home: Path, *, running: bool = True) -> str:
    labels = {"com.docker.compose.project.working_dir": str(home)}
    return json.dumps(
        [{"Config": {"Labels": labels, "Env": []}, "State": {"Running": running}, "Mounts": []}]
    )


def test_taking_it_down_stops_its_unit_first_which_would_start_it_again(node: Node) -> None:
    program.begin(node.given())
    node.at("moved")
    gone = node.root / "gone"
    (node.root / "docker.sh").write_text(
        f"case $1 in inspect) echo '{described(node.home)}' ;;\n"
        f'ps) [ -e {gone} ] || printf "core\\tharbor-core\\t1\\tUp 2 hours\\n" ;;\n'
        f'compose) [ "$4" != down ] || touch {gone} ;; esac\n'
    )
    assert program.take_down({"directory": str(node.home)}) == {"changed": True, "removed": 1}
    called = [line for line in node.called() if "disable" in line or line.endswith(" down")]
    assert called == ["systemctl disable --now harbor.service", "docker compose -p harbor down"]


def test_while_it_is_taken_down_nobody_puts_it_back(node: Node) -> None:
    program.begin(node.given())
    node.at("moved")
    gone, guard = node.root / "gone", node.state / ".adoption.lock"
    (node.root / "docker.sh").write_text(
        f"case $1 in inspect) echo '{described(node.home)}' ;;\n"
        f'ps) [ -e {gone} ] || printf "core\\tharbor-core\\t1\\tUp 2 hours\\n" ;;\n'
        f'compose) [ "$4" != down ] || {{ flock -n {guard} true && echo free || echo taken; }} > {gone} ;; esac\n'
    )
    assert program.take_down({"directory": str(node.home)})["changed"]
    assert gone.read_text() == "taken\n"


@pytest.mark.parametrize("phase", ["returned", "returning"])
@pytest.mark.parametrize(
    "asked",
    [
        {"do": "phase", "phase": "moving"},
        {"do": "phase", "phase": "moved"},
        {"do": "phase", "phase": "done"},
        {"do": "down"},
        {"do": "read-only", "admin_password": "x"},
        {"do": "back"},
        {"do": "begin", "planned": "moving"},
    ],
    ids=lambda asked: "-".join(asked.values()),
)
def test_a_flow_that_wakes_after_its_operator_has_put_the_old_harbor_back_leaves_it_alone(
    asked: dict[str, Any], phase: str, node: Node
) -> None:
    """It took it down, with all that was pushed to it since, and noted `moved` over `returned`."""
    program.begin(node.given())
    node.at(phase)
    before, called = node.record(), node.called()
    (node.root / "docker.sh").write_text(f"[ $1 != inspect ] || echo '{described(node.home)}'\n")
    answer = program.act({**node.given(), "directory": str(node.home), **asked})
    assert answer["stands_at"] == phase
    assert answer["step_of"] != phase
    assert node.record() == before
    assert node.called() == called, "nothing was stopped, started or asked"


def test_nothing_is_taken_down_before_the_pair_has_its_rows(node: Node) -> None:
    program.begin(node.given())
    for phase in ("copying", "moving", "done"):
        node.at(phase)
        assert program.act({"do": "down", "directory": str(node.home)})["stands_at"] == phase
    assert not any("compose" in line and line.endswith(" down") for line in node.called())


def test_a_phase_is_come_to_from_the_one_before_it_only_and_again_it_is_no_change(node: Node) -> None:
    program.begin(node.given())
    assert program.act({"do": "phase", "phase": "moved"}) == {"stands_at": "copying", "step_of": "moving"}
    node.at("moving")
    assert program.act({"do": "phase", "phase": "moving"}) == {"changed": False}
    assert program.act({"do": "phase", "phase": "done"}) == {"stands_at": "moving", "step_of": "moved"}
    assert program.act({"do": "phase", "phase": "moved"}) == {"changed": True}
    assert program.act({"do": "phase", "phase": "moved"}) == {"changed": False}
    assert program.act({"do": "phase", "phase": "done"}) == {"changed": True}


@pytest.fixture
def log_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have something listen where Harbor's log container does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(program, "LOG_PORT", listener.getsockname()[1])
        yield


def test_that_it_is_put_back_is_noted_before_the_old_harbor_starts_and_a_run_cut_off_is_run_again(
    node: Node, log_port: None
) -> None:
    """Noted at the end it was too late: the old Harbor took pushes already, and the flow noted over it."""
    program.begin(node.given())
    node.at("moved")
    phases, broken = node.root / "phases", node.root / "broken"
    broken.touch()
    (node.root / "docker.sh").write_text(
        f'grep -o \'"phase": "[a-z]*"\' {node.state}/harbor_adoption.json >> {phases}\n'
        f'[ ! -e {broken} ] || [ "$*" != "compose -p harbor up -d" ] || exit 1\n'
    )
    back = [str(node.state / "adopted/put-back")]
    assert subprocess.run(back, capture_output=True, check=False).returncode == 1
    assert node.record()["phase"] == "returning"
    assert program.act({"do": "down", "directory": str(node.home)})["stands_at"] == "returning"
    broken.unlink()
    subprocess.run(back, capture_output=True, check=True)
    assert (node.record()["phase"], node.record()["was"]) == ("returned", "moved")
    assert set(phases.read_text().splitlines()) == {'"phase": "returning"'}


def test_the_command_that_puts_it_back_waits_for_a_step_that_is_at_work(node: Node, log_port: None) -> None:
    program.begin(node.given())
    node.at("moving")
    with program.standing_at("moving"):
        waiting = subprocess.Popen([str(node.state / "adopted/put-back")], stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        assert node.record()["phase"] == "moving"
    assert waiting.wait(30) == 0
    assert node.record()["phase"] == "returned"


def test_the_sites_own_containers_are_never_taken_down_for_the_old_ones(node: Node) -> None:
    program.begin(node.given())
    node.at("moved")
    (node.root / "docker.sh").write_text(f"[ $1 != inspect ] || echo '{described(Path('/opt/harbor'))}'\n")
    assert program.take_down({"directory": str(node.home)}) == {"changed": False}
    assert not any(line.endswith(" down") for line in node.called())


def test_a_harbor_that_does_not_become_read_only_is_an_error(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.begin(node.given())
    (node.root / "docker.sh").write_text(f"[ $1 != inspect ] || echo '{described(node.home)}'\n")
    monkeypatch.setattr(program, "read_only_of", lambda _: (200, False))
    monkeypatch.setattr(program, "ask_harbor", lambda *_: (403, None))
    monkeypatch.setattr(program, "poll", lambda condition, *_: condition() or None)
    with pytest.raises(SystemExit, match="does not become read-only"):
        program.refuse_writes({"admin_password": "x"})
    assert node.record()["phase"] == "moving", "noted before, so that the next run takes it back"


def test_the_old_settings_are_the_beginning_of_the_sites_and_never_overwrite_them(node: Node) -> None:
    new = node.root / "opt/harbor"
    given = {"directory": str(node.home), "install_dir": str(new)}
    assert program.old_files(given) == {"changed": True, "done": ["harbor.yml"]}
    (new / "harbor.yml").write_text("hostname: site\n")
    assert program.old_files(given)["changed"] is False
    assert (new / "harbor.yml").read_text() == "hostname: site\n"


def test_an_adoption_that_was_begun_is_found_when_the_old_containers_are_gone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.begin(node.given())
    (node.root / "docker.sh").write_text("exit 1\n")
    given = {
        "install_dir": str(node.root / "opt/harbor"),
        "data_volume": "/data/harbor",
        "nas_images": "/mnt/nas/registry",
        "unit_directories": [],
    }
    seen = harbor_found.look(given)
    assert (seen["found"], seen["directory"], seen["runs"]) == (True, str(node.home), False)
    assert seen["adoption"] == "copying"
    node.at("done")
    assert harbor_found.look(given)["found"] is False


def test_odd_answers_of_docker_and_harbor_are_no_answer(node: Node) -> None:
    for text in (
        "exit 1\n",
        "echo '[{}]'\n",
        'echo \'[{"NetworkSettings": {"Ports": {"8443/tcp": null}}}]\'\n',
    ):
        (node.root / "docker.sh").write_text(text)
        assert adoption_look.published_port() == ("https", 0)
        assert adoption_look.read_only_of("x") == (0, False)
        assert adoption_look.about_database() == {}
    (node.root / "docker.sh").write_text("echo '130015|54000000|registry,postgres'\n")
    assert adoption_look.about_database() == {"major": 13, "bytes": 54000000, "names": ["registry"]}


def test_containers_without_composes_label_are_told_since_they_could_not_be_stopped(node: Node) -> None:
    given = {
        "directory": str(node.home),
        "data_volume": "/data",
        "images_at": str(node.root / "no"),
        "nas": str(node.root),
        "nas_images": str(node.root / "registry"),
        "admin_password": "x",
        "limit_s": 1.0,
        "external": False,
    }
    mounts = [{"Destination": "/etc/core/app.conf", "Source": f"{node.home}/common/config/core/app.conf"}]
    bare = [{"Config": {"Labels": {}, "Env": []}, "State": {"Running": True}, "Mounts": mounts}]
    (node.root / "docker.sh").write_text(f"[ $1 != inspect ] || echo '{json.dumps(bare)}'\n")
    seen = adoption_look.look_deeper(given)
    assert (seen["labelled"], seen["compose_file"], seen["nas_free"]) == (False, True, None)
    (node.root / "docker.sh").write_text(f"[ $1 != inspect ] || echo '{described(node.home)}'\n")
    assert adoption_look.look_deeper(given)["labelled"] is True


def test_how_an_external_database_is_reached_is_kept_for_root_alone_and_put_back_uses_it(node: Node) -> None:
    kept = node.state / "adopted"
    given = node.given(psql="/usr/lib/postgresql/15/bin/psql", access={"database.pass": "*:*:*:*:Secret-1\n"})
    program.begin(given)
    assert (kept / "database.pass").stat().st_mode & 0o777 == 0o600
    text = (kept / "put-back").read_text()
    assert subprocess.run(["bash", "-n", str(kept / "put-back")], check=False).returncode == 0
    assert "Secret-1" not in text
    assert f"PGSERVICEFILE={kept}/database.service timeout 60 /usr/lib/postgresql/15/bin/psql" in text
    assert "harbor-db" not in text
    # When its rows are in the pair the database is not asked again, and what was written stays.
    program.begin(given | {"access": {}, "planned": "copying"})
    assert (kept / "database.pass").exists()
    assert (kept / "put-back").read_text() == text
