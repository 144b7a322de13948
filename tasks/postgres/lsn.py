"""Positions in the write-ahead log."""

import re
from dataclasses import dataclass

# Sizes of the PostgreSQL WAL format, unchanged since 9.5: a page, the header of a page, the longer
# header of the first page of a segment, and the alignment of records.
PAGE = 8192
PAGE_HEADER = 24
SEGMENT_HEADER = 40
ALIGNMENT = 8
DEFAULT_SEGMENT = 16 << 20

_FORM = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A byte position in the log, written `16/B374D848` by PostgreSQL. Compares as the number it is."""

    @classmethod
    def parse(cls, text: str) -> "Lsn":
        """Read the form that PostgreSQL prints.

        Raises:
            ValueError: for anything else than two hexadecimal numbers of at most 8 digits with a slash.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"not a WAL position: {text!r}")
        return cls((int(match[1], 16) << 32) | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"


@dataclass(frozen=True)
class WalPosition:
    """A position on a timeline. Positions of two timelines are not comparable, so there is no order here."""

    timeline: int
    lsn: Lsn

    def __str__(self) -> str:
        return f"{self.lsn} on timeline {self.timeline}"


def optional_lsn(text: str | None) -> Lsn | None:
    """Read a position that may be absent (SQL's NULL).

    Raises:
        ValueError: when it is there and malformed.
    """
    return None if text is None else Lsn.parse(text)


def segment_begin(number: str, segment_size: int) -> Lsn:
    """Return where a segment begins.

    Args:
        number: the last 16 of the 24 digits of its file's name, behind the timeline.
        segment_size: bytes of a segment.

    Raises:
        ValueError: when they are no such digits.
    """
    return Lsn((int(number[:8], 16) << 32) + int(number[8:], 16) * segment_size)


def record_end(start: Lsn, length: int, segment_size: int = DEFAULT_SEGMENT) -> Lsn:
    """Return the end of a record: the first byte behind it, aligned, as replay and history files count.

    A record that does not fit on its page goes on behind the header of the next one, so the sum of position
    and length is short by a header now and then; a former primary would then be rewound for nothing.

    Args:
        start: position of the record's first byte (never inside a page header).
        length: its total length in bytes, as pg_waldump prints it (`len (rec/tot): 114/114` -> 114).
        segment_size: WAL segment size of the cluster in bytes.
    """
    position = int(start)
    left = length
    while True:
        room = PAGE - position % PAGE
        if left <= room:
            position += left
            break
        left -= room
        position += room
        position += _header(position, segment_size)
    return Lsn(position + -position % ALIGNMENT)


def _header(position: int, segment_size: int) -> int:
    return SEGMENT_HEADER if position % segment_size == 0 else PAGE_HEADER
