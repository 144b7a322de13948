"""WAL through the real pgBackRest into the lab's OSS server, and back to a moment; no lab, a minute."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.pitr import settings
from tasks.pitr.catalogue import reach_of, read_bases, record_bases
from tasks.pitr.errors import PassphraseWrong, RepositoryUnreachable
from tasks.pitr.repository import RepositoryState, pgbackrest, repository_state
from tasks.pitr.settings import command, configuration, get_command, stanza_of
from tasks.storage.errors import AccessDenied, BucketMissing, WrongCredentials, WrongRegion
from tasks.storage.store import ObjectStore, open_store
from tests.unit.local_host import local_host
from tests.unit.local_oss import ACCESS_KEY_SECRET
from tests.unit.local_repository import PASSPHRASE, Repository, missing_programs, running_repository

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs()),
]

HOST: Host = local_host()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A server whose stanza exists."""
    with running_repository(tmp_path_factory.mktemp("shipped")) as made:
        run(made, "stanza-create")
        yield made
        # Whatever a test broke last.
        made.configure()


@contextmanager
def impatient() -> Iterator[None]:
    """A tenth of the real limits, for configurations whose bucket never answers.

    Nowhere else: a bucket that answers takes longer than a second on a machine with more to do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "IO_TIMEOUT_S", 1)
        patch.setattr(settings, "PUSH_TIMEOUT_S", 3)
        yield


def run(repository: Repository, name: str, *options: str) -> None:
    """Run a command of pgBackRest as the steps do."""
    pgbackrest(repository.site, HOST, name, *options, timeout=120, paths=repository.paths)


def state(repository: Repository) -> RepositoryState:
    """Read the repository as the steps do."""
    return repository_state(repository.site, HOST, repository.paths)


def store(repository: Repository) -> ObjectStore:
    """The same bucket, by OSS' own protocol."""
    assert repository.site.oss is not None
    return open_store(repository.site.oss, repository.site.name)


def now(repository: Repository) -> datetime:
    """The server's clock."""
    return datetime.fromisoformat(repository.sql("SELECT clock_timestamp() AT TIME ZONE 'UTC'")).replace(
        tzinfo=UTC
    )


def ship(repository: Repository) -> None:
    """Close the segment and wait until it is in the bucket."""
    name = repository.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    repository.sql("SELECT pg_switch_wal()")
    prefix = f"pgbackrest/archive/{stanza_of(repository.site)}/"
    wait_for(lambda: any(f"/{name}-" in found.key for found in store(repository).list(prefix)), 180)


def wait_for(condition: "object", limit: float) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def restored_rows(repository: Repository, target: datetime, tmp: str) -> str:
    """Restore to a time beside the server, start that, and read the rows."""
    data = repository.root / tmp
    data.mkdir(mode=0o700)
    repository.give(data)
    options = [f"--pg1-path={data}", "--type=time", f"--target={target:%Y-%m-%d %H:%M:%S.%f+00}"]
    options += ["--target-action=promote"]
    options += [f"--recovery-option=restore_command={get_command(repository.site, repository.paths)}"]
    run(repository, "restore", *options)
    repository.stop(mode="immediate")
    lost = repository.root / "lost"
    repository.data.rename(lost)
    data.rename(repository.data)
    # The restored one must not write into the bucket of the one that it was made from.
    with (repository.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("archive_mode = off\n")
    try:
        repository.start()
        wait_for(lambda: repository.sql("SELECT pg_is_in_recovery()") == "f", 60)
        return repository.sql("SELECT string_agg(name, ',' ORDER BY name) FROM images")
    finally:
        repository.stop(mode="immediate")
        shutil.rmtree(repository.data)
        lost.rename(repository.data)
        repository.start()


def test_exactly_the_rows_of_before_the_moment_come_back(shipped: Repository) -> None:
    shipped.sql("CREATE TABLE images (name text); INSERT INTO images VALUES ('old')")
    run(shipped, "backup", "--type=full")
    ended = state(shipped).backups[-1].stopped
    wait_for(lambda: now(shipped) > ended + timedelta(seconds=1), 5)
    shipped.sql("INSERT INTO images VALUES ('morning')")
    moment = now(shipped)
    shipped.sql("DELETE FROM images; INSERT INTO images VALUES ('mistake')")
    ship(shipped)

    assert restored_rows(shipped, moment, "restored") == "morning,old"
    assert shipped.sql("SELECT name FROM images") == "mistake"


def test_what_can_be_restored_is_read_from_the_bucket_without_pgbackrest(shipped: Repository) -> None:
    bucket, stanza = store(shipped), stanza_of(shipped.site)
    run(shipped, "backup", "--type=full")
    backups = state(shipped).backups
    record_bases(bucket, stanza, backups)
    before = reach_of(bucket, stanza)[-1]
    shipped.sql("CREATE TABLE later (x int)")
    ship(shipped)
    after = reach_of(bucket, stanza)[-1]

    assert read_bases(bucket, stanza) == list(backups)
    assert before.base == backups[-1]
    assert before.first <= before.last <= after.last
    assert not after.broken

    # A backup that pgBackRest removes is no longer offered, even before its record is gone.
    label = backups[-1].label
    run(shipped, "expire", f"--set={label}")
    assert label not in [base.label for base in read_bases(bucket, stanza)]
    record_bases(bucket, stanza, state(shipped).backups)
    assert not any(label in found.key for found in bucket.list("base-backups/"))


def test_nothing_in_the_bucket_can_be_read_without_the_passphrase(shipped: Repository) -> None:
    shipped.sql("CREATE TABLE secret (x text); INSERT INTO secret VALUES ('plain-text-in-wal')")
    ship(shipped)
    bucket = store(shipped)
    content = [bucket.get_bytes(found.key) for found in bucket.list("pgbackrest/archive/")]
    assert content
    # Compressed content would hide the text as well; the magic number of zstd shows what it is.
    assert all(
        b"plain-text-in-wal" not in data and not data.startswith(b"\x28\xb5\x2f\xfd") for data in content
    )


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({"access_key_secret": SecretStr("wrong")}, WrongCredentials),
        ({"access_key_id": "nobody"}, WrongCredentials),
        ({"bucket": "not-there"}, BucketMissing),
        ({"region": "cn-hangzhou"}, WrongRegion),
        ({"s3_ca": None}, RepositoryUnreachable),
    ],
    ids=["wrong secret", "wrong key", "missing bucket", "wrong region", "untrusted certificate"],
)
@pytest.mark.parametrize("name", ["info", "stanza-create"])
def test_a_mistake_is_told_in_one_sentence(
    shipped: Repository, setting: dict[str, object], kind: type[HarborHaError], name: str
) -> None:
    with impatient() if kind is RepositoryUnreachable else nullcontext():
        shipped.configure(**setting)
    try:
        with pytest.raises(kind) as raised:
            state(shipped) if name == "info" else run(shipped, name)
    finally:
        shipped.configure()
    assert "\n" not in str(raised.value)
    assert ACCESS_KEY_SECRET not in str(raised.value)


