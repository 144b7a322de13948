"""Backups on the real lab: killed at every step, with an OSS that fails, with a failover in the middle."""

from collections.abc import Iterator

import pytest

from lab.faults.stage import Stage, wait_for
from tasks.backup.format.layout import parse_backup_id
from tests.lab.faults.bucket import Bucket
from tests.lab.faults.many_images import add_blobs

BLOBS = 3000
ROWS = 300_000


@pytest.fixture(scope="module")
def bucket(stage: Stage) -> Bucket:
    """The bucket of a site with thousands of blobs and hundreds of thousands of rows."""
    stage.restore()
    add_blobs(stage, BLOBS, "first", ROWS)
    stage.flow("nightly_backup").wait(300).result  # noqa: B018
    return Bucket(stage)


@pytest.fixture(autouse=True)
def whole(stage: Stage, bucket: Bucket) -> Iterator[None]:
    """Every test begins with a healthy pair and an OSS that works."""
    stage.restore()
    yield
    with bucket.failing():
        pass


def backed_up(stage: Stage, bucket: Bucket, **parameters: object) -> str:
    """Make a backup that must succeed; returns its headline."""
    before = len(bucket.complete())
    run = stage.flow("nightly_backup", **parameters).wait(300)
    headline = run.headline
    assert len(bucket.complete()) == before + 1
    assert bucket.uploads() == 0
    return headline


def test_a_backup_holds_every_row_and_every_blob(stage: Stage, bucket: Bucket) -> None:
    backed_up(stage, bucket)
    manifest = bucket.newest()
    assert manifest.source.role == "standby"
    tables = manifest.database(stage.site.postgres.database).tables
    assert tables["public.generated_rows"] >= ROWS
    for table in ("public.blob", "public.artifact", "public.artifact_blob"):
        count = stage.execute(stage.primary, f"SELECT count(*) FROM {table}", stage.site.postgres.database)
        assert [[str(tables[table])]] == count
    assert manifest.has_images
    assert manifest.blobs is not None
    assert manifest.blobs.referenced >= BLOBS
    assert len(bucket.blobs()) >= BLOBS


def test_a_night_in_which_nothing_changed_copies_nothing(stage: Stage, bucket: Bucket) -> None:
    backed_up(stage, bucket)
    blobs = bucket.newest().blobs
    assert blobs is not None
    assert blobs.uploaded == 0


@pytest.mark.faults
def test_killed_after_every_step_it_is_no_backup_and_the_next_run_succeeds(
    stage: Stage, bucket: Bucket
) -> None:
    steps = stage.flow("nightly_backup").wait(300).titles()
    assert len(steps) >= 6
    for number in range(1, len(steps) + 1):
        before = [str(entry.backup) for entry in bucket.complete()]
        run = stage.flow("nightly_backup", {"after": number}).wait(300)
        assert run.killed(), f"it was not killed after {steps[number - 1]}"
        assert [str(entry.backup) for entry in bucket.complete()] == before
        backed_up(stage, bucket)


@pytest.mark.parametrize(
    "title", ["Copy images", pytest.param("Dump the databases", marks=pytest.mark.faults)]
)
def test_killed_in_the_middle_of_a_step_it_leaves_nothing_that_counts(
    stage: Stage, bucket: Bucket, title: str
) -> None:
    add_blobs(stage, 1500, f"killed in {title}")
    steps = stage.flow("nightly_backup", {"title": title}).wait(300).titles()
    before = len(bucket.complete())
    run = stage.flow("nightly_backup", {"within": len(steps), "delay": 0.4}).wait(300)
    assert run.killed()
    assert len(bucket.complete()) == before
    backed_up(stage, bucket)
    blobs = bucket.newest().blobs
    assert blobs is not None
    assert blobs.closure_ok


RULES = {
    "5xx": {"kind": "error", "operation": "PutObject|UploadPart|ListObjectsV2", "times": 6},
    "reset in the middle": {"kind": "reset", "operation": "PutObject|UploadPart", "bytes": 1000, "times": 4},
    "lost answers": {"kind": "lost_answer", "operation": "PutObject|CompleteMultipartUpload", "times": 3},
    "wrong CRC": {"kind": "wrong_crc", "operation": "PutObject|UploadPart", "times": 2},
    "throttling": {"kind": "error", "code": "QpsLimitExceeded", "delay_ms": 200, "times": 5},
    "slow": {"kind": "delay", "operation": "PutObject", "seconds": 0.5, "times": 10},
}


# Two stand for all of them in `make test`.
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("5xx", "throttling") else pytest.param(name, marks=pytest.mark.faults)
        for name in RULES
    ],
)
def test_a_backup_survives_an_oss_that_fails_now_and_then(stage: Stage, bucket: Bucket, name: str) -> None:
    add_blobs(stage, 50, f"faults {name}")
    with bucket.failing(RULES[name]):
        backed_up(stage, bucket)
        assert bucket.hits() > 0
    manifest = bucket.newest()
    assert manifest.has_images
    assert stage.flow("restore_drill", identity_file=identity(stage)).wait(300).headline.startswith("Backup")


