"""The next core is started beside the one that serves, and takes its place: at no time do two of them serve."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.harbor.on_node import boot, clone, containers, engine, next_core, repoint, start
from tasks.on_node import lib
from tasks.on_node.jobservice import older_than_core

CORE = {
    "Id": "0123456789abcdef" * 4,
    "Created": "2026-11-26T20:00:00.1Z",
    "State": {"Running": True, "StartedAt": "2026-11-26T20:00:00.5Z"},
    "Config": {
        "Hostname": "0123456789ab",
        "Image": "goharbor/harbor-core:v2.13.2",
        "Env": ["POSTGRESQL_HOST=10.20.0.11", "CSRF_KEY=a=b", "EMPTY="],
        "Labels": {"com.docker.compose.service": "core", clone.HASH_LABEL: "old"},
    },
    "HostConfig": {"RestartPolicy": {"Name": "always"}, "Binds": ["/data:/data"]},
    "NetworkSettings": {
        "Networks": {
            "harbor_harbor": {
                "Aliases": ["core", "0123456789ab"],
                "IPAMConfig": None,
                "IPAddress": "10.0.0.3",
            },
            "harbor_notary": {
                "Aliases": ["core", "0123456789ab"],
                "IPAMConfig": None,
                "IPAddress": "10.1.0.3",
            },
        }
    },
}


NEVER = {"Name": "no", "MaximumRetryCount": 0}


def test_the_next_core_differs_in_its_address_and_its_hash_only() -> None:
    made = clone.clone_of(json.loads(json.dumps(CORE)), {"POSTGRESQL_HOST": "10.20.0.12"}, "new")
    assert made["Env"] == ["POSTGRESQL_HOST=10.20.0.12", "CSRF_KEY=a=b", "EMPTY="]
    assert made["Labels"] == {"com.docker.compose.service": "core", clone.HASH_LABEL: "new"}
    assert made["HostConfig"] == dict(CORE["HostConfig"], RestartPolicy=NEVER), "a reboot starts one core"
    assert made["Image"] == "goharbor/harbor-core:v2.13.2"
    assert "Hostname" not in made, "it is the old container's own id"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "harbor_harbor": {"Aliases": ["core"], "IPAMConfig": None}
    }


class Engine:
    """A Docker engine that knows containers by name; `calls` is what changed something, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.containers: dict[str, dict[str, Any]] = {"harbor-core": json.loads(json.dumps(CORE))}
        self.calls: list[str] = []
        self.refuses = ""
        self.made = 0
        for module in (engine, clone, next_core, repoint):
            for name in ("engine", "described", "remove"):
                if hasattr(module, name):
                    known = {"engine": self.ask, "described": self.described, "remove": self.remove}
                    monkeypatch.setattr(module, name, known[name])
        monkeypatch.setattr(clone, "core_hash", lambda home: "abc123")

    def described(self, name: str) -> dict[str, Any] | None:
        found = self.containers.get(name)
        return None if found is None else json.loads(json.dumps(found))

    def remove(self, name: str) -> None:
        if self.containers.pop(name, None) is not None:
            self.calls.append(f"remove {name}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        _, _, name, *rest = path.partition("?")[0].split("/")
        word = " ".join([*rest, name])
        if self.refuses and self.refuses in word:
            raise engine.EngineRefused(word)
        if name == "create":
            self.create(path.partition("name=")[2], body)
            return {}
        if name not in self.containers:
            return None
        self.calls.append(word)
        if rest == ["start"]:
            self.containers[name]["State"] = {"Running": True, "StartedAt": "2026-11-26T20:05:00.5Z"}
        elif rest == ["update"]:
            self.containers[name]["HostConfig"].update(body)
        elif rest == ["rename"]:
            self.containers[path.partition("name=")[2]] = self.containers.pop(name)
        return {}

    def create(self, name: str, body: Any) -> None:
        self.made += 1
        networks = {name: dict(net) for name, net in body["NetworkingConfig"]["EndpointsConfig"].items()}
        self.containers[name] = {
            "Id": f"{self.made:x}" * 64,
            "Created": "2026-11-26T20:04:00.5Z",
            "State": {"Running": False, "StartedAt": "0001-01-01T00:00:00Z"},
            "Config": body,
            "HostConfig": body["HostConfig"],
            "NetworkSettings": {"Networks": networks},
        }


HOST = {"POSTGRESQL_HOST": "10.20.0.12"}


def test_the_swap_leaves_one_core_with_the_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Engine(monkeypatch)
    assert clone.stage("/opt/harbor", "harbor-core", HOST)
    assert docker.calls == [], "a staged core does not run"
    clone.switch("harbor-core")
    assert list(docker.containers) == ["harbor-core"]
    assert "POSTGRESQL_HOST=10.20.0.12" in docker.containers["harbor-core"]["Config"]["Env"]
    assert "start harbor-core.next" in docker.calls


def test_no_two_cores_are_ever_started_by_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Engine(monkeypatch)
    clone.stage("/opt/harbor", "harbor-core", HOST)
    clone.start_next("harbor-core")
    assert docker.containers["harbor-core.next"]["HostConfig"]["RestartPolicy"] == NEVER
    clone.switch("harbor-core")
    assert docker.calls[1:] == ["remove harbor-core", "update harbor-core.next", "rename harbor-core.next"]
    assert docker.containers["harbor-core"]["HostConfig"] == CORE["HostConfig"]


class Node:
    """A node's Harbor as `repoint` finds it: its cores, and what its proxy was told."""

    def __init__(self, docker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.by_compose: list[list[str]] = []
        self.restarted: list[str] = []
        self.docker = docker
        self.given = {"install_dir": str(tmp_path), "nas": "/nas", "host": "10.20.0.12", "timeout": 5.0}
        monkeypatch.setattr(lib, "STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setattr(repoint, "inspect", docker.described)
        monkeypatch.setattr(repoint, "require_nas", lambda path: None)
        monkeypatch.setattr(repoint, "edit", lambda home, host: [])
        monkeypatch.setattr(repoint, "core_answers", lambda address: True)
        monkeypatch.setattr(repoint, "reload_proxy", self.reload)
        monkeypatch.setattr(repoint, "compose", self.compose)
        monkeypatch.setattr(repoint, "containers", self.containers)
        monkeypatch.setattr(repoint.subprocess, "check_call", self.call)

    def reload(self, name: str) -> str:
        assert len(self.docker.containers) == 1 + ("harbor-jobservice" in self.docker.containers)
        self.told.append(self.core()["Id"])
        return "reloaded"

    def compose(self, home: str, words: list[str], timeout: float) -> str:
        next_core.drop_next_core()
        self.by_compose.append(words)
        self.docker.containers["harbor-core"] = json.loads(
            json.dumps(CORE).replace("10.20.0.11", self.given["host"]).replace("0123", "4567")
        )
        return ""

    def containers(self, home: str) -> dict[str, containers.Found]:
        name = "harbor-jobservice"
        there = name in self.docker.containers
        return {"jobservice": containers.Found("jobservice", name, "1", True)} if there else {}

    def call(self, words: list[str], **_: Any) -> int:
        self.restarted.append(words[-1])
        return 0

    def core(self) -> dict[str, Any]:
        return self.docker.containers["harbor-core"]

    def runs(self, name: str) -> bool:
        return name in self.docker.containers and bool(self.docker.containers[name]["State"]["Running"])

    def jobs_started(self, at: str) -> None:
        state = {"Running": True, "StartedAt": f"2026-11-26T{at}Z"}
        self.docker.containers["harbor-jobservice"] = {"Id": "jobs", "State": state}

    def do(self, *parts: str, host: str = "", answer_s: float = 0.0) -> dict[str, Any]:
        self.given["host"] = host or self.given["host"]
        return repoint.repoint({**self.given, "parts": list(parts), "answer_s": answer_s, "others": []})


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(Engine(monkeypatch), tmp_path, monkeypatch)


def test_the_next_core_starts_beside_the_one_that_serves_and_no_proxy_is_told(node: Node) -> None:
    old = node.core()["Id"]
    first = node.do("edit", "start")
    assert (first["connected"], first["next"]) == ("10.20.0.11", "answers")
    assert node.do("edit", "start")["next"] == "", "a second time there is nothing to do"
    assert node.runs("harbor-core")
    assert node.runs("harbor-core.next")
    assert (node.core()["Id"], node.told) == (old, [])


def test_a_next_core_that_runs_takes_the_old_ones_place_and_the_proxy_is_told_of_it(node: Node) -> None:
    node.do("edit", "start")
    started = node.docker.containers["harbor-core.next"]["Id"]
    node.docker.calls.clear()
    assert node.do("edit", "recreate")["recreated"] == ["core"]
    assert node.docker.calls == ["remove harbor-core", "update harbor-core.next", "rename harbor-core.next"]
    assert (node.core()["Id"], node.told) == (started, [started])
    assert node.do("edit", "recreate")["recreated"] == []
    assert node.told == [started], "the proxy is told once"


def test_a_next_core_that_died_of_its_read_only_database_is_started_at_the_switch(node: Node) -> None:
    node.do("edit", "start")
    node.docker.containers["harbor-core.next"]["State"]["Running"] = False
    assert node.do("edit", "recreate")["recreated"] == ["core"]
    assert node.runs("harbor-core")


@pytest.mark.parametrize("refused", ["update", "rename", "start"])
def test_what_the_engine_refuses_compose_does_and_there_is_one_core(node: Node, refused: str) -> None:
    node.docker.refuses = refused
    assert node.do("edit", "recreate")["recreated"] == ["core (by compose)"]
    assert list(node.docker.containers) == ["harbor-core"]


def test_a_next_core_that_vanishes_in_the_switch_is_noticed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boot's look removes a next core; what is renamed then is nothing, and the node would have no core."""
    ask = node.docker.ask

    def vanishes(method: str, path: str, body: Any = None) -> Any:
        if path.endswith("/update"):
            node.docker.remove("harbor-core.next")
        return ask(method, path, body)

    monkeypatch.setattr(clone, "engine", vanishes)
    assert node.do("edit", "recreate")["recreated"] == ["core (by compose)"]


def test_the_proxy_is_told_by_the_next_run_when_one_was_killed_after_the_switch(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:

    def kill(name: str) -> str:
        raise KeyboardInterrupt

    node.do("edit", "start")
    with monkeypatch.context() as killed:
        killed.setattr(repoint, "reload_proxy", kill)
        with pytest.raises(KeyboardInterrupt):
            node.do("edit", "recreate")
    assert node.told == []
    assert node.do("edit", "recreate")["recreated"] == ["core, which was started before"]
    assert node.told == [node.core()["Id"]]


def test_a_next_core_for_a_promotion_that_did_not_come_is_removed_and_the_old_one_was_never_away(
    node: Node,
) -> None:
    old = node.core()["Id"]
    node.do("edit", "start")
    assert node.do("edit", "recreate", host="10.20.0.11")["next"] == "removed"
    assert list(node.docker.containers) == ["harbor-core"]
    assert (node.core()["Id"], node.told) == (old, [])
    assert node.do("edit", "recreate")["next"] == "", "a second time there is nothing to do"


def test_a_next_core_that_cannot_be_removed_is_no_success(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise engine.EngineRefused(name)

    node.do("edit", "start")
    monkeypatch.setattr(next_core, "remove", refuse)
    with pytest.raises(engine.EngineRefused):
        node.do("edit", "recreate", host="10.20.0.11")


def test_a_next_core_left_from_a_failover_the_other_way_is_not_the_one_that_is_started(node: Node) -> None:
    node.do("edit", "start", host="10.20.0.99")
    node.do("edit", "start", host="10.20.0.12")
    assert "POSTGRESQL_HOST=10.20.0.12" in node.docker.containers["harbor-core.next"]["Config"]["Env"]
    assert node.runs("harbor-core.next")


@pytest.mark.parametrize(("started", "again"), [("20:03:00.5", []), ("20:06:00.5", ["harbor-jobservice"])])
def test_jobservice_is_restarted_after_an_abort_if_it_may_have_asked_the_next_core(
    node: Node, started: str, again: list[str]
) -> None:
    node.jobs_started(started)
    node.do("edit", "start")
    node.do("edit", "recreate", host="10.20.0.11")
    node.do("jobservice")
    assert node.restarted == again


def test_jobservice_is_restarted_if_it_started_beside_two_cores_of_which_one_is_gone(node: Node) -> None:
    node.do("edit", "start")
    node.jobs_started("20:06:00.5")
    node.do("edit", "recreate")
    node.do("jobservice")
    assert node.restarted == ["harbor-jobservice"]


def test_an_answer_is_waited_for_only_while_the_next_core_runs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(repoint, "core_answers", lambda address: next(answers, True))
    assert node.do("edit", "start", answer_s=5.0)["next"] == "answers"
    node.docker.containers["harbor-core.next"]["State"]["Running"] = False
    monkeypatch.setattr(repoint, "core_answers", lambda address: pytest.fail("it is dead"))
    assert repoint.next_core() == "does not run"


def test_a_core_staged_for_another_primary_is_made_anew(node: Node) -> None:
    node.do("edit", "stage", host="10.20.0.99")
    node.do("edit", "stage", host="10.20.0.12")
    assert "POSTGRESQL_HOST=10.20.0.12" in node.docker.containers["harbor-core.next"]["Config"]["Env"]


def test_without_an_old_core_compose_has_to_do_it(node: Node) -> None:
    clone.stage("/opt/harbor", "harbor-core", HOST)
    del node.docker.containers["harbor-core"]
    assert not clone.stage("/opt/harbor", "harbor-core", HOST)
    assert node.docker.containers == {}, "compose would take a leftover for the service's container"


def test_a_node_whose_engine_does_not_answer_is_told_of_by_name_and_nothing_is_started() -> None:
    with pytest.raises(
        SystemExit, match=r"engine does not say whether harbor-core\.next is there: .*No such file"
    ):
        start.stop({"install_dir": "/opt/harbor", "grace": 1, "timeout": 1})


def test_a_boot_starts_no_next_core_and_removes_one_that_outlived_its_engine(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.do("edit", "start")
    rows = "core\tharbor-core\t1\tUp 2 hours\ncore\tharbor-core.next\t2\tUp 2 hours\n"
    monkeypatch.setattr(containers, "must", lambda words, limit: rows)
    assert list(containers.containers("/opt/harbor")) == ["core"]
    assert containers.containers("/opt/harbor")["core"].name == "harbor-core"
    state = {"Running": True, "StartedAt": "2026-11-26T20:05:00Z"}
    monkeypatch.setattr(boot, "states", lambda home: {"harbor-core": state})
    monkeypatch.setattr(boot, "engine_since", lambda: 0.0)
    monkeypatch.setattr(boot, "find_core", lambda home, port: None)
    boot.boot("/opt/harbor", "/nas", 443, "/nowhere")
    assert list(node.docker.containers) == ["harbor-core"]


@pytest.mark.parametrize(("runs", "behind"), [(True, True), (False, False)])
def test_a_jobservice_that_came_after_a_power_cut_has_asked_the_only_core(
    node: Node, runs: bool, behind: bool
) -> None:
    """A next core that had ended with its node counted as there until it was removed, seconds after the boot."""
    node.do("edit", "start")
    node.docker.containers["harbor-core.next"]["State"] = {
        "Running": runs,
        "StartedAt": "2026-11-26T20:05:00.5Z",
        "FinishedAt": "0001-01-01T00:00:00Z" if runs else "2026-11-26T20:06:00.5Z",
    }
    next_core.drop_next_core()
    jobs = {"State": {"Running": True, "StartedAt": "2026-11-26T20:06:10.5Z"}}
    known = lib.state(next_core.TWO_CORES)
    assert older_than_core(node.docker.containers["harbor-core"], jobs, known) is behind


@pytest.mark.parametrize("words", [["up", "-d", "core"], ["down"]])
def test_compose_finds_no_next_core_that_it_could_take_for_the_services_container(
    node: Node, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    node.do("edit", "start")
    seen: list[list[str]] = []
    monkeypatch.setattr(containers, "compose_command", lambda: ["compose"])
    monkeypatch.setattr(containers, "must", lambda *_: seen.append(list(node.docker.containers)) or "")
    containers.compose("/opt/harbor", ["config", "--hash", "core"], 5.0)
    containers.compose("/opt/harbor", words, 5.0)
    assert seen == [["harbor-core", "harbor-core.next"], ["harbor-core"]]
