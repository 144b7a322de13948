"""What of Harbor is started before its core looks at it, while its database comes back."""

from typing import Any

import pytest

from tasks.harbor.on_node import start as program
from tasks.harbor.on_node.containers import Found

GIVEN = {"part": "before_core", "install_dir": "/opt/harbor", "nas": "/mnt/nas"}


class Engine:
    """Containers, and what was done to them, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **running: bool) -> None:
        self.found = {
            service: Found(service, f"harbor-{service}", service, runs) for service, runs in running.items()
        }
        self.done: list[str] = []
        self.status = 0
        monkeypatch.setattr(program, "containers", lambda home: self.found)
        monkeypatch.setattr(program, "require_nas", lambda path: self.done.append("nas"))
        monkeypatch.setattr(program, "require_log", lambda: self.done.append("log answers"))
        monkeypatch.setattr(program, "run", self.run)

    def run(self, argv: list[str], timeout: float) -> tuple[int, str, str]:
        assert argv[:2] == ["docker", "start"]
        self.done.append(" ".join(argv[2:]))
        return self.status, "", "no such image"


def down(monkeypatch: pytest.MonkeyPatch, **changes: bool) -> Engine:
    services = ("log", "registry", "registryctl", "portal", "core", "jobservice", "proxy")
    return Engine(monkeypatch, **{**dict.fromkeys(services, False), **changes})


def test_the_registry_runs_before_core_does_and_nothing_with_a_database_or_clients_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Core saw a registry that came up a second later, said so for ten, and the node waited for its clients."""
    engine = down(monkeypatch)
    answer: Any = program.start_before_core(GIVEN)
    assert engine.done == [
        "nas",
        "harbor-log",
        "log answers",
        "harbor-registry harbor-registryctl harbor-portal",
    ]
    assert answer == {"changed": True, "started": ["harbor-registry", "harbor-registryctl", "harbor-portal"]}


def test_what_runs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = down(monkeypatch, log=True, registry=True, registryctl=True, portal=True)
    assert not program.start_before_core(GIVEN)["changed"]
    assert engine.done == ["nas"]


def test_where_no_container_was_made_yet_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    assert not program.start_before_core(GIVEN)["changed"]
    assert engine.done == ["nas"]


def test_without_its_storage_the_registry_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = down(monkeypatch)

    def away(path: str) -> None:
        raise SystemExit("The NAS is not mounted.")

    monkeypatch.setattr(program, "require_nas", away)
    with pytest.raises(SystemExit, match="NAS"):
        program.start_before_core(GIVEN)
    assert engine.done == []


def test_a_container_that_does_not_start_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = down(monkeypatch, log=True)
    engine.status = 1
    with pytest.raises(SystemExit, match=r"harbor-registryctl.*no such image"):
        program.start_before_core(GIVEN)


def test_a_log_container_that_does_not_start_is_told_and_nothing_is_started_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = down(monkeypatch)
    engine.status = 1
    with pytest.raises(SystemExit, match=r"harbor-log: no such image"):
        program.start_before_core(GIVEN)
    assert engine.done == ["nas", "harbor-log"]
