"""Closure: what the dump needs against what the bucket has."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rules.closure import (
    FOREIGN_LAYER,
    Checked,
    OutOfOrder,
    State,
    compare,
    conclude,
)
from tasks.backup.format.blobs import KnownBlob, NeededBlob, StoredBlob
from tasks.backup.night.known import newest_of


def digest(number: int) -> str:
    return "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()


A, B, C = sorted(digest(number) for number in range(3))


def one(blob: NeededBlob, *stored: StoredBlob, known: tuple[KnownBlob, ...] = ()) -> Checked:
    (check,) = compare([blob], stored, known)
    return check


def test_a_blob_that_is_there_with_the_right_size_is_present() -> None:
    assert one(NeededBlob(B, 5), StoredBlob(A, 1), StoredBlob(B, 5), StoredBlob(C, 1)).state is State.PRESENT


def test_a_truncated_blob_is_found() -> None:
    assert one(NeededBlob(B, 5), StoredBlob(B, 4)).state is State.WRONG_SIZE


def test_a_blob_that_was_overwritten_with_the_same_size_is_found() -> None:
    known = KnownBlob(B, 5, 77, "AA-1")
    assert one(NeededBlob(B, 5), StoredBlob(B, 5, "BB-1"), known=(known,)).state is State.CHANGED
    assert one(NeededBlob(B, 5), StoredBlob(B, 5, "AA-1"), known=(known,)).state is State.PRESENT


def test_layers_that_docker_never_uploads_are_not_missed() -> None:
    assert one(NeededBlob(A, 5, FOREIGN_LAYER)).state is State.EXEMPT


def test_a_blob_that_garbage_collection_is_deleting_is_not_missed() -> None:
    assert one(NeededBlob(A, 5, status="deleting")).state is State.EXEMPT


def test_a_layer_that_a_proxy_cache_never_fetched_is_not_missed_but_a_truncated_one_is() -> None:
    assert one(NeededBlob(A, 5, proxied=True)).state is State.EXEMPT
    assert one(NeededBlob(A, 5, proxied=True), StoredBlob(A, 3)).state is State.WRONG_SIZE


def test_garbage_that_was_collected_during_the_copy_is_not_missed() -> None:
    assert one(NeededBlob(A, 5, referenced=False)).state is State.EXEMPT


def test_a_reference_without_a_size_accepts_what_the_bucket_has() -> None:
    assert one(NeededBlob(A, None), StoredBlob(A, 3)).state is State.PRESENT


def test_what_no_storage_has_is_listed_and_does_not_fail_the_backup() -> None:
    result = conclude(compare([NeededBlob(A, 1), NeededBlob(B, 1)], [StoredBlob(B, 1)]), lambda _: False)
    assert result.missing_at_source == (A,)
    assert result.ok


def test_what_the_source_has_and_the_bucket_lacks_fails_it() -> None:
    result = conclude(compare([NeededBlob(A, 1)], []), lambda _: True)
    assert result.missing_in_bucket == (A,)
    assert not result.ok


@pytest.mark.parametrize("stream", ["needed", "stored", "known"])
def test_an_unsorted_stream_is_refused_instead_of_reporting_blobs_as_missing(stream: str) -> None:
    streams: dict[str, list[str]] = {"needed": [A, B, C], "stored": [A, B, C], "known": [A, B, C]}
    streams[stream] = [B, A, C]
    with pytest.raises(OutOfOrder):
        list(
            compare(
                [NeededBlob(d, 1) for d in streams["needed"]],
                [StoredBlob(d, 1) for d in streams["stored"]],
                [KnownBlob(d, 1, 1) for d in streams["known"]],
            )
        )


sizes = st.dictionaries(st.integers(0, 60).map(digest), st.integers(0, 3), max_size=40)


@given(sizes, sizes, st.sets(st.integers(0, 60).map(digest)))
def test_the_merge_says_what_three_dictionaries_would_say(
    needed: dict[str, int], stored: dict[str, int], source: set[str]
) -> None:
    result = conclude(
        compare(
            [NeededBlob(d, s) for d, s in sorted(needed.items())],
            [StoredBlob(d, s) for d, s in sorted(stored.items())],
        ),
        source.__contains__,
    )
    absent = set(needed) - set(stored)
    assert set(result.missing_in_bucket) == absent & source
    wrong = {d for d in needed.keys() & stored.keys() if needed[d] != stored[d]}
    assert set(result.missing_at_source) == (absent | wrong) - source
    assert set(result.wrong) == wrong & source
    good = [d for d in needed.keys() & stored.keys() if needed[d] == stored[d]]
    assert (result.present, result.present_bytes) == (len(good), sum(needed[d] for d in good))
    assert result.ok == (not (absent & source) and not result.wrong)


@given(sizes, st.sets(st.integers(0, 60).map(digest)))
def test_more_blobs_in_the_bucket_never_make_a_backup_worse(needed: dict[str, int], extra: set[str]) -> None:
    blobs = [NeededBlob(d, s) for d, s in sorted(needed.items())]
    stored = dict.fromkeys(extra - needed.keys(), 9) | needed
    result = conclude(compare(blobs, [StoredBlob(d, s) for d, s in sorted(stored.items())]), lambda _: True)
    assert result.ok
    assert result.present == len(needed)


def test_of_a_blob_that_two_nights_know_what_the_newer_one_hashed_counts() -> None:
    newer, older = [KnownBlob(B, 2, 9)], [KnownBlob(A, 1, 1), KnownBlob(B, 1, 1), KnownBlob(C, 1, 1)]
    assert list(newest_of(newer, older)) == [older[0], newer[0], older[2]]
    assert list(newest_of([], older)) == older
    assert list(newest_of(older, newer)) == older
