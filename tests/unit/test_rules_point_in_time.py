"""Which base backup and which nightly one lead to a moment, and every moment that none leads to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.rules.point_in_time import choose_base, choose_nightly, gap, parse_time, ranges
from flows.rules.restore_admission import RestoreFacts, objections
from tasks.backup.format.layout import BackupId
from tasks.errors import Refused
from tasks.pitr.catalogue import Reach, reach, segment_number, wal_arrivals
from tasks.pitr.repository import BaseBackup
from tasks.pitr.restore import Standing, require_free

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(hour: float) -> datetime:
    """A time of that day, UTC."""
    return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=hour)


def base(label: str, hour: float, wal: str = "000000010000000000000002") -> BaseBackup:
    """A base backup that ended at an hour."""
    return BaseBackup(label, at(hour - 0.1), at(hour), "7", 15, "15-1", wal, 1000)


def reaching(label: str, first: float, last: float) -> Reach:
    """A base backup whose WAL leads from one hour to another."""
    return Reach(base(label, first), at(first), at(last), False)


def reason(raised: pytest.ExceptionInfo[Refused]) -> str:
    """The one reason of a refusal."""
    assert len(raised.value.reasons) == 1
    return raised.value.reasons[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday", "is not a time"),
        ("2026-11-22T03:04:05", "has no time zone"),
        ("2026-11-22", "has no time zone"),
        ("2026-11-22T20:00:01+08:00", "has not come yet"),
    ],
)
def test_a_time_that_means_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused) as raised:
        parse_time(text, NOW)
    assert said in reason(raised)


def test_a_time_counts_in_its_own_zone() -> None:
    time = parse_time("2026-11-22T03:04:05+08:00", NOW)
    assert time == datetime(2026, 11, 21, 19, 4, 5, tzinfo=UTC)
    assert time.tzinfo == timezone(timedelta(hours=8))


def test_the_newest_base_backup_before_the_time_is_the_shortest_way() -> None:
    reaches = [reaching("old", 1, 10), reaching("new", 5, 10)]
    assert choose_base(at(7), reaches, 15).base.label == "new"
    assert choose_base(at(4), reaches, 15).base.label == "old"


@pytest.mark.parametrize(
    ("hour", "said"),
    [(0.5, "before the oldest base backup"), (11, "after the last WAL"), (4, "where WAL is missing")],
)
def test_a_time_out_of_reach_is_refused_with_the_times_that_can_be_reached(hour: float, said: str) -> None:
    with pytest.raises(Refused) as raised:
        choose_base(at(hour), [reaching("a", 1, 3), reaching("b", 5, 10)], 15)
    assert said in reason(raised)
    assert "from 2026-11-22T01:00:00+00:00 to 2026-11-22T03:00:00+00:00 and from" in reason(raised)


def test_without_a_base_backup_the_way_of_the_nightly_one_is_shown() -> None:
    with pytest.raises(Refused, match="cannot be restored") as raised:
        choose_base(at(1), [], 15)
    assert "Without `to_time`" in reason(raised)


def test_of_two_databases_of_the_site_the_one_that_its_postgresql_can_read_is_taken() -> None:
    """A dump of 13 was restored onto 17, and the base backups of both are in the bucket."""
    old, new = reaching("old", 1, 10), Reach(replace(base("new", 5), major=17), at(5), at(10), False)
    assert choose_base(at(7), [old, new], 17).base.label == "new"
    assert choose_base(at(7), [old, new], 15).base.label == "old"
    # Admission says with all other reasons why it cannot be.
    assert choose_base(at(7), [old], 17).base.label == "old"


def test_spans_that_overlap_are_one() -> None:
    text = ranges([reaching("b", 5, 10), reaching("a", 1, 10)])
    assert text.count(" from ") == 1
    assert "01:00:00" in text


def test_secrets_come_from_the_night_before_or_from_the_first_one_after() -> None:
    nights = [BackupId(at(2), "00000000"), BackupId(at(8), "00000001")]
    assert choose_nightly(at(7), nights)[0] == nights[0]
    assert choose_nightly(at(9), nights)[0] == nights[1]
    chosen, why = choose_nightly(at(1), nights)
    assert chosen == nights[0]
    assert "after that time" in why
    with pytest.raises(Refused):
        choose_nightly(at(1), [])


def test_wal_leads_to_the_first_segment_that_is_missing() -> None:
    arrived = {2: at(1).timestamp(), 3: at(2).timestamp(), 5: at(4).timestamp()}
    found = reach(base("a", 1.5), arrived)
    assert (found.last, found.broken) == (at(2), True)
    assert not reach(base("a", 1.5), {2: at(1).timestamp(), 3: at(2).timestamp()}).broken


def test_a_base_backup_can_be_reached_from_the_second_after_its_end() -> None:
    # pgBackRest knows its end to the second; a moment in that second may be before it.
    assert reach(base("a", 1), {}).first == at(1) + timedelta(seconds=1)


def test_after_a_failover_the_new_timeline_continues_the_chain() -> None:
    names = [
        f"pgbackrest/archive/s/15-1/{name[:16]}/{name}-{'a' * 40}.zst"
        for name in ("000000010000000000000002", "000000010000000000000003", "000000020000000000000004")
    ]
    others = ["pgbackrest/archive/s/archive.info", "pgbackrest/archive/s/15-1/00000002.history"]
    arrived = wal_arrivals((key, at(number).timestamp()) for number, key in enumerate(names + others))
    assert reach(base("a", 0), arrived).last == at(2)
    assert sorted(arrived) == [2, 3, 4]


def test_segments_are_counted_over_the_end_of_a_log() -> None:
    assert segment_number("000000010000000100000000") - segment_number("0000000100000000000000FF") == 1


@settings(deadline=None)
@given(st.sets(st.integers(2, 40)), st.integers(2, 40))
def test_every_segment_up_to_the_last_reachable_moment_is_there(there: set[int], start: int) -> None:
    arrived = {number: at(number).timestamp() for number in there}
    name = f"{1:08X}{start // 256:08X}{start % 256:08X}"
    found = reach(base("a", 0, name), arrived)
    led = [number for number in range(start, 42) if at(number) <= found.last and found.last > found.first]
    assert all(number in there for number in led)


@pytest.mark.parametrize("occupied", [True, False])
def test_a_database_that_came_from_elsewhere_is_not_replaced(occupied: bool) -> None:
    found = Standing(None, False, occupied)
    if occupied:
        with pytest.raises(Refused, match="there"):
            require_free(found, "node-c", "t")
    else:
        require_free(found, "node-c", "t")


def test_a_restore_goes_on_or_takes_another_time_until_it_is_done() -> None:
    require_free(Standing("t", False, True), "node-c", "t")
    require_free(Standing("t", False, True), "node-c", "another")
    require_free(Standing("t", True, True), "node-c", "t")
    with pytest.raises(Refused):
        require_free(Standing("t", True, True), "node-c", "another")


def test_a_data_directory_fits_its_own_major_only_and_needs_no_images_in_the_backup() -> None:
    facts = RestoreFacts("node-c", "oss", "v2.12.4", "v2.12.4", 16, 15, False, physical=True)
    assert [text for text in objections(facts) if "fits its own version only" in text]
    assert len(objections(facts)) == 1


def test_a_gap_behind_the_newest_base_backup_asks_for_another_one() -> None:
    found = gap([reaching("a", 0, 9), Reach(base("b", 4), at(4), at(6), True)], "7", NOW)
    assert "behind 2026-11-22T06:00:00+00:00" in found
    assert "run base-backup" in found


def test_a_gap_that_a_newer_base_backup_has_mended_is_past() -> None:
    assert gap([Reach(base("a", 0), at(0), at(1), True), reaching("b", 4, 9)], "7", NOW) == ""


def test_a_segment_that_another_one_has_just_overtaken_is_no_gap() -> None:
    assert gap([Reach(base("a", 0), at(0), at(11.9), True)], "7", NOW) == ""


def test_a_restored_database_needs_a_base_backup_of_its_own() -> None:
    assert "no base backup of this database" in gap([reaching("a", 0, 9)], "8", NOW)
    assert gap([], "8", NOW) != ""
