"""The parts of PostgreSQL's node programs that need no server, and the texts that are sent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.hosts.on_node import preflight_probe
from tasks.on_node import accepted_here, pg_disk
from tasks.postgres.on_node import (
    base_backup,
    pg_archive,
    pg_follow,
    pg_lost_commits,
    pg_promote,
    pg_rewind,
    pg_wal,
)


def test_start_conf_keeps_its_comments_and_changes_once(tmp_path: Path) -> None:
    conf = tmp_path / "start.conf"
    conf.write_text("# a comment\n\nauto\n")
    given = {"conf": str(tmp_path)}
    assert set_start_conf(given, "manual")
    assert conf.read_text() == "# a comment\n\nmanual\n"
    assert not set_start_conf(given, "manual")


def set_start_conf(given: dict[str, Any], word: str) -> bool:
    """With the file's owner left as it is: there may be no user postgres here."""
    write = pg_disk.write_durably
    pg_disk.write_durably = lambda path, text, mode=0o600, owner="root": write(path, text, mode)
    try:
        return pg_disk.set_start_conf(given, word)
    finally:
        pg_disk.write_durably = write


def test_a_data_directory_that_is_a_mount_point_is_refused_before_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == str(tmp_path / "data"))
    given = {"data": str(tmp_path / "data"), "needed_bytes": 1 << 60}
    assert "is a mount point" in base_backup.backup(given)["problem"]
    assert not (tmp_path / "data.new").exists()


@pytest.mark.parametrize("mounted", ["data", "archive", ""])
def test_a_look_at_a_node_names_directories_that_are_mount_points(
    mounted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == str(tmp_path / mounted))
    paths = {name: str(tmp_path / name) for name in ("data", "archive")}
    given = {
        "data": paths["data"],
        "bin": "/none",
        "state_dir": str(tmp_path),
        "renamed": list(paths.values()),
    }
    seen = preflight_probe.database(
        {**given, "conf": str(tmp_path / "etc"), "record": str(tmp_path / "cluster.json")}
    )
    assert seen["mount_points"] == ([paths[mounted]] if mounted else [])


def test_a_process_that_only_stands_in_the_data_directory_is_no_server(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=tmp_path) as process:
        assert pg_disk.servers_in(str(tmp_path)) == []
        process.kill()


@pytest.mark.parametrize(
    ("line", "of_one_node"),
    [
        ("primary_conninfo = 'host=x'", True),
        ("recovery_target_lsn = '0/1'", True),
        ("synchronous_standby_names = 'x'", True),
        ("work_mem = '64MB'", False),
        ("# primary_conninfo", False),
    ],
)
def test_only_the_settings_of_one_node_leave_the_automatic_configuration(
    line: str, of_one_node: bool
) -> None:
    assert bool(pg_follow._OF_ONE_NODE.match(line)) is of_one_node


def test_the_segment_of_a_position_has_the_name_that_postgresql_gives_it() -> None:
    assert pg_wal.segment_name(1, pg_wal.lsn_of("0/5042CA8"), 16 << 20) == "000000010000000000000005"
    assert pg_wal.segment_name(10, pg_wal.lsn_of("2/FF000028"), 16 << 20) == "0000000A00000002000000FF"


def test_only_segments_of_the_old_timeline_from_the_fork_on_are_evidence(tmp_path: Path) -> None:
    for name in (
        "000000020000000000000004",
        "000000020000000000000005",
        "000000020000000000000006.partial",
        "000000030000000000000005",
        "00000002.history",
    ):
        (tmp_path / name).write_bytes(b"")
    found = pg_wal.segments_from(str(tmp_path), 2, pg_wal.lsn_of("0/5042CA8"), 16 << 20)
    assert found == ["000000020000000000000005", "000000020000000000000006.partial"]


def test_a_timeline_that_is_no_ancestor_has_no_fork() -> None:
    given = {"history": "1\t0/50000A0\tno recovery target specified\n\n2\t0/5042CA8\tx\n"}
    assert pg_wal.switchpoint(given, 2) == "0/5042CA8"
    assert pg_wal.switchpoint(given, 3) is None


