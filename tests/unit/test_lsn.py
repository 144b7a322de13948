"""WAL positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.postgres.lsn import PAGE, PAGE_HEADER, SEGMENT_HEADER, Lsn, optional_lsn, record_end


def test_a_position_is_read_as_postgresql_prints_it() -> None:
    assert Lsn.parse("16/B374D848") == 0x16B374D848
    assert str(Lsn.parse("0/0")) == "0/0"


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_what_is_printed_is_read_back(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value


@pytest.mark.parametrize(
    "text", ["", "0", "/", "0/", "g/0", "0x1/2", "-1/0", "0/1_0", "123456789/0", "1/2/3", "٣/0"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a WAL position"):
        Lsn.parse(text)


def test_positions_compare_as_numbers_not_as_text() -> None:
    assert Lsn.parse("9/0") < Lsn.parse("10/0")


def test_no_position_stays_none() -> None:
    assert optional_lsn(None) is None


def test_a_checkpoint_record_ends_aligned() -> None:
    # PostgreSQL 15: 114 bytes at 0/4000028; its replay position afterwards is 0/40000A0.
    assert record_end(Lsn.parse("0/4000028"), 114) == Lsn.parse("0/40000A0")


def test_a_record_over_a_page_boundary_goes_on_behind_the_header() -> None:
    start = Lsn(3 * PAGE - 40)
    assert record_end(start, 114) == 3 * PAGE + PAGE_HEADER + 80  # 74 left, aligned


def test_a_record_over_a_segment_boundary_goes_on_behind_the_longer_header() -> None:
    segment = 16 << 20
    assert record_end(Lsn(segment - 40), 114) == segment + SEGMENT_HEADER + 80


def test_a_record_that_fills_its_page_ends_at_the_boundary() -> None:
    assert record_end(Lsn(3 * PAGE - 120), 114) == 3 * PAGE
