"""What is different on Ubuntu, as far as it can be told without one: no test here runs on Ubuntu."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from flows.rules.preflight import plan_bootstrap
from tasks.docker import engine
from tasks.docker.on_node import engine_facts
from tasks.errors import HarborHaError, Refused, RemoteCommandFailed
from tasks.hosts import packages
from tasks.hosts.connection import Completed, Host
from tasks.hosts.observation import SiteSeen
from tasks.hosts.on_node import preflight_probe
from tests.unit.harbor_site import make_site, program
from tests.unit.site_on_disk import NOW
from tests.unit.test_preflight_rule import node

OS_RELEASE = """PRETTY_NAME="Ubuntu {version} LTS"
NAME="Ubuntu"
VERSION_ID="{version}"
VERSION="{version} LTS"
ID=ubuntu
ID_LIKE=debian
"""
# The packages that each release has, of those that are asked for.
RELEASES = {
    "20.04": {"docker.io", "docker-compose", "docker-compose-v2"},
    "22.04": {"docker.io", "docker-compose", "docker-compose-v2"},
    "24.04": {"docker.io", "docker-compose", "docker-compose-v2"},
}
BARE = {"engine": None, "client": False, "compose_plugin": None, "compose_v1": None, "enabled": False}
WHOLE = {"engine": "24.0.7", "client": True, "compose_plugin": "2.24.6", "compose_v1": None, "enabled": True}


class Node:
    """A node with the packages of a release; it keeps how apt was called."""

    name = "node-a"

    def __init__(self, *answers: Any, has: Sequence[str] = (), refuses: str = "") -> None:
        self.answers, self.has, self.refuses = list(answers), set(has), refuses
        self.ran: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.ran.append(tuple(argv))
        if self.refuses and "apt-get" in argv:
            refuses, self.refuses = self.refuses, ""
            raise RemoteCommandFailed("apt-get", self.name, 100, refuses)
        said = f"  Candidate: {'1.0' if argv[-1] in self.has else '(none)'}\n" if "policy" in argv else ""
        return Completed(tuple(argv), 0, said, "")

    def python(self, source: str, payload: object = None, **_: Any) -> Any:
        return self.answers.pop(0)

    @property
    def installed(self) -> list[str]:
        """What apt was asked to install."""
        return [word for argv in self.ran if "install" in argv for word in argv[argv.index("install") + 1 :]]


@pytest.mark.parametrize(
    ("version", "supported"), [("18.04", False), ("20.04", True), ("22.04", True), ("24.04", True)]
)
def test_a_release_is_known_by_what_it_says_of_itself(
    version: str, supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_probe, "text", lambda path: OS_RELEASE.format(version=version))
    found = preflight_probe.operating_system()
    assert found == {"id": "ubuntu", "version": version}
    seen = [node(name, os_id=found["id"], os_version=found["version"]) for name in ("node-a", "node-b")]
    site = make_site(tmp_path)
    if supported:
        assert plan_bootstrap(site, SiteSeen(seen), NOW).first_time
    else:
        with pytest.raises(Refused, match=r"ubuntu 18\.04 is not supported"):
            plan_bootstrap(site, SiteSeen(seen), NOW)


@pytest.mark.parametrize("version", RELEASES)
def test_compose_is_the_plugin_under_the_name_that_ubuntu_gives_it(version: str, tmp_path: Path) -> None:
    machine = Node(BARE, {}, WHOLE, has=sorted(RELEASES[version]))
    assert engine.install(make_site(tmp_path), cast(Host, machine)).changed
    # The client is in docker.io itself.
    assert machine.installed == ["docker.io", "docker-compose-v2"]


@pytest.mark.parametrize(
    "said",
    [
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1414 (unattended-upgr)\n"
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        "E: Could not get lock /var/lib/dpkg/lock-frontend - open (11: Resource temporarily unavailable)",
        "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 902 (apt-get)",
    ],
    ids=["22.04", "20.04", "the lists"],
)
def test_an_unattended_upgrade_is_waited_for(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_POLL_S", 0.01)
    machine = Node(refuses=said)
    packages.install(cast(Host, machine), ["postgresql-16"])
    assert machine.installed == ["postgresql-16", "postgresql-16"]


def test_needrestart_does_not_restart_the_database_because_a_package_was_installed() -> None:
    machine = Node()
    packages.refresh(cast(Host, machine))
    packages.install(cast(Host, machine), ["nfs-common"])
    assert all("NEEDRESTART_SUSPEND=1" in argv for argv in machine.ran)


def test_an_engine_that_came_as_a_snap_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program(tmp_path / "bin", "systemctl", "exit 1")
    monkeypatch.setattr(engine_facts, "SNAP", str(tmp_path / "snap/bin/docker"))
    assert not engine_facts.observe([])["snap"]
    # Over SSH, without a login, its directory is not on the path: it looks as if there were no engine at all.
    program(tmp_path / "snap/bin", "docker", "exit 1")
    assert engine_facts.observe([])["snap"]


def test_an_engine_that_came_as_a_snap_is_refused_before_another_is_put_beside_it(tmp_path: Path) -> None:
    machine = Node({**BARE, "snap": True}, has=sorted(RELEASES["24.04"]))
    with pytest.raises(HarborHaError, match="snap remove docker"):
        engine.install(make_site(tmp_path), cast(Host, machine))
    assert machine.installed == []
    confined = engine.EngineFacts(None, False, None, None, False, snap=True)
    seen = [node("node-a", docker=confined), replace(node("node-b"))]
    with pytest.raises(Refused, match=r"node-a: Docker is a snap.*snap remove docker"):
        plan_bootstrap(make_site(tmp_path), SiteSeen(seen), NOW)


def test_what_a_node_says_of_its_engine_is_what_is_read(tmp_path: Path) -> None:
    said = json.loads(json.dumps(engine_facts.observe([])))
    assert engine.EngineFacts(**said).snap == said["snap"]
