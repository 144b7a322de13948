"""A repoint changes the address, everywhere it is, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blocks import HarborSite
from tasks.harbor import repoint as steps
from tasks.harbor.config import render
from tasks.harbor.on_node import clone, prepare, repoint, start
from tasks.on_node import lib
from tests.unit.harbor_site import NodeInDirectory, make_site, program

TEMPLATES = Path(__file__).parent / "harbor_templates"
NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}[a-z0-9]", fullmatch=True)
QUOTES = st.sampled_from(["", '"', "'"])

HARBOR_YML = """\
hostname: harbor.example.com
database:
  host: untouched
external_database:
  # host: of the primary
  harbor:
    host: {quote}{host}{quote}  # the primary
    port: 5432
  notary_signer:
    host: {quote}{host}{quote}
external_redis:
  host: 10.0.0.9:6379
"""


@given(NAMES, NAMES, QUOTES)
def test_only_the_hosts_of_the_external_database_change(old: str, new: str, quote: str) -> None:
    before = HARBOR_YML.format(host=old, quote=quote)
    assert repoint.with_host(before, new) == HARBOR_YML.format(host=new, quote="")


@pytest.mark.parametrize(("name", "version"), [("v2.3", "v2.3.2"), ("v2.13", "v2.13.2")])
def test_the_quick_edit_gives_the_file_that_a_full_rendering_gives(
    name: str, version: str, tmp_path: Path
) -> None:
    site = make_site(tmp_path, version=version)
    first = render((TEMPLATES / f"{name}.yml").read_text(), site, "10.20.0.11")
    assert repoint.with_host(first, "10.20.0.12") == render(first, site, "10.20.0.12")


def test_an_env_file_keeps_its_other_lines() -> None:
    text = "POSTGRESQL_HOST=a\nPOSTGRESQL_PORT=5432\nMY_POSTGRESQL_HOST=a\n"
    changed = repoint.with_variable(text, "POSTGRESQL_HOST", "b")
    assert changed == "POSTGRESQL_HOST=b\nPOSTGRESQL_PORT=5432\nMY_POSTGRESQL_HOST=a\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Harbor directory after prepare and start, with their records."""
    monkeypatch.setattr(lib, "STATE_DIR", str(tmp_path / "state"))
    directory = tmp_path / "harbor"
    files = {
        "harbor.yml": HARBOR_YML.format(host="10.20.0.11", quote=""),
        "docker-compose.yml": "services: {}\n",
        "common/config/core/env": "POSTGRESQL_HOST=10.20.0.11\nPOSTGRESQL_PORT=5432\n",
        "common/config/jobservice/env": "CORE_URL=http://core:8080\n",
        "common/config/exporter/env": "HARBOR_DATABASE_HOST=10.20.0.11\n",
        "common/config/notary/server-config.postgres.json": json.dumps(
            {"db_url": "postgres://harbor:pw@10.20.0.11:5432/notaryserver?sslmode=require"}
        ),
    }
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "common/config/core/env").chmod(0o640)
    lib.record(prepare.PREPARED, {"inputs": prepare.prepare_inputs(str(directory), []), "flags": []})
    lib.record(start.STARTED, {"inputs": start.start_inputs(str(directory)), "services": ["core"]})
    return directory


def test_the_address_changes_in_every_file_that_has_it(home: Path) -> None:
    edited = repoint.edit(str(home), "10.20.0.12")
    assert len(edited) == 4
    left = [path for path in home.rglob("*") if path.is_file() and "10.20.0.11" in path.read_text()]
    assert left == []
    assert (home / "common/config/core/env").stat().st_mode & 0o777 == 0o640
    assert yaml.safe_load((home / "harbor.yml").read_text())["external_redis"]["host"] == "10.0.0.9:6379"


def test_the_second_repoint_edits_nothing(home: Path) -> None:
    repoint.edit(str(home), "10.20.0.12")
    assert repoint.edit(str(home), "10.20.0.12") == []


def test_after_a_repoint_neither_prepare_nor_start_has_anything_to_do(home: Path) -> None:
    repoint.edit(str(home), "10.20.0.12")
    assert lib.state(prepare.PREPARED)["inputs"] == prepare.prepare_inputs(str(home), [])
    assert lib.state(start.STARTED)["inputs"] == start.start_inputs(str(home))


def test_a_change_that_was_waiting_for_prepare_is_still_waiting_after_a_repoint(home: Path) -> None:
    (home / "harbor.yml").write_text((home / "harbor.yml").read_text() + "metric:\n  enabled: true\n")
    repoint.edit(str(home), "10.20.0.12")
    assert lib.state(prepare.PREPARED)["inputs"] != prepare.prepare_inputs(str(home), [])


