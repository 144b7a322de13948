"""What a restore to a point in time has noted counts for the database that it restored, and for no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from tasks.backup.restore import done
from tasks.errors import Refused
from tasks.pitr import restore
from tasks.pitr.on_node import pitr_recover, pitr_restore
from tasks.pitr.restore import DirectorySeen, begin, judge, require_free
from tasks.postgres.layout import Layout
from tests.unit.harbor_site import NodeInDirectory, make_site, program

DATA = "/data/pgsql/data"
TIME, OTHER = "2026-11-22T03:04:05+08:00", "2026-11-22T02:00:00+08:00"
BASE = "20261120-010000F"
BEGUN = {"to_time": TIME, "base": BASE, "sysid": "7100", "data": DATA}
PLACING = {**BEGUN, "placing": [BASE, TIME]}
RESTORED = {**PLACING, "restored": [BASE, TIME]}
DONE = {**RESTORED, "done": True, "replayed": "x", "timeline": 2}

NOTHING = DirectorySeen(DATA, "", False, 0)
EMPTY = DirectorySeen(DATA, "9999", True, 3)
OURS = DirectorySeen(DATA, "7100", True, 4)
FULL = DirectorySeen(DATA, "9999", True, 4)
ELSEWHERE = DirectorySeen("/other/data", "7100", True, 4)


@pytest.mark.parametrize(
    ("known", "seen", "counts"),
    [
        ({}, NOTHING, False),
        (BEGUN, NOTHING, True),
        (BEGUN, EMPTY, True),
        (BEGUN, FULL, False),
        (PLACING, NOTHING, True),
        (PLACING, OURS, True),
        # Killed between the renames, and again after the next empty cluster was made.
        (PLACING, EMPTY, True),
        (PLACING, FULL, False),
        (RESTORED, OURS, True),
        (RESTORED, NOTHING, False),
        (DONE, OURS, True),
        (DONE, NOTHING, False),
        (DONE, EMPTY, False),
        (DONE, FULL, False),
        (DONE, ELSEWHERE, False),
    ],
)
def test_which_note_is_about_what_is_there(known: dict[str, Any], seen: DirectorySeen, counts: bool) -> None:
    found = judge(known, seen)
    assert (found.to_time, found.stale) == (TIME if counts else None, bool(known) and not counts)
    assert found.done == (counts and bool(known.get("done")))


def test_after_the_data_was_moved_away_another_time_may_be_given() -> None:
    """It was refused for ever, on a machine that had become a bare one."""
    require_free(judge(DONE, NOTHING), "node-a", OTHER)
    with pytest.raises(Refused, match="was restored to"):
        require_free(judge(DONE, OURS), "node-a", OTHER)
    with pytest.raises(Refused, match="no restore to a point in time made"):
        require_free(judge(DONE, FULL), "node-a", TIME)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    """A site whose database lies in the test's directory."""
    made = make_site(tmp_path)
    made.postgres.data_dir = str(tmp_path / "data")
    monkeypatch.setattr(Layout, "bin", str(tmp_path / "bin"))
    monkeypatch.setattr(restore, "MARKER", str(tmp_path / "point-in-time.json"))
    monkeypatch.setattr(done, "NOTE", str(tmp_path / "done.json"))
    return made


def test_a_note_that_does_not_count_is_set_aside_and_the_restore_begins_anew(
    site: HarborSite, tmp_path: Path
) -> None:
    marker = tmp_path / "point-in-time.json"
    marker.write_text(json.dumps({**DONE, "data": site.postgres.data_dir}))
    (tmp_path / "done.json").write_text("{}")
    host = NodeInDirectory("node-a", tmp_path).as_host()
    assert begin(site, host, to_time=TIME, base=BASE, sysid="7100").changed
    assert "restored" not in json.loads(marker.read_text())
    assert json.loads((tmp_path / "point-in-time.json.aside").read_text())["done"]
    assert not (tmp_path / "done.json").exists()
    assert not begin(site, host, to_time=TIME, base=BASE, sysid="7100").changed