REFUSALS = {
    "NoSuchBucket": "does not exist",
    "PublicEndpointForbidden": "internal endpoint",
    "RequestTimeTooSkewed": "clock",
    "InsufficientStorage": "no space",
    "AccessDenied": "not allowed",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_an_oss_that_cannot_be_used_is_said_in_one_sentence_before_anything_is_done(
    stage: Stage, bucket: Bucket, code: str
) -> None:
    before = len(bucket.complete())
    with bucket.failing({"kind": "error", "code": code, "times": -1, "operation": "PutObject"}):
        run = stage.flow("nightly_backup").wait(300)
        assert REFUSALS[code] in run.refusal
        assert run.titles() == []
    assert len(bucket.complete()) == before


@pytest.mark.faults
def test_the_standby_dies_during_the_dump_and_the_next_backup_is_made_on_the_primary(
    stage: Stage, bucket: Bucket
) -> None:
    standby, before = stage.standby, len(bucket.complete())
    with stage.settings(backup__traffic_limit_bytes_s=300_000):
        run = stage.flow("nightly_backup")
        wait_for(lambda: stage.shell(standby, "pgrep -x pg_dump", check=False) != "", 60, "no dump began")
        stage.lab.stop(standby)
        wait_for(lambda: "Another attempt follows" in run.log(), 300, "it does not try again by itself")
        # In five minutes, which nobody waits for here; what comes then is a new attempt like the one below.
        run.end()
    assert len(bucket.complete()) == before
    assert bucket.uploads() == 0
    backed_up(stage, bucket)
    manifest = bucket.newest()
    assert manifest.source.role == "primary"
    assert standby in manifest.source.reason


@pytest.mark.faults
def test_a_failover_in_the_middle_of_a_backup_harms_neither(stage: Stage, bucket: Bucket) -> None:
    primary, standby, before = stage.primary, stage.standby, len(bucket.complete())
    with stage.settings(backup__traffic_limit_bytes_s=300_000):
        run = stage.flow("nightly_backup", images=False)
        wait_for(lambda: stage.shell(standby, "pgrep -x pg_dump", check=False) != "", 60, "no dump began")
        stage.lab.stop(primary)
        answer = stage.failover(primary, accept_data_loss=True).answer
        assert "error" not in answer, answer
        assert stage.primary == standby
        wait_for(lambda: run.out.exists() or "Another attempt follows" in run.log(), 300, "it does not end")
        run.end()
    # The dump reads on through the promotion; where it did not, it is no backup and the next one is.
    made = len(bucket.complete()) - before
    assert made == (1 if run.out.exists() and "error" not in run.answer else 0)
    stage.restore()
    backed_up(stage, bucket)


def identity(stage: Stage) -> str:
    """The file with the age identity of the lab."""
    return str(stage.lab.topology.directory / "secrets" / "age-identity")


def test_a_drill_passes_and_is_recorded_next_to_the_backup(stage: Stage, bucket: Bucket) -> None:
    backed_up(stage, bucket)
    headline = stage.flow("restore_drill", identity_file=identity(stage)).wait(300).headline
    assert "can be restored" in headline
    assert bucket.complete()[-1].verified[-1].endswith("-ok.json")


def test_with_the_identity_offline_the_drill_is_green_and_says_what_it_did_not_prove(
    stage: Stage, bucket: Bucket
) -> None:
    backed_up(stage, bucket)
    headline = stage.flow("restore_drill").wait(300).headline
    assert "was not opened" in headline
    assert "not proven" in headline
    assert bucket.complete()[-1].verified[-1].endswith("-unopened.json")


@pytest.mark.parametrize(
    "role",
    ["database", *(pytest.param(role, marks=pytest.mark.faults) for role in ("configuration", "links"))],
)
def test_damage_in_the_bucket_is_found_and_named_by_the_drill(
    stage: Stage, bucket: Bucket, role: str
) -> None:
    backed_up(stage, bucket)
    manifest = bucket.newest()
    name = manifest.artifact(role).name
    key = parse_backup_id(manifest.backup_id).key(name)
    content = bytearray(bucket.store.get_bytes(key))
    content[len(content) // 2] ^= 1
    bucket.store.put_bytes(key, bytes(content))
    refusal = stage.flow("restore_drill", identity_file=identity(stage)).wait(300).refusal
    assert name in refusal
    assert bucket.complete()[-1].verified[-1].endswith("-failed.json")
    bucket.store.delete_many([parse_backup_id(manifest.backup_id).key("COMPLETE")])


@pytest.mark.faults
def test_a_blob_that_was_exchanged_in_the_bucket_is_found_by_the_next_backup_and_sent_again(
    stage: Stage, bucket: Bucket
) -> None:
    backed_up(stage, bucket)
    key = bucket.blobs()[7]
    good = bucket.store.get_bytes(key)
    bucket.store.put_bytes(key, bytes(len(good)))
    backed_up(stage, bucket)
    assert bucket.store.get_bytes(key) == good


def test_two_backups_at_the_same_time_are_one_backup_and_one_explanation(
    stage: Stage, bucket: Bucket
) -> None:
    before = len(bucket.complete())
    first = stage.flow("nightly_backup")
    wait_for(lambda: first.titles() != [] or first.out.exists(), 60, "it did not begin")
    second = stage.flow("nightly_backup").wait(300)
    first.wait(300)
    assert len(bucket.complete()) >= before + 1
    if "error" in second.answer:
        assert "nightly backup of" in second.refusal


def test_prune_shows_what_it_would_remove_and_removes_nothing(stage: Stage, bucket: Bucket) -> None:
    before = len(bucket.complete())
    assert stage.flow("prune").wait(120).headline.startswith("Would remove")
    assert len(bucket.complete()) == before


@pytest.mark.faults
def test_prune_removes_what_the_policy_no_longer_keeps(stage: Stage, bucket: Bucket) -> None:
    backed_up(stage, bucket)
    with stage.settings(backup__keep_daily=1, backup__keep_at_least=1):
        assert stage.flow("prune", confirm=True).wait(120).headline.startswith("Removed")
    left = bucket.complete()
    assert 1 <= len(left) <= 4
    assert any(entry.verified for entry in left)
    backed_up(stage, bucket)
