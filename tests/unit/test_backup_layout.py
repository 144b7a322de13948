"""Names in the bucket: what is read back, and what is never taken for a backup or a blob."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backup.format.layout import (
    NotABackupId,
    NotADigest,
    blob_key,
    digest_of,
    new_backup_id,
    parse_backup_id,
    split_key,
)

STARTED = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_an_id_is_read_back_and_sorts_like_its_time(started: datetime) -> None:
    backup = new_backup_id(started)
    assert parse_backup_id(str(backup)) == backup
    later = new_backup_id(started + timedelta(milliseconds=1))
    assert str(backup) < str(later)
    assert backup < later


def test_the_directory_carries_the_day_in_utc() -> None:
    shanghai = timezone(timedelta(hours=8))
    backup = new_backup_id(datetime(2026, 11, 22, 2, 0, tzinfo=shanghai))
    assert backup.directory == f"backups/2026/11/21/{backup}/"


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        new_backup_id(datetime(2026, 1, 1))


@pytest.mark.parametrize("text", ["", "latest", "20261122T010000Z", "20261322T010000Z-12345678", "../../etc"])
def test_what_is_not_an_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(NotABackupId, match="for example"):
        parse_backup_id(text)


def test_keys_are_split_into_backup_and_name() -> None:
    backup = new_backup_id(STARTED)
    assert split_key(backup.key("pg/registry.dump.zst.age")) == (backup, "pg/registry.dump.zst.age")


def test_a_backup_that_was_copied_to_another_day_by_hand_is_not_one() -> None:
    backup = new_backup_id(STARTED)
    assert split_key(f"backups/2026/11/23/{backup}/COMPLETE") is None
    assert split_key("backups/readme.txt") is None
    assert split_key(blob_key(DIGEST)) is None


def test_a_blob_lies_where_harbor_has_it() -> None:
    assert blob_key(DIGEST) == f"registry/docker/registry/v2/blobs/sha256/ab/{'ab' * 32}/data"
    assert digest_of(blob_key(DIGEST)) == DIGEST


@pytest.mark.parametrize(
    "text", ["", "sha256:../../../etc/passwd", "sha512:" + "a" * 64, DIGEST.upper(), DIGEST + "\n"]
)
def test_nothing_but_a_digest_becomes_a_path(text: str) -> None:
    with pytest.raises(NotADigest):
        blob_key(text)


def test_foreign_objects_among_the_blobs_are_not_blobs() -> None:
    assert digest_of(f"registry/docker/registry/v2/blobs/sha256/aa/{'ab' * 32}/data") is None
    assert digest_of(blob_key(DIGEST) + ".tmp") is None
