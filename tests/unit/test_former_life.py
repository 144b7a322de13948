"""What was before a restore or a new database: set aside on the node, told to the old machines, kept from clients."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import disaster_restore
from tasks.backup.restore.on_node import tell_restored
from tasks.balancer import serving
from tasks.balancer.states import NodeState, Served
from tasks.harbor.on_node import boot
from tasks.on_node import pg_former
from tasks.outcome import Outcome, changed
from tasks.pitr.on_node import pitr_restore
from tasks.postgres.on_node import cluster_create
from tests.unit.test_cluster_name import given
from tests.unit.test_harbor_boot import node

THEIRS = {"primary": "node-b", "timeline": 2, "system_identifier": "77", "term": 4}


@pytest.fixture
def p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine that held a database, which was moved away, and whose unit a fence has masked."""
    monkeypatch.setattr(pg_former, "unmask", lambda p: True)
    monkeypatch.setattr(pg_former, "systemctl", lambda *words: "")
    asked = given(tmp_path, str(tmp_path / "data"))
    asked |= {"unit": "postgresql@15-main.service", "nas_path": "/nas", "bin": "/none", "node": "node-a"}
    state = Path(asked["state_dir"])
    state.mkdir(parents=True, exist_ok=True)
    for name in (*pg_former.OF_ONE_DATABASE, "term", "paused", "lock", "witnessed"):
        (state / f"{name}.json").write_text(json.dumps(THEIRS))
    return asked


def left(p: dict[str, Any]) -> set[str]:
    return {path.stem for path in Path(p["state_dir"]).glob("*.json")}


def test_a_new_database_sets_aside_what_belongs_to_the_one_before_and_keeps_what_is_the_sites(
    p: dict[str, Any],
) -> None:
    done = pg_former.set_former_aside(p)
    assert left(p) == {"term", "paused", "lock", "witnessed"}
    assert p["unit"] in done
    aside = Path(p["state_dir"]) / "former.0"
    assert json.loads((aside / "accepted.json").read_text()) == THEIRS
    (Path(p["state_dir"]) / "accepted.json").write_text("{}")
    pg_former.set_former_aside(p)
    assert (aside.parent / "former.1" / "accepted.json").exists(), "the one before that is kept too"


