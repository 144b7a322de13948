"""A cluster is made in the first run, whatever an earlier one has left; nothing is removed, or touched as it runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.hosts.on_node import preflight_probe
from tasks.postgres.on_node import cluster_create
from tests.unit.harbor_site import program

# As postgresql-common's own: a configuration that is there ends the first, and the second removes everything.
CREATE = """
[ ! -e CONF/postgresql.conf ] || { echo 'Error: cluster configuration already exists'; exit 1; }
mkdir -p CONF DATA/global && echo "data_directory = 'DATA'" > CONF/postgresql.conf
cat ROOT/next > DATA/global/pg_control
"""
CONTROL = 'shift; echo "Database system identifier: $(cat $1/global/pg_control)"\n'


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parameters of the program, on a node with nothing."""
    conf, data = tmp_path / "etc/postgresql/15/main", tmp_path / "data"
    body = CREATE.replace("CONF", str(conf)).replace("DATA", str(data)).replace("ROOT", str(tmp_path))
    program(tmp_path / "bin", "pg_createcluster", body)
    program(tmp_path / "bin", "pg_dropcluster", f"rm -rf {conf} {data}\n")
    program(tmp_path / "bin", "pg_controldata", CONTROL)
    program(tmp_path / "bin", "systemctl", "exit 0\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "next").write_text("7100")
    state = tmp_path / "state"
    return {
        "major": "15",
        "cluster": "main",
        "data": str(data),
        "conf": str(conf),
        "bin": str(tmp_path / "bin"),
        "record": str(state / "cluster.json"),
        "state_dir": str(state),
        "port": "5432",
        "unit": "postgresql@15-main",
        "archive": str(tmp_path / "archive"),
        "site": "example",
    }


def seen(given: dict[str, Any]) -> dict[str, Any]:
    """What bootstrap sees of it before it changes anything."""
    return preflight_probe.database({**given, "renamed": []})


def intent(given: dict[str, Any]) -> Path:
    return Path(given["state_dir"]) / "creating.json"


def test_a_configuration_whose_data_was_moved_away_is_set_aside_in_the_first_run(
    given: dict[str, Any], tmp_path: Path
) -> None:
    """The first run ended with "cluster configuration already exists", and only the second passed."""
    cluster_create.create(given)
    Path(given["conf"], "pg_hba.conf").write_text("the operator's")
    (tmp_path / "data").rename(tmp_path / "moved-away")
    (tmp_path / "next").write_text("7200")

    assert cluster_create.create(given) == ("created", "7200")

    (kept,) = (tmp_path / "etc/postgresql.aside").iterdir()
    assert (kept / "pg_hba.conf").read_text() == "the operator's"
    assert not intent(given).exists()
    assert json.loads(Path(given["record"]).read_text())["system_identifier"] == "7200"


def test_killed_in_its_middle_there_the_next_run_goes_on(given: dict[str, Any], tmp_path: Path) -> None:
    cluster_create.create(given)
    (tmp_path / "data").rename(tmp_path / "moved-away")
    (tmp_path / "next").write_text("7200")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_create, "set_archive_aside", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            cluster_create.create(given)
    assert seen(given)["creating"]
    assert cluster_create.create(given) == ("created", "7200")


def test_what_a_killed_creation_has_made_is_kept(given: dict[str, Any], tmp_path: Path) -> None:
    """pg_dropcluster removed the directory that was to be set aside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_create, "set_archive_aside", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            cluster_create.create(given)
    assert cluster_create.create(given) == ("created", "7100")
    (kept,) = tmp_path.glob("data.unfinished.*")
    assert (kept / "global/pg_control").exists()


def test_an_intent_beside_a_cluster_that_is_whole_is_removed(given: dict[str, Any]) -> None:
    """With it every later bootstrap took the node's primary for none, and said that all are standbys."""
    cluster_create.create(given)
    intent(given).write_text(json.dumps({"data": given["data"]}))
    assert not seen(given)["creating"], "what is there is looked at before it is believed"
    assert cluster_create.create(given) == ("present", "7100")
    assert not intent(given).exists()


def test_the_data_put_back_after_a_run_that_failed_is_present(given: dict[str, Any], tmp_path: Path) -> None:
    cluster_create.create(given)
    (tmp_path / "data").rename(tmp_path / "moved-away")
    intent(given).write_text(json.dumps({"data": given["data"]}))
    assert seen(given)["creating"]
    (tmp_path / "moved-away").rename(tmp_path / "data")
    assert not seen(given)["creating"]
    assert cluster_create.create(given) == ("present", "7100")


@pytest.mark.parametrize("left", ["of another directory", "of one that was finished"])
def test_an_intent_that_is_not_of_this_directory_moves_no_database_away(
    left: str, given: dict[str, Any], tmp_path: Path
) -> None:
    cluster_create.create(given)
    other = left == "of another directory"
    intent(given).write_text(json.dumps({"data": "/elsewhere" if other else given["data"]}))
    if other:
        Path(given["record"]).unlink()
    else:
        # Killed between the record and the intent; later somebody's database was put there.
        (tmp_path / "data/global/pg_control").write_text("9999")
    assert cluster_create.create(given)[0] == "foreign"
    assert (tmp_path / "data/global/pg_control").exists()


def test_a_server_that_runs_from_that_configuration_is_not_touched(
    given: dict[str, Any], tmp_path: Path
) -> None:
    cluster_create.create(given)
    (tmp_path / "data").rename(tmp_path / "moved-away")
    words = ["postgres", "-D", given["data"], "-c", f"config_file={given['conf']}/postgresql.conf"]
    server = subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE)
    try:
        assert cluster_create.create(given) == ("runs", str(server.pid))
    finally:
        server.kill()
        server.wait()
    assert Path(given["conf"], "postgresql.conf").exists()
    assert not intent(given).exists()
