"""pg_controldata's text."""

import subprocess
from pathlib import Path

import pytest

from tasks.hosts.on_node import node_probe
from tasks.on_node.pg_control import control_text, untrustworthy
from tasks.postgres.controldata import ControlDataUnreadable, controldata
from tasks.postgres.lsn import Lsn
from tests.unit.local_postgres import programs, running_postgres

PRINTED = """\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7710979167660934145
Database cluster state:               shut down
pg_control last modified:             Sun Nov 22 13:00:00 2026
Latest checkpoint location:           0/4000028
Latest checkpoint's REDO location:    0/4000028
Latest checkpoint's REDO WAL file:    000000010000000000000004
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/40000D0
Min recovery ending loc's timeline:   2
Backup start location:                0/0
wal_level setting:                    replica
wal_log_hints setting:                off
Bytes per WAL segment:                16777216
Data page checksum version:           1
"""


def test_a_control_file_is_read() -> None:
    control = controldata(PRINTED)
    assert control.system_identifier == "7710979167660934145"
    assert control.shut_down_cleanly
    assert control.checkpoint == Lsn.parse("0/4000028")
    assert control.can_rewind, "checksums alone are enough for pg_rewind"


def test_right_after_a_promotion_only_the_recovery_timeline_is_new() -> None:
    control = controldata(PRINTED)
    assert (control.timeline, control.latest_timeline) == (1, 2)


def test_a_standby_that_was_shut_down_is_no_clean_shutdown_of_a_primary() -> None:
    text = PRINTED.replace("shut down\n", "shut down in recovery\n")
    assert not controldata(text).shut_down_cleanly


def test_without_checksums_and_hints_nothing_can_be_rewound() -> None:
    assert not controldata(
        PRINTED.replace("checksum version:           1", "checksum version:           0")
    ).can_rewind


def test_output_in_another_language_names_every_line_that_is_missing() -> None:
    with pytest.raises(ControlDataUnreadable, match=r"system identifier.*cluster state.*checkpoint location"):
        controldata("Datenbanksystemidentifikation: 1\n")


WARNED = """\
WARNING: Calculated CRC checksum does not match value stored in file.
Either the file is corrupt, or it has a different layout than this program
is expecting.  The results below are untrustworthy.

"""


def test_what_the_program_itself_does_not_trust_is_no_fact() -> None:
    with pytest.raises(ControlDataUnreadable, match="untrustworthy"):
        controldata(WARNED + PRINTED)


@pytest.mark.parametrize("stream", [1, 2])
def test_a_node_reads_the_programs_warning_wherever_it_is_printed(stream: int, tmp_path: Path) -> None:
    program = tmp_path / "pg_controldata"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/warning' >&{stream}\ncat '{tmp_path}/printed'\n")
    program.chmod(0o755)
    (tmp_path / "printed").write_text(PRINTED)
    (tmp_path / "warning").write_text("")
    assert control_text(str(tmp_path), "/data") == PRINTED
    (tmp_path / "warning").write_text(WARNED)
    assert control_text(str(tmp_path), "/data") == ""
    with pytest.raises(RuntimeError, match="untrustworthy"):
        node_probe.control({"bin_dir": str(tmp_path), "data_dir": "/data", "limit_s": 10})


@pytest.mark.servers
def test_postgresqls_own_program_warns_of_a_damaged_control_file_with_status_0(tmp_path: Path) -> None:
    if programs() is None:
        pytest.skip("no PostgreSQL on this machine")
    file = tmp_path / "global" / "pg_control"
    file.parent.mkdir()
    with running_postgres(schema="") as server:
        content = Path(server.sockets, "data", "global", "pg_control").read_bytes()
    file.write_bytes(content)
    sound = control_text(server.programs, str(tmp_path))
    assert controldata(sound).timeline == 1
    # The timeline, and with it only the checksum is wrong.
    place = content.index((1).to_bytes(4, "little"), 40)
    file.write_bytes(content[:place] + bytes([254]) + content[place + 1 :])
    printed = subprocess.run(
        [f"{server.programs}/pg_controldata", "-D", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert untrustworthy(printed.stdout + printed.stderr)
    assert control_text(server.programs, str(tmp_path)) == ""


def test_a_value_that_is_no_position_is_refused() -> None:
    with pytest.raises(ControlDataUnreadable, match="not a WAL position"):
        controldata(
            PRINTED.replace(
                "Latest checkpoint location:           0/4000028", "Latest checkpoint location: x"
            )
        )
