"""daemon.json belongs to the operator; we add to it."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.docker import daemon, engine
from tasks.docker.daemon import merged
from tasks.docker.on_node import engine_start
from tasks.errors import HarborHaError, Refused, RemoteCommandFailed
from tasks.hosts.connection import Completed, Host
from tasks.node_program import node_program
from tests.unit.harbor_site import make_site, program
from tests.unit.local_host import LocalHost


class Node:
    """A node that keeps files, answers programs with what the test prepared, and has every package but the plugin."""

    name = "node-a"

    def __init__(self, *answers: Any, daemon_json: str | None = None) -> None:
        self.answers = list(answers)
        self.file = daemon_json
        self.asked: list[Any] = []
        self.installed: list[str] = []

    def run(self, argv: Sequence[str], *, timeout: float = 30.0) -> Completed:
        if "install" in argv:
            self.installed = list(argv[argv.index("install") + 1 :])
        candidate = "(none)" if argv[-1] in engine.COMPOSE_CHOICES[:2] else "1.0"
        return Completed(tuple(argv), 0, f"  Candidate: {candidate}\n", "")

    def python(self, source: str, payload: object = None, *, timeout: float = 30.0) -> Any:
        self.asked.append(payload)
        return self.answers.pop(0)

    def read(self, path: str) -> bytes | None:
        return None if self.file is None else self.file.encode()

    def put(self, path: str, content: str) -> bool:
        self.file = content
        return True


def test_a_node_without_daemon_json_gets_one() -> None:
    text = merged(None, ["https://mirror.example.com"], ["registry.example.com:5000"])
    assert json.loads(text) == {
        "registry-mirrors": ["https://mirror.example.com"],
        "insecure-registries": ["registry.example.com:5000"],
    }


def test_what_the_operator_had_stays_and_comes_first() -> None:
    had = '{"data-root": "/data/docker", "registry-mirrors": ["https://his.example.com"]}'
    found = json.loads(merged(had, ["https://ours.example.com"], []))
    assert found == {
        "data-root": "/data/docker",
        "registry-mirrors": ["https://his.example.com", "https://ours.example.com"],
    }


def test_a_mirror_that_differs_only_by_its_last_slash_is_there_already() -> None:
    had = '{"registry-mirrors":   ["https://mirror.example.com/"]}'
    assert merged(had, ["https://mirror.example.com"], []) == had


def test_the_second_merge_changes_not_even_the_layout() -> None:
    first = merged('{"debug": true}', ["https://a.example.com"], ["b:5000"])
    assert merged(first, ["https://a.example.com"], ["b:5000"]) == first


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Refused) as caught:
        merged('{"insecure-registries": "b:5000"}', ["mirror.example.com"], ["b:5000"])
    assert len(caught.value.reasons) == 2


@pytest.mark.parametrize("broken", ["{", "[]", '"text"'])
def test_a_file_that_is_not_a_json_object_is_refused_and_not_replaced(broken: str, tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.docker.registry_mirrors = ["https://mirror.example.com"]
    node = Node(daemon_json=broken)
    with pytest.raises(Refused, match="node-a"):
        daemon.configure(site, cast(Host, node))
    assert node.file == broken
    assert node.asked == []


def test_a_run_that_was_killed_before_the_reload_is_completed_by_the_next(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.docker.registry_mirrors = ["https://mirror.example.com"]
    written = merged(None, site.docker.registry_mirrors, [])
    node = Node({"how": "reloaded"}, daemon_json=written)
    assert daemon.configure(site, cast(Host, node)).changed
    assert node.asked[0]["wanted"] is None


def test_a_node_with_everything_in_force_is_unchanged(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.docker.registry_mirrors = ["https://mirror.example.com"]
    node = Node({"how": ""}, daemon_json=merged(None, site.docker.registry_mirrors, []))
    assert not daemon.configure(site, cast(Host, node)).changed


def facts(**changes: Any) -> dict[str, Any]:
    """Facts of a node with everything installed."""
    whole = {
        "engine": "24.0.7",
        "client": True,
        "compose_plugin": "2.24.5",
        "compose_v1": None,
        "enabled": True,
    }
    return {**whole, **changes}


def test_an_engine_that_the_operator_installed_is_kept(tmp_path: Path) -> None:
    node = Node(facts())
    outcome = engine.install(make_site(tmp_path), cast(Host, node))
    assert not outcome.changed
    assert "24.0.7" in outcome.detail
    assert len(node.asked) == 1


@pytest.mark.parametrize(
    ("lacking", "installed"),
    [
        ({"engine": None}, ["docker.io"]),
        ({"engine": None, "client": False}, ["docker.io", "docker-cli"]),
        ({"engine": "", "client": False}, ["docker-cli"]),
        ({"engine": ""}, []),
        ({"compose_plugin": None}, ["docker-compose"]),
        ({"enabled": False}, []),
        ({"half_installed": ["docker.io"]}, ["docker.io"]),
        ({"engine": None, "half_installed": ["docker.io"]}, ["docker.io"]),
        ({"compose_plugin": None, "half_installed": ["docker-compose"]}, ["docker-compose"]),
        ({"engine": None, "compose_plugin": None}, ["docker.io", "docker-compose"]),
    ],
)
def test_whatever_is_missing_or_half_there_is_installed_or_started(
    lacking: dict[str, Any], installed: list[str], tmp_path: Path
) -> None:
    node = Node(facts(**lacking), {}, facts())
    assert engine.install(make_site(tmp_path), cast(Host, node)).changed
    assert node.installed == installed


def test_compose_1_is_taken_where_the_plugin_is_missing() -> None:
    assert engine.EngineFacts("20.10.24+dfsg1", True, None, "1.29.2", True).compose == ("docker-compose",)
    assert engine.EngineFacts("24.0.7", True, "2.24.5", "1.29.2", True).compose == ("docker", "compose")


def test_an_engine_that_harbor_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarborHaError, match="too old"):
        engine.install(make_site(tmp_path), cast(Host, Node(facts(engine="1.13.1"))))


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., engine.EngineFacts]:
    """Run the program that looks, on a node whose programs are those that the test gives."""
    tools = tmp_path / "bin"
    program(tools, "systemctl", "exit 0")
    (tools / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tools))

    def with_programs(**bodies: str) -> engine.EngineFacts:
        for name, body in bodies.items():
            program(tools, name.replace("_", "-"), body)
        return engine.observe(cast(Host, LocalHost()))

    return with_programs


ANSWERS = 'case "$1" in version) echo 26.1.5 ;; *) exit 1 ;; esac'


def test_an_engine_without_a_client_is_told_from_one_that_does_not_answer(
    look: Callable[..., engine.EngineFacts],
) -> None:
    assert (found := look(dockerd="exit 0")).engine == ""
    assert (found.client, found.lacks_packages) == (False, True)
    found = look(docker="exit 1", docker_compose="echo 1.25.0")
    assert (found.engine, found.client, found.lacks_packages) == ("", True, False)
    assert look(docker=ANSWERS).engine == "26.1.5"


def test_a_client_alone_is_no_engine(look: Callable[..., engine.EngineFacts]) -> None:
    assert look(docker="exit 1").engine is None


def test_docker_compose_is_there_when_it_says_its_version(look: Callable[..., engine.EngineFacts]) -> None:
    assert look(docker=ANSWERS, docker_compose="echo 1.25.0").compose_v1 == "1.25.0"
    assert look(docker_compose="exit 1").compose == ()


def test_without_a_client_the_start_does_not_say_that_the_engine_is_silent(
    look: Callable[..., engine.EngineFacts],
) -> None:
    look(dockerd="exit 0")
    with pytest.raises(RemoteCommandFailed, match="no program `docker`"):
        LocalHost().python(node_program(engine_start), {})