WAL = """\
rmgr: Heap        len (rec/tot):     59/    59, tx:        740, lsn: 0/05000028, prev 0/04000108, desc: INSERT off 1 flags 0x08, blkref #0: rel 1663/5/16400 blk 0
rmgr: Heap        len (rec/tot):     59/    59, tx:        741, lsn: 0/05000068, prev 0/05000028, desc: INSERT off 2 flags 0x08, blkref #0: rel 1663/5/16403 blk 0
rmgr: Heap        len (rec/tot):     59/    59, tx:        742, lsn: 0/050000A8, prev 0/05000068, desc: UPDATE off 2, blkref #0: rel 1663/5/1259 blk 0
rmgr: Transaction len (rec/tot):     66/    66, tx:        740, lsn: 0/050000E8, prev 0/050000A8, desc: COMMIT 2026-11-22 13:10:00.123456 UTC; subxacts: 741
rmgr: Transaction len (rec/tot):     34/    34, tx:        742, lsn: 0/05000130, prev 0/050000E8, desc: ABORT 2026-11-22 13:10:01.000000 UTC
rmgr: Heap2       len (rec/tot):     59/    59, tx:        743, lsn: 0/05000158, prev 0/05000130, desc: MULTI_INSERT 3 tuples flags 0x02, blkref #0: rel 1663/5/16406 blk 0
"""  # noqa: E501  as pg_waldump prints it


def test_only_commits_are_lost_with_all_that_they_and_their_subtransactions_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pg_lost_commits, "waldump", lambda *_: iter(WAL.splitlines()))
    found = pg_lost_commits.collect({"limit_s": 5}, "", 2, "0/5000028")
    assert found["known"]
    assert found["commits"] == [
        {
            "at": "2026-11-22 13:10:00.123456 UTC",
            "xid": 740,
            "relations": ["1663/5/16400", "1663/5/16403"],
        }
    ]
    assert found["to"] == "0/05000158"


def segments(*numbers: int) -> list[str]:
    """Segments of timeline 2."""
    return [pg_wal.segment_name(2, number << 24, 1 << 24) for number in numbers]


@pytest.mark.parametrize(
    ("there", "missing"),
    [((5, 6, 7), None), ((6, 7), 5), ((5, 7), 6), ((5,), None)],
    ids=["whole", "its beginning removed", "a hole", "one segment"],
)
def test_a_segment_that_is_missing_behind_the_fork_is_named(
    there: tuple[int, ...], missing: int | None
) -> None:
    gap = pg_wal.first_gap(segments(*there), 2, pg_wal.lsn_of("0/5042CA8"), 1 << 24)
    assert gap == (segments(missing)[0] if missing else None)