CORE = {
    "Id": "0123456789abcdef" * 4,
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


def test_the_next_core_differs_in_its_address_and_its_hash_only() -> None:
    made = clone.clone_of(json.loads(json.dumps(CORE)), {"POSTGRESQL_HOST": "10.20.0.12"}, "new")
    assert made["Env"] == ["POSTGRESQL_HOST=10.20.0.12", "CSRF_KEY=a=b", "EMPTY="]
    assert made["Labels"] == {"com.docker.compose.service": "core", clone.HASH_LABEL: "new"}
    assert made["HostConfig"] == CORE["HostConfig"]
    assert made["Image"] == "goharbor/harbor-core:v2.13.2"
    assert "Hostname" not in made, "it is the old container's own id"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "harbor_harbor": {"Aliases": ["core"], "IPAMConfig": None}
    }


class Engine:
    """A Docker engine that knows containers by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.containers: dict[str, dict[str, Any]] = {"harbor-core": json.loads(json.dumps(CORE))}
        self.started: list[str] = []
        self.made = 0
        monkeypatch.setattr(clone, "engine", self.ask)
        monkeypatch.setattr(clone, "core_hash", lambda home: "abc123")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        _, _, name, *rest = path.partition("?")[0].split("/")
        if name == "create":
            made = path.partition("name=")[2]
            self.made += 1
            networks = {name: dict(net) for name, net in body["NetworkingConfig"]["EndpointsConfig"].items()}
            self.containers[made] = {
                "Id": f"{self.made:x}" * 64,
                "Config": body,
                "HostConfig": body["HostConfig"],
                "NetworkSettings": {"Networks": networks},
            }
        elif name not in self.containers:
            return None
        elif method == "DELETE":
            del self.containers[name]
        elif rest == ["start"]:
            self.started.append(name)
        elif rest == ["rename"]:
            self.containers[path.partition("name=")[2]] = self.containers.pop(name)
        return self.containers.get(name, {})


HOST = {"POSTGRESQL_HOST": "10.20.0.12"}


def test_the_swap_leaves_one_core_with_the_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    assert clone.stage("/opt/harbor", "harbor-core", HOST)
    assert engine.started == [], "a staged core must not run beside the old one"
    clone.switch("harbor-core")
    assert list(engine.containers) == ["harbor-core"]
    assert "POSTGRESQL_HOST=10.20.0.12" in engine.containers["harbor-core"]["Config"]["Env"]
    assert engine.started == ["harbor-core.next"]


def test_a_core_that_starts_before_the_promotion_has_another_address_than_the_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy knows the old one's; with the same it would let clients in before the new primary is recorded."""
    engine = Engine(monkeypatch)
    clone.stage("/opt/harbor", "harbor-core", HOST)
    seen: list[list[str]] = []
    ask = engine.ask
    monkeypatch.setattr(
        clone, "engine", lambda *words: (seen.append(list(engine.containers)), ask(*words))[1]
    )
    clone.switch("harbor-core", other_address=True)
    assert engine.started == ["harbor-core.next"]
    assert "harbor-core" in seen[0], "the old one was gone, and its address free"
    assert list(engine.containers) == ["harbor-core"]


