"""daemon.json belongs to the operator; we add to it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.docker import daemon, engine
from tasks.docker.daemon import merged
from tasks.errors import HarborHaError, Refused
from tasks.hosts.connection import Completed, Host
from tests.unit.harbor_site import make_site


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


def test_a_node_with_everything_in_force_is_unchanged(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.docker.registry_mirrors = ["https://mirror.example.com"]
    node = Node({"how": ""}, daemon_json=merged(None, site.docker.registry_mirrors, []))
    assert not daemon.configure(site, cast(Host, node)).changed


def facts(**changes: Any) -> dict[str, Any]:
    """Facts of a node with everything installed."""
    return {"engine": "24.0.7", "compose_plugin": "2.24.5", "compose_v1": False, "enabled": True, **changes}


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
    assert engine.EngineFacts("20.10.24+dfsg1", None, True, True).compose == ("docker-compose",)
    assert engine.EngineFacts("24.0.7", "2.24.5", True, True).compose == ("docker", "compose")


def test_an_engine_that_harbor_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarborHaError, match="too old"):
        engine.install(make_site(tmp_path), cast(Host, Node(facts(engine="1.13.1"))))