@pytest.fixture
def diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stopped former primary on timeline 2, whose new primary left it at 0/5000028."""
    (tmp_path / "data" / "pg_wal").mkdir(parents=True)
    for name in segments(5, 6):
        (tmp_path / "data" / "pg_wal" / name).write_bytes(b"")
    (tmp_path / "data" / "pg_wal" / "00000002.history").write_text("")
    facts = {
        "Database cluster state": "in production",
        "Latest checkpoint's TimeLineID": "2",
        "Latest checkpoint location": "0/5000158",
    }
    monkeypatch.setattr(pg_lost_commits, "control", lambda p: facts)
    monkeypatch.setattr(pg_wal, "control", lambda p: facts)
    monkeypatch.setattr(pg_archive, "control", lambda p: facts)
    monkeypatch.setattr(pg_lost_commits, "servers_in", lambda data: [])
    monkeypatch.setattr(pg_lost_commits, "waldump", lambda *_: iter(WAL.splitlines()))
    return {
        "data": str(tmp_path / "data"),
        "state_dir": str(tmp_path / "state"),
        "operation": "rejoin-1",
        "archive": str(tmp_path / "archive"),
        "primary_timeline": 3,
        "primary_lsn": "0/6000000",
        "history": "2\t0/5000028\tno recovery target specified\n",
        "limit_s": 5,
        "kept_only": False,
    }


def test_with_its_wal_whole_the_lost_commits_are_known(diverged: dict[str, Any]) -> None:
    found = pg_lost_commits.lost(diverged)
    assert (found["known"], found["total"]) == (True, 1)


def test_what_a_rejoin_found_and_nobody_told_is_told_by_the_next_one(diverged: dict[str, Any]) -> None:
    """Killed after its rewind, its record taken over by a failover that did nothing: "nothing was lost" came of it."""
    pg_lost_commits.lost(diverged)
    assert pg_lost_commits.untold(diverged) == {"rejoin-1": 1}
    rewound = {**diverged, "operation": "rejoin-2", "kept_only": True}
    found = pg_lost_commits.lost(rewound)
    assert found["kept"] is False
    assert [(kept["total"], kept["commits"][0]["xid"]) for kept in found["earlier"]] == [(1, 740)]
    # The same WAL, looked into once more, has all of it.
    again = pg_lost_commits.lost({**diverged, "operation": "rejoin-3"})
    assert (again["total"], again["earlier"]) == (1, [])


def test_a_list_that_is_damaged_cannot_be_known_and_is_not_nothing(diverged: dict[str, Any]) -> None:
    pg_lost_commits.lost(diverged)
    Path(pg_lost_commits.result_path(diverged)).write_text("{")
    (kept,) = pg_lost_commits.lost({**diverged, "operation": "rejoin-2", "kept_only": True})["earlier"]
    assert not kept["known"]
    for damaged in ("{", "[]", '{"operations": 3}'):
        Path(pg_lost_commits.untold_path(diverged)).write_text(damaged)
        assert pg_lost_commits.untold(diverged) == {}


def test_wal_that_is_gone_is_never_taken_for_nothing_lost(diverged: dict[str, Any]) -> None:
    """pg_waldump reads nothing when its first segment is missing; the report said that nothing was lost."""
    (Path(diverged["data"]) / "pg_wal" / segments(5)[0]).unlink()
    found = pg_lost_commits.lost(diverged)
    assert not found["known"]
    assert segments(5)[0] in found["why"]


def test_wal_that_ends_before_the_last_checkpoint_is_not_taken_for_all_of_it(
    diverged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_lost_commits, "waldump", lambda *_: iter(WAL.splitlines()[:2]))
    found = pg_lost_commits.lost(diverged)
    assert not found["known"]
    assert "cannot be read beyond 0/05000068" in found["why"]


def test_of_a_node_without_a_database_nothing_is_said_about_timelines(
    diverged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_wal, "control", lambda p: {})
    assert pg_lost_commits.lost(diverged)["why"] == "it has no database to look into"


def test_what_was_found_before_the_rewind_is_told_after_it(
    diverged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejoin killed after its rewind, and run again, said that nothing was lost."""
    before = pg_lost_commits.lost(diverged)
    for segment in (Path(diverged["data"]) / "pg_wal").iterdir():
        segment.unlink()
    monkeypatch.setattr(pg_lost_commits, "servers_in", lambda data: ["a standby"])
    after = pg_lost_commits.lost({**diverged, "kept_only": True})
    assert after == {**before, "stored": True}
    assert after["total"] == 1


def test_that_it_could_not_be_known_is_kept_too(diverged: dict[str, Any]) -> None:
    segment = Path(diverged["data"]) / "pg_wal" / segments(5)[0]
    segment.unlink()
    before = pg_lost_commits.lost(diverged)
    segment.write_bytes(b"")
    after = pg_lost_commits.lost({**diverged, "kept_only": True})
    assert (after["known"], after["why"]) == (False, before["why"])


def test_without_a_list_that_was_kept_nothing_is_said_of_what_was_lost(diverged: dict[str, Any]) -> None:
    found = pg_lost_commits.lost({**diverged, "kept_only": True})
    assert not found["known"]
    assert not (Path(diverged["state_dir"]) / "diverged").exists()


def test_a_server_that_runs_is_asked_again_when_it_does_not(
    diverged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_lost_commits, "servers_in", lambda data: ["postgres"])
    assert not pg_lost_commits.lost(diverged)["known"]
    monkeypatch.setattr(pg_lost_commits, "servers_in", lambda data: [])
    assert pg_lost_commits.lost(diverged)["known"]


@pytest.mark.parametrize(("major", "needed"), [(13, True), (14, True), (15, False), (17, False)])
def test_before_15_the_single_user_server_is_given_a_directory_for_its_statistics(
    major: int, needed: bool
) -> None:
    """After a power cut Debian's directory in /var/run was not there, and every node of 13 and 14 was cloned."""
    argv = pg_rewind.recovery_argv({"bin": "/b", "data": "/d", "conf": "/c", "major": major})
    assert ("stats_temp_directory=pg_stat_tmp" in argv) is needed
    assert argv[-1] == "template1"


def write_history(given: dict[str, Any], timeline: int, text: str) -> None:
    """The node's own history file of a timeline."""
    (Path(given["data"]) / "pg_wal" / f"{timeline:08X}.history").write_text(text)


def test_of_two_timelines_of_one_number_nothing_is_said(diverged: dict[str, Any]) -> None:
    """Two nodes promoted apart: "nothing was lost", and 25 rows were only on one of them."""
    write_history(diverged, 2, "1\t0/3000000\tno recovery target specified\n")
    given = {**diverged, "primary_timeline": 2, "history": "1\t0/3000060\tno recovery target specified\n"}
    found = pg_lost_commits.lost(given)
    assert (found["known"], found["total"]) == (False, 0)
    assert "they are two" in found["why"]


