"""pg_controldata's text."""

import pytest

from tasks.postgres.controldata import ControlDataUnreadable, controldata
from tasks.postgres.lsn import Lsn

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


def test_a_value_that_is_no_position_is_refused() -> None:
    with pytest.raises(ControlDataUnreadable, match="not a WAL position"):
        controldata(
            PRINTED.replace(
                "Latest checkpoint location:           0/4000028", "Latest checkpoint location: x"
            )
        )