class Node:
    """A node's Harbor as `repoint` finds it: its core, and what its proxy was told."""

    def __init__(self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.engine = engine
        self.given = {"install_dir": str(tmp_path), "nas": "/nas", "host": "10.20.0.12", "timeout": 5.0}
        monkeypatch.setattr(lib, "STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setattr(repoint, "inspect", self.inspect)
        monkeypatch.setattr(repoint, "require_nas", lambda path: None)
        monkeypatch.setattr(repoint, "edit", lambda home, host: [])
        monkeypatch.setattr(repoint, "core_answers", lambda address: True)
        monkeypatch.setattr(repoint, "reload_proxy", lambda name: self.told.append(self.core()["Id"]))

    def inspect(self, name: str) -> dict[str, Any] | None:
        found = self.engine.containers.get(name)
        return None if found is None else {"State": {"Running": True}, **found}

    def core(self) -> dict[str, Any]:
        return self.engine.containers["harbor-core"]

    def do(self, *parts: str) -> dict[str, Any]:
        return repoint.repoint({**self.given, "parts": list(parts)})


def test_no_proxy_is_told_of_a_core_that_starts_before_the_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(Engine(monkeypatch), tmp_path, monkeypatch)
    assert node.do("edit", "start")["connected"] == "10.20.0.12"
    assert node.do("edit", "start")["recreated"] == [], "a second time there is nothing to do"
    assert node.told == []
    started = node.core()["Id"]
    assert node.do("edit", "recreate")["recreated"], "it was ready, and clients were not let in"
    assert node.told == [started]
    assert node.do("edit", "recreate")["recreated"] == []
    assert node.told == [started], "the proxy is told once"


def test_a_core_that_was_started_for_a_promotion_that_did_not_come_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(Engine(monkeypatch), tmp_path, monkeypatch)
    node.do("edit", "start")
    node.given["host"] = "10.20.0.11"
    assert node.do("edit", "recreate")["connected"] == "10.20.0.11"
    assert node.told == [node.core()["Id"]]
    assert not repoint.untold()


def test_a_core_staged_for_another_primary_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    clone.stage("/opt/harbor", "harbor-core", {"POSTGRESQL_HOST": "10.20.0.99"})
    clone.stage("/opt/harbor", "harbor-core", HOST)
    assert "POSTGRESQL_HOST=10.20.0.12" in engine.containers["harbor-core.next"]["Config"]["Env"]


def test_without_an_old_core_compose_has_to_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    clone.stage("/opt/harbor", "harbor-core", HOST)
    del engine.containers["harbor-core"]
    assert not clone.stage("/opt/harbor", "harbor-core", HOST)
    assert engine.containers == {}, "compose would take a leftover for the service's container"


DOCKER = r"""
# ps: service, name, id, status; names and states come from the files of a directory.
case $1 in
  ps) for f in CONTAINERS/*; do [ -e "$f" ] && cat "$f"; done; exit 0 ;;
  compose)
    shift
    case $1 in
      version) echo 2.24 ;;
      up)
        case "$*" in
          *log)
            printf 'proxy\tnginx\tid-nginx\tUp 1 second\n' > CONTAINERS/proxy
            printf 'log\tharbor-log\tid-log\tUp 1 second\n' > CONTAINERS/log ;;
          *) printf 'core\tharbor-core\tid-core\tUp 1 second\n' > CONTAINERS/core ;;
        esac ;;
    esac
    echo "$*" >> CALLS ;;
  stop) shift 3; for name in "$@"; do sed -i 's/Up.*/Exited (0)/' CONTAINERS/${name#harbor-}; done ;;
  exec) echo "$*" >> CALLS ;;
  inspect) exit 1 ;;
  network) exit 0 ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a `docker` that keeps containers as files."""
    (tmp_path / "containers").mkdir()
    body = DOCKER.replace("CONTAINERS", str(tmp_path / "containers")).replace(
        "CALLS", str(tmp_path / "calls")
    )
    program(tmp_path / "bin", "docker", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(start, "require_log", lambda: None)
    monkeypatch.setattr(start, "require_nas", lambda path: None)
    return tmp_path


def started(home: Path) -> dict[str, Any]:
    """Run the start program."""
    where = {"install_dir": str(home), "nas": "/mnt", "subnet": "10.0.0.0/24", "https_port": 1}
    return start.start({**where, "timeout": 20})


def test_the_log_container_is_up_before_those_that_log_to_it(home: Path, machine: Path) -> None:
    (machine / "state/harbor_started.json").unlink()
    assert started(home)["changed"]
    assert (machine / "calls").read_text().splitlines()[-2:] == ["up -d log", "up -d --remove-orphans"]


def test_what_runs_from_the_present_configuration_is_left_alone(home: Path, machine: Path) -> None:
    started(home)
    calls = (machine / "calls").read_text()
    assert not started(home)["changed"]
    assert (machine / "calls").read_text() == calls


@pytest.mark.parametrize(("lost", "calls"), [(True, ["exec nginx nginx -s reload"]), (False, [])])
def test_a_proxy_that_looks_for_core_in_the_wrong_place_is_told_where_it_is(
    home: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, lost: bool, calls: list[str]
) -> None:
    started(home)
    before = (machine / "calls").read_text()
    monkeypatch.setattr(
        start, "proxy_lost_core", lambda port, core: (port, core) == (1, "harbor-core") and lost
    )
    assert started(home)["changed"] is lost
    assert (machine / "calls").read_text().removeprefix(before).splitlines() == calls


def test_a_container_that_died_is_started_again(home: Path, machine: Path) -> None:
    started(home)
    (machine / "containers/core").write_text("core\tharbor-core\tid-core\tExited (1) 2 seconds ago\n")
    assert started(home)["changed"]


def test_an_edited_env_file_counts_as_a_change(home: Path, machine: Path) -> None:
    started(home)
    (home / "common/config/jobservice/env").write_text("CORE_URL=http://elsewhere:8080\n")
    assert started(home)["changed"]


def test_a_node_whose_nas_is_not_mounted_does_not_start_harbor(tmp_path: Path, site: HarborSite) -> None:
    node = NodeInDirectory("node-a", tmp_path / "state")
    with pytest.raises(Exception, match="NAS is not mounted"):
        steps.compose.up(site, node.as_host())


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    on_disk = tmp_path / "site"
    on_disk.mkdir()
    return make_site(on_disk, install_dir=str(tmp_path / "harbor"))
