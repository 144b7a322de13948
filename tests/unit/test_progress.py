"""What the UI says of a long copy: how far it is, how fast, and how long the rest takes."""

import pytest

from flows.machinery.progress import Progress, how_far, how_far_in_stream, share
from tasks.backup.restore.restore_blobs import BlobsRestored

GB = 10**9


@pytest.mark.parametrize(
    ("done", "total", "size", "of", "seconds", "said"),
    [
        (0, 10, 0, 10 * GB, 5, "0 of 10 blobs, 0 bytes of about 10.0 GB"),
        (
            500,
            1000,
            250 * GB,
            1000 * GB,
            3600,
            "500 of 1,000 blobs, 250 GB of about 1.0 TB, 69.4 MB/s, 3 h 0 min left at this pace",
        ),
        # Sizes that the database does not know: then blobs count.
        (
            500,
            1000,
            20 * GB,
            10 * GB,
            600,
            "500 of 1,000 blobs, 20.0 GB, 33.3 MB/s, 10 min left at this pace",
        ),
        (1000, 1000, 10 * GB, 10 * GB, 50, "1,000 of 1,000 blobs, 10.0 GB, 200 MB/s"),
    ],
)
def test_the_rest_is_told_by_bytes_and_by_blobs_where_bytes_are_not_known(
    done: int, total: int, size: int, of: int, seconds: float, said: str
) -> None:
    assert how_far(done, total, size, of, seconds) == said


@pytest.mark.parametrize(
    ("size", "expected", "seconds", "said"),
    [
        (0, 2 * GB, 0.5, "0 bytes of about 2.0 GB, as much as the last time"),
        (
            GB // 2,
            2 * GB,
            50,
            "500 MB of about 2.0 GB, as much as the last time, 10.0 MB/s, 2 min left at this pace",
        ),
        (
            3 * GB,
            2 * GB,
            300,
            "3.0 GB, 10.0 MB/s; the last one had 2.0 GB",
        ),
        (
            GB,
            0,
            100,
            "1.0 GB, 10.0 MB/s; there is no earlier one to go by",
        ),
    ],
)
def test_the_rest_of_a_dump_is_a_guess_by_the_last_one_and_says_so(
    size: int, expected: int, seconds: float, said: str
) -> None:
    assert how_far_in_stream(size, expected, seconds) == said


def test_the_bar_of_a_dump_is_never_full_before_its_end() -> None:
    bar = Progress("dump-main", "Databases")
    shares = []
    for size in (0, GB // 2, GB, 3 * GB):
        bar.stream(size, GB)
        shares.append(bar._share)
    assert shares == [0, 50, 99, 99]
    bar.stream(GB, 0)
    assert bar._share == 0


def test_the_share_is_of_the_bytes() -> None:
    assert share(900, 1000, 1 * GB, 100 * GB) == 1.0
    assert share(900, 1000, 200 * GB, 100 * GB) == 90.0
    assert share(0, 0, 0, 0) == 100.0


def test_what_was_there_before_is_neither_done_nor_left() -> None:
    so_far = BlobsRestored(present=60, present_bytes=600, restored=30, restored_bytes=300, damaged_count=1)
    assert so_far.of(100, 1000) == (31, 40, 300, 400)
