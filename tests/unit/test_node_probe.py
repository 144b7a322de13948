"""The probe, on this machine: what hangs is reported and does not keep the rest from being heard."""

import json
import os
import socket
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from blocks import HarborSite
from tasks.errors import HostUnreachable
from tasks.hosts.connection import Host
from tasks.postgres.facts import Guard
from tasks.postgres.probe import NODE_PROBE, PROBE_LIMIT_S, probe
from tests.unit.probed import look, request

pytestmark = pytest.mark.servers


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def fake_cluster(root: Path) -> None:
    (root / "data" / "pg_wal").mkdir(parents=True)
    (root / "data" / "PG_VERSION").write_text("15\n")


def test_a_bare_machine_is_a_reached_node_without_anything(tmp_path: Path) -> None:
    facts = look(request(tmp_path))
    assert facts.reachable
    assert facts.cluster is None
    assert facts.server is None
    assert facts.harbor is None
    assert facts.boot_id
    assert abs(facts.clock_skew_s or 99) < 2


def test_a_server_that_hangs_does_not_hide_the_rest(tmp_path: Path) -> None:
    fake_cluster(tmp_path)
    # /tmp, not pytest's directory, which postgres may not enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as programs_dir:
        Path(programs_dir).chmod(0o755)
        program(Path(programs_dir) / "psql", "#!/bin/sh\nexec sleep 60\n")
        facts = look(request(tmp_path, bin_dir=programs_dir, limit_s=1.5))
    assert "did not answer" in facts.problems["server"]
    assert facts.cluster is not None
    assert facts.data_disk is not None


def test_our_files_are_read_and_a_damaged_one_is_not_taken_for_absent(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "accepted.json").write_text('{"primary": "node-a", "timeline": 3}')
    (state / "lock.json").write_text("{")
    (state / "paused.json").write_text("")
    facts = look(request(tmp_path))
    assert facts.state["accepted"] == {"primary": "node-a", "timeline": 3}
    assert facts.state["lock"] == {"damaged": True}
    assert facts.state["paused"] == {"damaged": True}


def test_a_guard_that_never_ran_is_a_fact_and_one_that_runs_tells_its_limit(tmp_path: Path) -> None:
    assert look(request(tmp_path)).guard == Guard(False)
    up = float(Path("/proc/uptime").read_text().split()[0])
    told = {"version": "ab", "self_fence_s": 20, "uptime": up - 7, "pass": 3}
    (tmp_path / "guard.json").write_text(json.dumps(told))
    guard = look(request(tmp_path)).guard
    assert guard is not None
    assert (guard.version, guard.self_fence_s, guard.runs) == ("ab", 20.0, True)
    assert 7 <= (guard.age_s or 0) < 12
    (tmp_path / "guard.json").write_text("{")
    facts = look(request(tmp_path))
    assert facts.guard is None
    assert "guard" in facts.problems


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_images_that_the_registrys_user_may_not_use_are_a_fact(tmp_path: Path) -> None:
    """The site was healthy while every push ended with 500: only what the API does had been looked at."""
    registry = tmp_path / "registry"
    assert look(request(tmp_path)).images_denied == (f"{registry} (missing)",)
    registry.mkdir()
    assert look(request(tmp_path)).images_denied == (str(registry),)
    os.chown(registry, 10000, 10000)
    assert look(request(tmp_path)).images_denied == ()


def test_the_nas_tells_what_no_node_does_and_a_damaged_copy_is_not_taken_for_absent(tmp_path: Path) -> None:
    assert look(request(tmp_path)).shared == {}
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "paused.json").write_text('{"reason": "new switch"}')
    assert look(request(tmp_path)).shared == {"paused": {"reason": "new switch"}}
    (tmp_path / "nas" / "paused.json").write_text("{")
    assert look(request(tmp_path)).shared == {"paused": {"damaged": True}}


def test_a_nas_that_hangs_is_waited_for_no_longer_than_everything_else(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    os.mkfifo(tmp_path / "nas" / "paused.json")
    facts = look(request(tmp_path, limit_s=1.5))
    assert "did not answer" in facts.problems["shared"]
    assert facts.boot_id


def test_start_conf_is_read_without_its_comments(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "start.conf").write_text("# Automatic startup configuration\n\nmanual # for now\n")
    assert look(request(tmp_path)).start_conf == "manual"


def test_only_names_of_overrides_leave_the_node(tmp_path: Path) -> None:
    fake_cluster(tmp_path)
    auto = "# by hand\nprimary_conninfo = 'host=x password=hush'\nwork_mem='4MB'\n"
    (tmp_path / "data" / "postgresql.auto.conf").write_text(auto)
    facts = look(request(tmp_path))
    assert facts.cluster is not None
    assert facts.cluster.auto_conf == ("primary_conninfo", "work_mem")
    assert "hush" not in repr(facts)


def test_no_password_of_harbor_leaves_the_node(tmp_path: Path) -> None:
    env = tmp_path / "harbor" / "common" / "config" / "core" / "env"
    env.parent.mkdir(parents=True)
    env.write_text("POSTGRESQL_HOST=10.0.0.11\nPOSTGRESQL_PASSWORD=hush\n")
    facts = look(request(tmp_path))
    assert facts.harbor is not None
    assert facts.harbor.configured_database == "10.0.0.11"
    assert "hush" not in repr(facts)


def test_an_engine_that_is_down_does_not_hide_which_database_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "harbor").mkdir()
    (tmp_path / "harbor" / "harbor.yml").write_text("")
    stopped = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stopped))
    source = NODE_PROBE.replace("/var/run/docker.sock", str(stopped))
    facts = look(request(tmp_path), source=source)
    assert "refused" in facts.problems["harbor_containers"]
    assert facts.harbor is not None
    assert facts.harbor.containers == {}


def test_a_peer_is_open_or_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert look(request(tmp_path, peers=[["node-b", "127.0.0.1", port]])).tcp == {"node-b": "open"}
    assert look(request(tmp_path, peers=[["node-b", "127.0.0.1", port]])).tcp == {"node-b": "refused"}


class DeadHost:
    name = "node-a"

    def python(self, *_: object, **__: object) -> None:
        raise HostUnreachable("It does not answer.", where="node-a")


def test_a_node_that_is_not_reached_is_a_fact_and_not_an_error() -> None:
    postgres = SimpleNamespace(
        major=15, cluster="main", data_dir="/d", archive_dir="/a", port=5432, database="registry"
    )
    machine = SimpleNamespace(name="node-a", address="10.0.0.11", runs_postgres=True, runs_harbor=True)
    site = SimpleNamespace(
        name="main",
        nodes=[machine],
        node=lambda name: machine,
        postgres=postgres,
        nas=SimpleNamespace(path="/nas"),
        harbor=SimpleNamespace(install_dir="/opt/harbor", https_port=443, hostname="h"),
    )
    facts = probe(cast(HarborSite, site), cast(Host, DeadHost()), path="via node-b")
    assert not facts.reachable
    assert facts.error == "via node-b: node-a: It does not answer."
    assert PROBE_LIMIT_S < 5, "a look must not eat the seconds of a failover"
