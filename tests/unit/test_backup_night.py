"""A night from its first look to its marker: garbage collection in the middle, kills, refusals, damage."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

from flows.nightly_backup import ImagesElsewhere, _headline
from lab.oss.bucket import set_worm
from lab.oss.server import OssServer
from tasks.backup.format.catalogue import list_backups
from tasks.backup.format.layout import MANIFEST, blob_key, parse_backup_id
from tasks.backup.format.manifest import Manifest
from tasks.backup.night import gc
from tasks.backup.night.gc import GarbageCollectionRuns, LastCollection, await_no_collection
from tasks.backup.night.lock import LockLost, acquire
from tasks.backup.server import Server
from tasks.errors import Refused
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.storage import errors
from tasks.storage.on_node import blob_producer
from tests.unit.local_host import LocalHost, LocalProcess
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.one_night import NODE, Night, back_up, bucket_of, new_night

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "bucket") as running:
        yield running


@pytest.fixture
def night(tmp_path: Path, oss: OssServer, server: Server) -> Iterator[Night]:
    made = new_night(tmp_path, oss.endpoint, server)
    yield made
    made._sql("TRUNCATE blob, artifact_blob, artifact CASCADE;")


def complete(night: Night, oss: OssServer) -> list[str]:
    return [str(entry.backup) for entry in list_backups(bucket_of(night, oss)) if entry.complete]


def unfinished(oss: OssServer) -> int:
    return int(oss.store.catalog.totals()[2])


def titles(run: Any) -> list[str]:
    return [record.title for record in run.records]


def images_of(manifest: Manifest) -> Any:
    assert manifest.blobs is not None
    return manifest.blobs


def test_a_night_holds_everything_and_the_next_copies_nothing(night: Night, oss: OssServer) -> None:
    for number in range(5):
        night.push(f"library/app-{number}")
    first, _ = back_up(night)
    assert (images_of(first).uploaded, images_of(first).referenced, first.warnings) == (5, 5, ())
    second, _ = back_up(night)
    assert (images_of(second).uploaded, images_of(second).closure_ok) == (0, True)
    assert second.previous == first.backup_id
    assert complete(night, oss) == [first.backup_id, second.backup_id]
    assert unfinished(oss) == 0


def test_how_long_a_dump_still_takes_is_told_by_the_size_of_the_last_one(night: Night) -> None:
    told: list[tuple[int, int]] = []
    with patch("flows.machinery.progress.Progress.stream", lambda _, size, of: told.append((size, of))):
        first, _ = back_up(night)
        at_first = told[:]
        told.clear()
        back_up(night)
    (dump,) = (artifact for artifact in first.artifacts if artifact.role == "database")
    assert at_first[-1] == (dump.plain_size, 0)
    assert {of for _, of in told} == {dump.size}


def test_a_night_in_which_nothing_changed_asks_oss_for_no_single_blob(night: Night, oss: OssServer) -> None:
    """What makes a million blobs a minute: the bucket is listed, a thousand names a page, and nothing else."""
    for number in range(60):
        night.push(f"library/app-{number}")
    back_up(night)
    oss.faults.reset_counts()
    with_sixty, _ = back_up(night)
    requests = {operation: sum(found.values()) for operation, found in oss.faults.counts().items()}
    assert images_of(with_sixty).referenced == 60
    assert "HeadObject" not in requests
    assert requests["GetObject"] < 16
    assert requests["PutObject"] < 16


class Collecting(LocalHost):
    """A node on which images are deleted and collected while the first blobs are being read."""

    def __init__(self, night: Night, images: dict[str, str], *, rows_too: bool = True) -> None:
        self._night, self._images, self._rows_too = night, images, rows_too
        self.collected = False

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, user: str | None = None, timeout: float
    ) -> Iterator[LocalProcess]:
        if node_program(blob_producer) in argv and not self.collected:
            self.collected = True
            for name, digest in self._images.items():
                (self._night.collect if self._rows_too else self._night.lose)(name, digest)
        with super().stream(argv, user=user, timeout=timeout) as process:
            yield process

    def last(self, *_: object) -> LastCollection:
        """What Harbor says."""
        return LastCollection(8 if self.collected else 7, "Success")


def test_what_is_collected_during_the_copy_is_no_longer_in_the_dump_that_counts(
    night: Night, oss: OssServer
) -> None:
    kept = night.push("library/kept")
    gone = {f"library/gone-{number}": night.push(f"library/gone-{number}") for number in range(3)}
    host = Collecting(night, gone)

    manifest, run = back_up(night, cast(Host, host), host.last)

    assert host.collected
    assert titles(run).count("Dump the databases") == 2
    assert manifest.database("registry").tables["public.artifact"] == 1
    images = images_of(manifest)
    assert (images.referenced, images.missing_at_source_count, images.closure_ok) == (1, 0, True)
    assert manifest.warnings == ()
    assert bucket_of(night, oss).exists(blob_key(kept))


def test_what_was_collected_but_is_in_the_bucket_already_needs_no_second_dump(
    night: Night, oss: OssServer
) -> None:
    old = night.push("library/old")
    back_up(night)
    night.push("library/new")
    host = Collecting(night, {"library/old": old})
    manifest, run = back_up(night, cast(Host, host), host.last)
    assert titles(run).count("Dump the databases") == 1
    assert (images_of(manifest).referenced, images_of(manifest).closure_ok) == (2, True)


def test_files_that_somebody_removed_without_harbor_are_told_and_are_no_reason_for_no_backup(
    night: Night, oss: OssServer
) -> None:
    for number in range(6):
        night.push(f"library/kept-{number}")
    lost = {"library/lost": night.push("library/lost")}
    host = Collecting(night, lost, rows_too=False)
    manifest, run = back_up(night, cast(Host, host))
    assert titles(run).count("Dump the databases") == 1
    assert images_of(manifest).missing_at_source == (lost["library/lost"],)
    assert "missing at the source" in manifest.warnings[0]


def test_a_size_that_harbor_wrote_wrong_is_a_warning_and_the_digest_decides(
    night: Night, oss: OssServer
) -> None:
    """One such row, and there was no backup that night nor ever again."""
    night.push("library/app")
    wrong = night.push("library/wrong-size", 3000)
    night._sql("UPDATE blob SET size = 2999 WHERE digest = :'v0';", wrong)
    for _ in range(2):
        manifest, _ = back_up(night)
        images = images_of(manifest)
        assert (images.closure_ok, images.referenced, images.missing_at_source_count) == (True, 2, 0)
        assert any("another size in the database" in text for text in manifest.warnings)


def test_a_wrong_blob_in_the_bucket_that_its_source_lost_is_named_and_no_reason_for_no_backup(
    night: Night, oss: OssServer
) -> None:
    for number in range(9):
        night.push(f"library/app-{number}")
    lost = night.push("library/lost")
    back_up(night)
    bucket_of(night, oss).put_bytes(blob_key(lost), b"something else")
    night.lose("library/lost", lost)
    manifest, _ = back_up(night)
    assert images_of(manifest).missing_at_source == (lost,)


def test_a_night_that_finds_none_of_the_images_is_no_backup(night: Night, oss: OssServer) -> None:
    """Harbor keeps them elsewhere: `complete` would be said of a backup without an image."""
    digests = {f"library/app-{number}": night.push(f"library/app-{number}") for number in range(4)}
    for name, digest in digests.items():
        night.lose(name, digest)
    with pytest.raises(ImagesElsewhere, match="4 of 4"):
        back_up(night)
    assert complete(night, oss) == []


def test_the_headline_of_a_night_that_lacks_a_blob_does_not_say_all(night: Night, oss: OssServer) -> None:
    for number in range(9):
        night.push(f"library/app-{number}")
    assert "all 9 blobs" in _headline(back_up(night)[0])
    night.lose("library/lost", night.push("library/lost"))
    manifest, _ = back_up(night)
    assert "all" not in _headline(manifest)
    assert "9 of 10 blobs" in _headline(manifest)


def test_a_run_whose_lock_was_taken_publishes_nothing(night: Night, oss: OssServer) -> None:
    night.push("library/app")

    def taken(*_: object) -> LastCollection:
        with patch("tasks.backup.night.lock._live", lambda *_: False):
            acquire(bucket_of(night, oss), "backup", "another run")
        return LastCollection(0, "")

    with pytest.raises(LockLost):
        back_up(night, collection=taken)
    assert complete(night, oss) == []


def test_a_collection_that_runs_is_waited_for_and_one_that_does_not_end_is_named(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [LastCollection(7, "Running"), LastCollection(7, "Running"), LastCollection(7, "Success")]
    pauses: list[float] = []
    monkeypatch.setattr(gc.time, "sleep", pauses.append)
    monkeypatch.setattr(gc, "last_collection", lambda *_: said.pop(0))
    assert await_no_collection(night.site, node=NODE).data["gc"] == 7
    assert len(pauses) == 2
    monkeypatch.setattr(gc, "last_collection", lambda *_: LastCollection(8, "Running"))
    with pytest.raises(GarbageCollectionRuns, match="8 is Running"):
        await_no_collection(night.site, node=NODE, patience_s=0.0)


def test_a_blob_that_was_exchanged_in_the_bucket_is_sent_again(night: Night, oss: OssServer) -> None:
    digest = night.push("library/app")
    back_up(night)
    store = bucket_of(night, oss)
    good = store.get_bytes(blob_key(digest))
    store.put_bytes(blob_key(digest), bytes(len(good)))
    manifest, _ = back_up(night)
    assert store.get_bytes(blob_key(digest)) == good
    assert images_of(manifest).closure_ok


@pytest.mark.parametrize("damage", ["exchanged", "rotten"])
def test_a_damaged_manifest_of_yesterday_is_no_reason_to_have_no_backup_tonight(
    night: Night, oss: OssServer, damage: str
) -> None:
    night.push("library/app")
    yesterday, _ = back_up(night)
    store = bucket_of(night, oss)
    key = parse_backup_id(yesterday.backup_id).key(MANIFEST)
    if damage == "exchanged":
        store.put_bytes(key, b"{}")
    else:
        oss.store.disk.flip(oss.store.find(store.full(key)).segments, 100)
    tonight, _ = back_up(night)
    assert images_of(tonight).closure_ok


def test_under_a_retention_policy_a_night_follows_the_other(night: Night, oss: OssServer) -> None:
    set_worm(oss.store, 30, "Locked")
    night.push("library/app")
    back_up(night)
    night.push("library/more")
    manifest, _ = back_up(night)
    assert images_of(manifest).uploaded == 1
    assert len(complete(night, oss)) == 2


REFUSALS = {
    "NoSuchBucket": "does not exist",
    "PublicEndpointForbidden": "internal endpoint",
    "RequestTimeTooSkewed": "clock",
    "InsufficientStorage": "no space",
    "QuotaExceeded": "used up",
    "AccessDenied": "not allowed",
    "WrongEndpoint": "region",
    "FileImmutable": "retention policy",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_bucket_that_cannot_be_used_is_one_sentence_and_not_a_step_is_run(
    night: Night, oss: OssServer, code: str
) -> None:
    oss.fail("error", operation="PutObject", code=code, times=-1)
    with pytest.raises(Refused) as refused:
        back_up(night)
    assert len(refused.value.reasons) == 1
    assert REFUSALS[code] in refused.value.reasons[0]
    assert list(bucket_of(night, oss).list("backups/")) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [("InsufficientStorage", errors.StorageFull), ("AccessDenied", errors.AccessDenied)],
)
def test_a_bucket_that_refuses_in_the_middle_of_the_images_leaves_no_backup_and_no_upload(
    night: Night, oss: OssServer, code: str, kind: type[errors.StorageError]
) -> None:
    for number in range(20):
        night.push(f"library/app-{number}", 120_000)
    oss.fail("error", operation="PutObject", key="blobs/sha256", code=code, skip=7, times=-1)
    with pytest.raises(kind):
        back_up(night)
    assert complete(night, oss) == []
    assert unfinished(oss) == 0
    oss.faults.set([])
    manifest, _ = back_up(night)
    assert images_of(manifest).uploaded == 13


def killed_at_write(night: Night, oss: OssServer, number: int) -> bool:
    """Run a night in a process of its own and kill it when it asks for its n-th write; False when it ended."""
    oss.faults.set([])
    fault = oss.fail("error", operation="Put.*|.*Upload.*|Delete.*", skip=number, times=-1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.one_night"])
    process = context.Process(target=back_up, args=(night,), daemon=True)
    process.start()
    while process.is_alive() and not fault.hits:
        time.sleep(0.001)
    process.kill()
    process.join()
    oss.faults.set([])
    return fault.hits > 0


def test_killed_at_its_first_write_its_second_and_so_on_it_leaves_nothing_that_counts(
    night: Night, oss: OssServer
) -> None:
    """Every run begins on the remains of the one before, and gets one write further."""
    for number in range(12):
        night.push(f"library/app-{number}", 150_000 if number < 2 else 3000)
    # So that the dump is sent in parts; no artifact refers to them.
    rows = "SELECT 'sha256:' || encode(sha256(n::text::bytea), 'hex'), n FROM generate_series(1, 6000) n"
    night._sql(f"INSERT INTO blob (digest, size) {rows};")
    seen_unfinished = 0
    for number in range(0, 90, 3):
        if not killed_at_write(night, oss, number):
            break
        assert len(complete(night, oss)) <= 1
        if complete(night, oss):
            break  # killed between the marker and the release of the lock: it counts
        seen_unfinished += unfinished(oss)
    else:
        pytest.fail("no run ever got through")
    assert seen_unfinished > 0, "no run was killed in the middle of an upload"
    before = len(complete(night, oss))
    manifest, _ = back_up(night)
    assert len(complete(night, oss)) == before + 1
    assert unfinished(oss) == 0
    assert (images_of(manifest).closure_ok, images_of(manifest).missing_at_source_count) == (True, 0)