def test_an_ancestor_of_the_same_number_with_another_fork_is_no_ancestor(diverged: dict[str, Any]) -> None:
    write_history(diverged, 2, "1\t0/3000000\tno recovery target specified\n")
    history = "1\t0/3000060\tno recovery target specified\n2\t0/5000028\tno recovery target specified\n"
    found = pg_lost_commits.lost({**diverged, "history": history})
    assert not found["known"]
    assert "not the one" in found["why"]


@pytest.mark.parametrize(
    ("state", "end", "known"),
    [
        ("in production", "0/0", False),
        ("shut down", "0/0", False),
        ("shut down in recovery", "0/5000158", True),
        ("in archive recovery", "0/5000158", True),
        ("in archive recovery", "0/7000000", False),
    ],
)
def test_on_the_primarys_timeline_only_a_standby_that_is_not_beyond_it_has_lost_nothing(
    diverged: dict[str, Any], monkeypatch: pytest.MonkeyPatch, state: str, end: str, known: bool
) -> None:
    facts = {
        "Database cluster state": state,
        "Latest checkpoint's TimeLineID": "2",
        "Minimum recovery ending location": end,
    }
    monkeypatch.setattr(pg_lost_commits, "control", lambda p: facts)
    monkeypatch.setattr(pg_wal, "control", lambda p: facts)
    fork = "1\t0/3000000\tno recovery target specified\n"
    write_history(diverged, 2, fork)
    found = pg_lost_commits.lost({**diverged, "primary_timeline": 2, "history": fork})
    assert found["known"] is known


def segment(path: Path, sysid: int) -> None:
    """A segment with the head that PostgreSQL writes."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(24) + sysid.to_bytes(8, "little") + bytes(100))


def test_an_archive_of_another_database_goes_aside_and_the_own_one_stays(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    assert pg_archive.set_archive_aside(str(archive), "7") is None
    segment(archive / "000000010000000000000001", 7)
    assert pg_archive.set_archive_aside(str(archive), "7") is None
    kept = pg_archive.set_archive_aside(str(archive), "8")
    assert kept is not None
    assert list(archive.iterdir()) == []
    assert [path.name for path in Path(kept).iterdir()] == ["000000010000000000000001"]
    assert archive.stat().st_mode & 0o777 == 0o700


def test_wal_that_the_server_has_dropped_is_read_out_of_the_nodes_own_archive(
    diverged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "Database system identifier": "7",
        "Database cluster state": "in production",
        "Latest checkpoint's TimeLineID": "2",
        "Latest checkpoint location": "0/5000158",
    }
    monkeypatch.setattr(pg_archive, "control", lambda p: facts)
    gone = segments(5)[0]
    (Path(diverged["data"]) / "pg_wal" / gone).unlink()
    segment(Path(diverged["archive"]) / gone, 7)
    assert not pg_lost_commits.found(diverged)["known"], (
        "an archive without the timeline's history proves nothing"
    )
    (Path(diverged["archive"]) / "00000002.history").write_text("")
    found = pg_lost_commits.found(diverged)
    assert (found["known"], found["total"]) == (True, 1)
    segment(Path(diverged["archive"]) / gone, 8)
    assert not pg_lost_commits.found(diverged)["known"], "another database's WAL is not read"


def test_a_promoted_node_tells_the_nas_at_once_who_is_the_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    # The orchestrator was killed right after the promotion and all machines lost their power: the old primary booted,
    # found itself accepted on its own disk and on the NAS, and both were primaries.
    kept: list[tuple[str, str]] = []
    monkeypatch.setattr(pg_promote, "control", lambda p: {"Database system identifier": "7"})
    monkeypatch.setattr(accepted_here, "text_of", lambda path: None)
    monkeypatch.setattr(accepted_here, "write_durably", lambda path, text: kept.append((path, text)))
    monkeypatch.setattr(accepted_here, "keep_shared", lambda p, name, text: kept.append((name, text)))
    p = {
        "node": "node-b",
        "from_timeline": 1,
        "state_dir": "/state",
        "data": "/data",
        "authority": {"term": 4},
    }
    pg_promote.accept_here(p, 2)
    assert [place for place, _ in kept] == ["/state/accepted.json", "accepted"]
    assert kept[0][1] == kept[1][1]
    assert json.loads(kept[1][1])["timeline"] == 2
