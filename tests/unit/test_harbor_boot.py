"""What a node starts by itself after its Docker engine came up: what the engine could not, and nothing else."""

import json
from typing import Any

import pytest

from tasks.harbor.on_node import boot, next_core
from tasks.harbor.on_node.containers import Found

NO_LOG = "failed to initialize logging driver: dial tcp 127.0.0.1:1514: connect: connection refused"


ENGINE_SINCE = 1_800_000_000.0
BEFORE, AFTER = "2027-01-15T07:59:58.9Z", "2027-01-15T08:00:00.1Z"


def node(monkeypatch: pytest.MonkeyPatch, states: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A node with these containers, whose engine started at ENGINE_SINCE; gives what changes something."""
    commands: list[list[str]] = []
    found = {name: Found(name, name, name, bool(state["Running"])) for name, state in states.items()}

    def must(argv: list[str], timeout: float) -> str:
        if argv[:2] == ["docker", "inspect"]:
            return json.dumps([{"Name": "/" + name, "State": states[name]} for name in argv[4:]])
        commands.append(argv)
        return ""

    monkeypatch.setattr(next_core, "described", lambda name: None)
    monkeypatch.setattr(boot, "containers", lambda home: found)
    monkeypatch.setattr(boot, "must", must)
    monkeypatch.setattr(boot, "engine_since", lambda: ENGINE_SINCE)
    monkeypatch.setattr(boot, "require_nas", lambda nas: None)
    monkeypatch.setattr(boot, "require_log", lambda: None)
    return commands


def test_what_came_before_the_log_listened_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = node(
        monkeypatch,
        {
            "harbor-log": {"Running": True, "Error": "", "StartedAt": AFTER},
            "registry": {"Running": False, "Error": NO_LOG},
            "redis": {"Running": False, "Error": NO_LOG},
        },
    )
    boot.boot("/opt/harbor", "/nas", 443, "/not/fenced")
    assert commands == [["docker", "start", "redis", "registry"]]


def test_a_log_that_could_not_be_started_itself_is_started_before_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = node(
        monkeypatch,
        {
            "harbor-log": {"Running": False, "Error": "driver failed programming external connectivity"},
            "harbor-core": {"Running": False, "Error": NO_LOG},
        },
    )
    boot.boot("/opt/harbor", "/nas", 443, "/not/fenced")
    assert commands == [["docker", "start", "harbor-log"], ["docker", "start", "harbor-core"]]


def test_what_somebody_stopped_stays_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = node(
        monkeypatch,
        {
            "harbor-log": {"Running": True, "Error": "", "StartedAt": AFTER},
            "registry": {"Running": False, "Error": ""},
        },
    )
    boot.boot("/opt/harbor", "/nas", 443, "/not/fenced")
    assert commands == []


def test_before_the_nas_is_mounted_nothing_is_started_and_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = node(monkeypatch, {"registry": {"Running": False, "Error": "invalid mount config"}})

    def not_mounted(nas: str) -> None:
        raise SystemExit(f"The NAS is not mounted at {nas}; Harbor was not started.")

    monkeypatch.setattr(boot, "require_nas", not_mounted)
    with pytest.raises(SystemExit) as ended:
        boot.boot("/opt/harbor", "/nas", 443, "/not/fenced")
    # A message is a failed status to systemd, which tries again.
    assert isinstance(ended.value.code, str)
    assert commands == []


def test_a_node_that_fenced_itself_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    commands = node(monkeypatch, {"harbor-core": {"Running": False, "Error": NO_LOG}})
    fenced = tmp_path / "self_fence.json"
    fenced.write_text("{}")
    with pytest.raises(SystemExit):
        boot.boot("/opt/harbor", "/nas", 443, str(fenced))
    assert commands == []


def test_what_outlived_its_engine_has_no_network_and_is_restarted_the_log_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = node(
        monkeypatch,
        {
            "registry": {"Running": True, "Error": "", "StartedAt": BEFORE},
            "harbor-log": {"Running": True, "Error": "", "StartedAt": BEFORE},
            "harbor-portal": {"Running": True, "Error": "", "StartedAt": AFTER},
            "redis": {"Running": False, "Error": "", "StartedAt": BEFORE},
        },
    )
    boot.boot("/opt/harbor", "/nas", 443, "/not/fenced")
    assert commands == [
        ["docker", "restart", "-t", "1", "harbor-log"],
        ["docker", "restart", "-t", "3", "registry"],
    ]


def test_an_engine_whose_containers_outlive_it_by_intent_has_no_orphans() -> None:
    assert boot.left_behind({"registry": {"Running": True, "StartedAt": BEFORE}}, 0.0) == []