def test_another_passphrase_is_named(shipped: Repository) -> None:
    other = shipped.site.backup.model_copy(update={"wal_passphrase": SecretStr("quite-another-passphrase")})
    wrong = Repository(
        shipped.site.model_copy(update={"backup": other}),
        shipped.oss,
        shipped.root,
        shipped.user,
        shipped.paths,
    )
    run(shipped, "backup", "--type=full")
    wrong.configure()
    try:
        with pytest.raises(PassphraseWrong):
            state(wrong)
    finally:
        shipped.configure()


def test_what_oss_refuses_without_a_reason_is_still_one_sentence(shipped: Repository) -> None:
    shipped.oss.fail("error", operation="PutObject", key="pgbackrest/backup", code="AccessDenied", times=-1)
    try:
        with pytest.raises(AccessDenied):
            run(shipped, "backup", "--type=full")
    finally:
        shipped.oss.faults.set([])


def test_secrets_are_in_the_file_and_not_in_the_commands(shipped: Repository) -> None:
    text = configuration(shipped.site, shipped.paths)
    assert PASSPHRASE in text
    assert ACCESS_KEY_SECRET in text
    words = " ".join(command(shipped.site, "backup", paths=shipped.paths))
    assert PASSPHRASE not in words
    assert ACCESS_KEY_SECRET not in words
    assert Path(shipped.paths.config).stat().st_mode & 0o077 == 0


def test_an_unreachable_bucket_costs_the_primary_neither_its_disk_nor_its_shutdown(tmp_path: Path) -> None:
    segment, queue = 16 << 20, 64 << 20
    with running_repository(tmp_path, wal_queue_max_bytes=queue) as repository:
        run(repository, "stanza-create")
        run(repository, "backup", "--type=full")
        record_bases(store(repository), stanza_of(repository.site), state(repository).backups)
        repository.sql("CREATE TABLE t (x int)")
        # The shutdown waits for three attempts of PUSH_TIMEOUT_S.
        with impatient():
            repository.configure(s3_endpoint="https://s3.lab.test:1")
        waiting = repository.data / "pg_wal" / "archive_status"
        for _ in range(8):
            repository.sql("INSERT INTO t VALUES (1); SELECT pg_switch_wal()")
        # 8 segments are 128 MB. The server goes on, and what waited when the queue was too long is let go with
        # a warning; a segment that became ready only after that is within the queue, and waits.
        # After three failures PostgreSQL's archiver rests for a minute, and may do so several times.
        wait_for(lambda: "dropped WAL file" in repository.log(), 300)
        wait_for(lambda: len(list(waiting.glob("*.ready"))) * segment <= queue, 300)
        assert repository.sql("SELECT count(*) FROM t") == "8"

        repository.sql("INSERT INTO t VALUES (9); SELECT pg_switch_wal()")
        started = time.monotonic()
        repository.stop(timeout=60)
        assert time.monotonic() - started < 30

        # The gap is seen: from this base backup, WAL leads no further than to it.
        repository.configure()
        repository.start()
        ship(repository)
        assert reach_of(store(repository), stanza_of(repository.site))[-1].broken
