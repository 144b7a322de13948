"""What a node does with a base backup, in every state that a killed run can leave; real pgBackRest, no lab."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.nightly_backup import _begun
from tasks.pitr.on_node import pitr_restore
from tasks.pitr.repository import pgbackrest, repository_state
from tasks.pitr.settings import command
from tasks.storage.store import ObjectStore
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss, sdk_bucket
from tests.unit.local_repository import Repository, missing_programs, running_repository

HOST = local_host()
TIME = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A repository with one base backup."""
    with running_repository(tmp_path_factory.mktemp("backed-up")) as made:
        for name in (("stanza-create",), ("backup", "--type=full")):
            pgbackrest(made.site, HOST, *name, timeout=120, paths=made.paths)
        yield made


@pytest.fixture
def node(backed_up: Repository, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The parameters of the program, for a directory with a cluster that was never started."""
    place = backed_up.root / request.node.name[:40]
    data = place / "data"
    data.mkdir(parents=True)
    for directory in (place, data):
        backed_up.give(directory)
    (data / "made-by-initdb").touch()
    base = repository_state(backed_up.site, HOST, backed_up.paths).backups[-1]
    return {
        "data": str(data),
        "archive": str(place / "archive"),
        "bin": backed_up.server.programs,
        "unit": "no-such.service",
        "state_dir": str(place / "state"),
        "marker": str(place / "state" / "point-in-time.json"),
        "record": str(place / "state" / "cluster.json"),
        "record_text": "the record",
        "restore": command(backed_up.site, "", f"--set={base.label}", paths=backed_up.paths)[:-1],
        "base": base.label,
        "to_time": TIME,
        "sysid": base.system_identifier,
        "limit_s": 60,
    }


pytestmark = pytest.mark.servers
needs_programs = pytest.mark.skipif(bool(missing_programs()), reason=missing_programs())


@needs_programs
def test_a_base_backup_takes_the_place_of_a_cluster_that_held_nothing(node: dict[str, Any]) -> None:
    assert pitr_restore.restore(node) == {"changed": True}

    data = Path(node["data"])
    assert (data / "PG_VERSION").exists()
    assert not (data / "made-by-initdb").exists()
    assert Path(node["record"]).read_text() == "the record"
    assert sorted(path.name for path in data.parent.iterdir()) == ["data", "state"]
    # `restored` names the acceptance of before, in spite of which this node may start.
    left = {path.name for path in (data.parent / "state").iterdir()}
    assert left - {".state.lock"} == {"cluster.json", "point-in-time.json", "restored.json"}
    assert pitr_restore.restore(node) == {"changed": False}


@needs_programs
def test_for_another_time_the_base_backup_is_fetched_again(node: dict[str, Any]) -> None:
    pitr_restore.restore(node)
    # The recovery has written into it since; what it wrote is behind the other time.
    (Path(node["data"]) / "written-since").touch()
    assert pitr_restore.restore({**node, "to_time": "another"}) == {"changed": True}
    assert not (Path(node["data"]) / "written-since").exists()


@needs_programs
def test_half_a_copy_is_not_believed(node: dict[str, Any], backed_up: Repository) -> None:
    half = Path(node["data"] + ".restoring")
    half.mkdir()
    (half / "PG_VERSION").write_text("9.6")
    assert pitr_restore.restore(node) == {"changed": True}
    assert (Path(node["data"]) / "PG_VERSION").read_text().strip() == str(backed_up.site.postgres.major)


@needs_programs
def test_the_base_backup_of_another_database_is_not_put_in_place(node: dict[str, Any]) -> None:
    answer = pitr_restore.restore({**node, "sysid": "1"})
    assert "not 1" in answer["problem"]
    assert (Path(node["data"]) / "made-by-initdb").exists()
    assert not Path(node["record"]).exists()


@needs_programs
def test_what_pgbackrest_says_is_passed_on(node: dict[str, Any]) -> None:
    wrong = [word if not word.startswith("--set=") else "--set=20200101-000000F" for word in node["restore"]]
    assert "20200101-000000F" in pitr_restore.restore({**node, "restore": wrong})["problem"]
    assert (Path(node["data"]) / "made-by-initdb").exists()


@needs_programs
def test_killed_between_the_renames_the_next_run_knows_that_it_was_not_finished(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr("os.rename", killed)
    with pytest.raises(SystemExit):
        pitr_restore.restore(node)
    # cluster_create sets aside what has an intent and no record; a foreign database it would refuse.
    assert json.loads((Path(node["state_dir"]) / "creating.json").read_text()) == {"data": node["data"]}
    assert not Path(node["record"]).exists()
    monkeypatch.undo()
    assert pitr_restore.restore(node) == {"changed": True}


def test_a_nightly_backup_leaves_the_uploads_of_a_base_backup_alone(tmp_path: Path) -> None:
    with running_oss(tmp_path) as server:
        bucket = sdk_bucket(server)
        base = "harbor/example/"
        for key in (
            "pgbackrest/backup/example/big",
            "backups/2026/dump",
            "registry/docker/registry/v2/blobs/sha256/ab/c",
        ):
            bucket.init_multipart_upload(base + key)
        with _begun(ObjectStore(bucket, base)):
            left = [found.key for found in bucket.list_multipart_uploads().upload_list]
    assert left == ["harbor/example/pgbackrest/backup/example/big"]