def test_a_note_of_the_database_that_is_there_counts(site: HarborSite, tmp_path: Path) -> None:
    (tmp_path / "point-in-time.json").write_text(json.dumps({**DONE, "data": site.postgres.data_dir}))
    (tmp_path / "data/global").mkdir(parents=True)
    (tmp_path / "data/global/pg_control").touch()
    program(tmp_path / "bin", "pg_controldata", "echo 'Database system identifier:           7100'\n")
    assert restore.standing(site, NodeInDirectory("node-a", tmp_path).as_host()).done


def test_another_time_before_the_database_is_open_knows_its_own_base_backup(
    site: HarborSite, tmp_path: Path
) -> None:
    marker = tmp_path / "point-in-time.json"
    marker.write_text(json.dumps({**RESTORED, "data": site.postgres.data_dir}))
    (tmp_path / "data/global").mkdir(parents=True)
    (tmp_path / "data/global/pg_control").touch()
    for number in (1, 4, 5, 16384):
        (tmp_path / f"data/base/{number}").mkdir(parents=True)
    program(tmp_path / "bin", "pg_controldata", "echo 'Database system identifier:           7100'\n")
    host = NodeInDirectory("node-a", tmp_path).as_host()
    assert begin(site, host, to_time=OTHER, base=BASE, sysid="7100").changed
    # Killed here, and run again.
    assert not begin(site, host, to_time=OTHER, base=BASE, sysid="7100").changed


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parameters of the programs, after a restore that came to its end."""
    (tmp_path / "marker").write_text(json.dumps(DONE))
    (tmp_path / "data").mkdir()
    names = {name: str(tmp_path / name) for name in ("marker", "data", "record", "archive", "log")}
    monkeypatch.setattr(pitr_restore, "servers_in", lambda _: [])
    monkeypatch.setattr(pitr_restore, "set_archive_aside", lambda *_: None)
    names |= {"state_dir": str(tmp_path / "state"), "unit": "postgresql@15-main"}
    return {**names, "sysid": "7100", "base": BASE, "to_time": TIME}


def test_an_empty_cluster_in_its_place_is_not_taken_for_the_restored_one(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same time onto a new cluster skipped the restore and the recovery, and opened an empty database."""
    for module in (pitr_restore, pitr_recover):
        monkeypatch.setattr(module, "control", lambda _: {"Database system identifier": "9999"})
    monkeypatch.setattr(pitr_restore, "as_postgres", lambda _: ["false"])
    with pytest.raises(KeyError):
        # It goes on to what it needs for a restore, and for a recovery.
        pitr_restore.restore(given)
    monkeypatch.setattr(pitr_recover, "servers_in", lambda _: [])
    with pytest.raises(KeyError):
        pitr_recover.recover(given)
    for module in (pitr_restore, pitr_recover):
        monkeypatch.setattr(module, "control", lambda _: {"Database system identifier": "7100"})
    assert pitr_restore.restore(given) == {"changed": False}
    assert pitr_recover.recover(given)["changed"] is False


def test_a_cluster_that_holds_databases_is_kept_when_the_copy_takes_its_place(
    given: dict[str, Any], tmp_path: Path
) -> None:
    for number in (1, 4, 5, 16384):
        (tmp_path / f"data/base/{number}").mkdir(parents=True)
    (tmp_path / "new").mkdir()
    pitr_restore.swap({**given, "record_text": "the record"}, str(tmp_path / "new"))
    (kept,) = tmp_path.glob("data.unused.*")
    assert (kept / "base/16384").is_dir()
    (tmp_path / "new").mkdir()
    (tmp_path / "data/base/16384").mkdir(parents=True)
    pitr_restore.swap({**given, "record_text": "the record"}, str(tmp_path / "new"), ours=True)
    assert list(tmp_path.glob("data.unused*")) == [kept]
