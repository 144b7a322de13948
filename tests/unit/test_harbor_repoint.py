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
from tasks.harbor.on_node import next_core, prepare, repoint, start
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
  start)
    echo "$*" >> CALLS; shift
    for name in "$@"; do
      file=$(grep -lw "$name" CONTAINERS/*)
      grep -q image-gone $file && exit 1
      sed -i "s/Exited.*/Up 1 second/" $file
    done ;;
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
    monkeypatch.setattr(next_core, "described", lambda name: None)
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


DIED = "core\tharbor-core\tid-core\tExited (1) 2 seconds ago\n"


def test_a_container_that_died_is_started_again_without_compose(home: Path, machine: Path) -> None:
    """Compose took 2.2 s of each rejoin to start one container that stood still."""
    started(home)
    before = (machine / "calls").read_text()
    (machine / "containers/core").write_text(DIED)
    assert started(home)["changed"]
    assert "Up" in (machine / "containers/core").read_text()
    assert (machine / "calls").read_text().removeprefix(before).splitlines() == ["start harbor-core"]


def test_the_log_container_is_started_before_those_that_log_to_it(home: Path, machine: Path) -> None:
    started(home)
    before = (machine / "calls").read_text()
    (machine / "containers/core").write_text(DIED)
    (machine / "containers/log").write_text("log\tharbor-log\tid-log\tExited (1) 2 seconds ago\n")
    assert started(home)["changed"]
    first, *_ = (machine / "calls").read_text().removeprefix(before).splitlines()
    assert first == "start harbor-log"


def test_the_proxy_is_started_after_what_it_looks_for(home: Path, machine: Path) -> None:
    """By its name it comes before the registry, and nginx ends where a name is not known."""
    (machine / "containers/registry").write_text("registry\tregistry\tid-registry\tUp 1 hour\n")
    started(home)
    before = (machine / "calls").read_text()
    (machine / "containers/proxy").write_text("proxy\tnginx\tid-nginx\tExited (1) 2 seconds ago\n")
    (machine / "containers/registry").write_text("registry\tregistry\tid-registry\tExited (1) a while ago\n")
    started(home)
    first, *_ = (machine / "calls").read_text().removeprefix(before).splitlines()
    assert first == "start registry nginx"


def test_what_stands_still_starts_while_core_does_and_jobservice_waits_for_its_answer(
    home: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejoined node waited a second before its core's start and another one after it."""
    stopped = "{0}\t{0}\tid-{0}\tExited (1) a while ago\n"
    for name in ("registry", "jobservice"):
        (machine / f"containers/{name}").write_text(stopped.format(name).replace("Exited (1)", "Up 1 hour"))
    started(home)
    for name in ("registry", "jobservice"):
        (machine / f"containers/{name}").write_text(stopped.format(name))
    (machine / "containers/log").write_text("log\tharbor-log\tid-log\tExited (1) 2 seconds ago\n")
    calls = machine / "calls"

    def said(what: str) -> Any:
        return lambda *_: calls.write_text(calls.read_text() + f"{what}\n") and what

    before = calls.read_text()
    monkeypatch.setattr(repoint, "connected_host", lambda: None)
    monkeypatch.setattr(repoint, "core_there", lambda: None)
    monkeypatch.setattr(repoint, "forget_address", lambda *_: None)
    monkeypatch.setattr(repoint, "require_nas", lambda path: None)
    monkeypatch.setattr(repoint, "replace_core", said("core is replaced"))
    monkeypatch.setattr(repoint, "open_core", said("core answers"))
    given = {"install_dir": str(home), "host": "10.0.0.2", "parts": ["rest", "recreate"], "nas": "/mnt"}
    answer = repoint.do_parts({**given, "timeout": 20}, {})
    order = ["start harbor-log", "core is replaced", "start registry", "core answers"]
    assert calls.read_text().removeprefix(before).splitlines() == order
    assert answer["all_run"]


def test_what_does_not_start_as_it_is_and_what_is_gone_are_left_to_compose(home: Path, machine: Path) -> None:
    started(home)
    log = "log\tharbor-log\tid-log\tExited (1) 2 seconds ago image-gone\n"
    for name, broken in (("core", DIED.replace("ago", "ago image-gone")), ("core", None), ("log", log)):
        before = (machine / "calls").read_text()
        if broken is None:
            (machine / f"containers/{name}").unlink()
        else:
            (machine / f"containers/{name}").write_text(broken)
        assert started(home)["changed"]
        assert "up -d --remove-orphans" in (machine / "calls").read_text().removeprefix(before).splitlines()


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
