"""A package is there when dpkg says so, not when its programs are; what was interrupted is finished."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.errors import RemoteCommandFailed
from tasks.hosts import nas, packages, preflight
from tasks.hosts.connection import Host
from tasks.on_node import package_states
from tests.unit.harbor_site import make_site

INTERRUPTED = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 99 (apt-get)"


@pytest.fixture
def dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dpkg-query on the path that shows what a file holds, and ends with 1 as for an unknown package."""
    program, shown = tmp_path / "dpkg-query", tmp_path / "shown"
    program.write_text(f"#!/bin/sh\ncat {shown}\necho dpkg-query: no packages found >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return shown


@pytest.mark.parametrize(
    ("state", "lacks", "half"),
    [
        ("", True, False),
        ("postgresql-15 not-installed", True, False),
        ("postgresql-15 config-files", True, False),
        ("postgresql-15 half-installed", True, True),
        ("postgresql-15 unpacked", True, True),
        ("postgresql-15 half-configured", True, True),
        ("postgresql-15 triggers-awaited", True, True),
        ("postgresql-15 installed", False, False),
    ],
)
def test_only_an_installed_package_is_there(dpkg: Path, state: str, lacks: bool, half: bool) -> None:
    dpkg.write_text(f"{state}\nzstd installed\n" if state else "zstd installed\n")
    names = ["postgresql-15", "zstd"]
    assert package_states.lacking(names) == names[:1] * lacks
    assert package_states.half_installed(names) == names[:1] * half


def test_a_node_without_dpkg_lacks_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package_states.lacking(["zstd"]) == ["zstd"]


def test_nothing_asked_is_nothing_lacking(dpkg: Path) -> None:
    dpkg.write_text("zstd unpacked\n")
    assert package_states.lacking([]) == []
    assert package_states.half_installed([]) == []


class Node:
    """A node whose apt fails with the given messages, one a call, and then succeeds."""

    name = "node-a"

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], **_: Any) -> None:
        self.ran.append(" ".join(argv))
        if "apt-get" in argv and self.failures:
            raise RemoteCommandFailed("apt-get", "node-a", 100, self.failures.pop(0))


def test_an_installation_that_a_power_cut_interrupted_is_finished_first() -> None:
    node = Node(INTERRUPTED)
    packages.install(cast(Host, node), ["postgresql-15"])
    first, configured, again = node.ran
    assert configured.endswith("--configure -a")
    assert again == first
    assert first.endswith("install postgresql-15")


def test_another_installation_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_POLL_S", 0.01)
    node = Node(LOCKED, LOCKED)
    packages.refresh(cast(Host, node))
    assert [command.endswith("update") for command in node.ran] == [True] * 3


def test_it_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_LOCKED_S", -1.0)
    node = Node(LOCKED)
    with pytest.raises(packages.AptBusy, match=r"held by process 99 \(apt-get\)[\s\S]*Let the process"):
        packages.install(cast(Host, node), ["postgresql-15"])
    assert len(node.ran) == 1


@pytest.mark.parametrize("failures", [("E: Unable to fetch some archives",), (INTERRUPTED, INTERRUPTED)])
def test_any_other_failure_of_apt_is_told_and_not_tried_again(failures: tuple[str, ...]) -> None:
    node = Node(*failures)
    with pytest.raises(RemoteCommandFailed, match="apt-get"):
        packages.install(cast(Host, node), ["postgresql-15"])
    assert node.failures == []
    assert len(node.ran) == 2 * len(failures) - 1


@pytest.mark.parametrize(
    ("source", "fs_type", "wal_archive", "needed"),
    [
        (None, "nfs", "disk", []),
        ("nas.example.com:/share", "nfs", "disk", ["nfs-common"]),
        ("nas.example.com:/share", "nfs4", "disk", ["nfs-common"]),
        ("/dev/vdb1", "ext4", "disk", []),
        (None, "nfs", "oss", ["pgbackrest"]),
    ],
)
def test_the_preflight_asks_for_every_package_that_the_site_needs(
    tmp_path: Path, source: str | None, fs_type: str, wal_archive: str, needed: list[str]
) -> None:
    site = make_site(tmp_path)
    site.nas.source, site.nas.fs_type = source, fs_type
    site.backup.wal_archive = wal_archive  # type: ignore[assignment]
    asked = preflight.packages_of(site, "node-a")
    assert sorted(asked) == sorted(["postgresql-15", "zstd", *needed])


class NfsNode(Node):
    """A node that lacks what it is asked for, and mounts what it is told to."""

    def python(self, source: str, payload: object = None, *, timeout: float = 30.0) -> object:
        return payload if isinstance(payload, list) else {"changed": True}


def test_a_bare_node_gets_what_nfs_needs_before_the_nas_is_mounted(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.nas.source = "nas.example.com:/share"
    node = NfsNode()
    assert nas.mount(site, cast(Host, node)).changed
    refreshed, installed = node.ran
    assert refreshed.endswith("update")
    assert installed.endswith("install nfs-common")
