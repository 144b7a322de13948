"""A cluster of somebody else's that has the name of the site's is neither used nor dropped."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.on_node.pg_cluster import data_elsewhere
from tasks.postgres.on_node import cluster_create


def given(root: Path, named: str | None) -> dict[str, Any]:
    conf = root / "etc/15/main"
    conf.mkdir(parents=True)
    line = f"#data_directory = 'ConfigDir'\ndata_directory = '{named}'\t# use data in another directory\n"
    (conf / "postgresql.conf").write_text(line if named else "#data_directory = 'ConfigDir'\n")
    state = root / "state"
    return {
        "major": "15",
        "cluster": "main",
        "data": str(root / "data"),
        "conf": str(conf),
        "record": str(state / "cluster.json"),
        "state_dir": str(state),
        "port": "5432",
        "archive": str(root / "archive"),
        "site": "example",
    }


def test_a_run_after_one_that_failed_at_the_taken_name_does_not_drop_the_other_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: called.append(argv[0]))
    asked = given(tmp_path, "/var/lib/postgresql/15/main")
    (tmp_path / "state").mkdir()
    # Of the run before: pg_createcluster had failed, since there is one of this name.
    (tmp_path / "state/creating.json").write_text("{}")
    assert cluster_create.create(asked) == ("taken", "/var/lib/postgresql/15/main")
    assert called == []


def test_our_own_cluster_and_one_that_is_half_made_are_not_taken_for_somebody_elses(tmp_path: Path) -> None:
    for number, named in enumerate((str(tmp_path / "2/data"), None)):
        asked = given(tmp_path / str(number), named)
        data = named or asked["data"]
        assert data_elsewhere(asked["conf"], data) is None
    assert data_elsewhere(str(tmp_path / "none"), "/data") is None