def test_a_cluster_that_is_created_begins_without_the_word_of_another(
    p: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """node-b was accepted on timeline 2 of a database that was moved away: the new one was never started."""
    dropped: list[str] = []
    monkeypatch.setattr(cluster_create, "drop_shared", lambda p, name: dropped.append(name))
    monkeypatch.setattr(cluster_create, "data_elsewhere", lambda conf, data: None)
    monkeypatch.setattr(cluster_create, "set_archive_aside", lambda archive, sysid: None)
    monkeypatch.setattr(cluster_create, "system_identifier", lambda p: "99")
    monkeypatch.setattr(cluster_create.subprocess, "run", lambda argv, **_: SimpleNamespace(returncode=0))
    assert cluster_create.create(p) == ("created", "99")
    assert "accepted" not in left(p)
    assert dropped == ["restored"]
    (Path(p["state_dir"]) / "accepted.json").write_text(json.dumps({"primary": "node-a"}))
    assert cluster_create.create(p) == ("present", "99")
    assert "accepted" in left(p), "a cluster that is there already keeps its own"


def test_a_restore_to_a_point_in_time_goes_back_behind_what_the_nas_tells(
    p: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pitr_restore, "read_shared", lambda p, name: THEIRS)
    monkeypatch.setattr(pitr_restore, "drop_shared", lambda p, name: True)
    monkeypatch.setattr(pitr_restore, "set_archive_aside", lambda archive, sysid: None)
    new = Path(p["data"] + ".restoring")
    new.mkdir()
    pitr_restore.swap({**p, "sysid": "77", "record_text": "{}"}, str(new))
    assert "accepted" not in left(p)
    assert json.loads((Path(p["state_dir"]) / "restored.json").read_text()) == {"over": THEIRS}


def test_what_was_restored_is_told_here_and_on_the_nas(
    p: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nas: dict[str, Any] = {"accepted": THEIRS, "term": {"term": 7, "op_id": "x"}}

    def keep(p: dict[str, Any], name: str, text: str) -> bool:
        nas[name] = json.loads(text)
        return True

    monkeypatch.setattr(tell_restored, "psql", lambda p, sql: "1|99")
    monkeypatch.setattr(tell_restored, "read_shared", lambda p, name: nas.get(name))
    monkeypatch.setattr(tell_restored, "keep_shared", keep)
    told = {"sysid": "99", "timeline": 1, "shared": True, "changed": True}
    assert tell_restored.tell_restored({**p, "node": "node-c"}) == told
    when = nas["restored"]["at"]
    assert tell_restored.tell_restored({**p, "node": "node-c"}) == {**told, "changed": False}
    assert nas["restored"]["at"] == when
    accepted = {"primary": "node-c", "timeline": 1, "system_identifier": "99", "term": 7}
    assert nas["accepted"] == accepted
    assert json.loads((Path(p["state_dir"]) / "accepted.json").read_text()) == accepted
    assert (nas["restored"]["system_identifier"], nas["restored"]["node"]) == ("99", "node-c")


def test_a_harbor_of_a_database_that_was_replaced_is_stopped_where_the_engine_has_started_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its jobservice took the new Harbor's jobs out of their one Redis."""
    commands = node(monkeypatch, {"harbor-core": {"Running": True}, "harbor-log": {"Running": True}})
    monkeypatch.setattr(boot, "replaced", lambda config: "the site was restored on node-c")
    with pytest.raises(SystemExit, match="restored on node-c"):
        boot.boot("/opt/harbor", "/nas", 443, "/not/fenced")
    assert commands == [["docker", "stop", "-t", "3", "harbor-core"]]


def test_whether_a_harbor_was_replaced_is_told_by_the_database_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "node.json"
    assert boot.replaced(str(config)) is None, "a node without a database"
    config.write_text('{"node": "node-b"}')
    monkeypatch.setattr(boot, "control", lambda p: {"Database system identifier": "77"})
    monkeypatch.setattr(boot, "read_shared", lambda p, name: {"system_identifier": "99", "node": "node-c"})
    assert "database 99" in str(boot.replaced(str(config)))
    monkeypatch.setattr(boot, "read_shared", lambda p, name: None)
    assert boot.replaced(str(config)) is None


class Listing:
    """A load balancer that lists machines of before the disaster."""

    pace_s = 0.0

    def __init__(self) -> None:
        self.served = {"node-a": Served.UP, "node-b": Served.DOWN, "node-c": Served.DOWN}

    def status(self, nodes: Any = (), limit_s: float | None = None) -> dict[str, NodeState]:
        return {name: NodeState(served, 0) for name, served in self.served.items()}

    def drain(self, node: str) -> None:
        self.served[node] = Served.DRAINED


def test_whoever_the_load_balancer_lists_beside_the_restored_machine_is_drained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is down now is up when its machine boots; the site file does not name it any more."""
    balancer = Listing()
    monkeypatch.setattr(serving, "balancer_of", lambda site: balancer)
    outcome = serving.drain_others(None, SimpleNamespace(name="node-c"))  # type: ignore[arg-type]
    assert (outcome.changed, outcome.data["drained"]) == (True, ["node-a", "node-b"])
    assert balancer.served == {
        "node-a": Served.DRAINED,
        "node-b": Served.DRAINED,
        "node-c": Served.DOWN,
    }
    assert not serving.drain_others(None, SimpleNamespace(name="node-c")).changed  # type: ignore[arg-type]


def test_the_report_of_a_restore_says_who_is_out_and_what_could_not_be_told() -> None:
    done: list[str] = []

    def on(step: Any, target: str) -> Outcome:
        done.append(step.name)
        return changed("", drained=["node-a"], unseen="it cannot be asked", shared=False)

    found = disaster_restore.keep_the_old_out(SimpleNamespace(on=on), "node-c")  # type: ignore[arg-type]
    lines = found["Old machines"]
    assert "node-a" in lines[0]
    assert all("WARNING" in line for line in lines[1:])
    assert done == [
        "Drain everybody else at the load balancer",
        "Tell the old machines which database counts",
    ]
