"""One instant of a real database: what the snapshot shows, and what it says when it dies."""

import hashlib
from collections.abc import Iterator

import pytest

from tasks.backup.night.snapshot import open_snapshot
from tasks.backup.server import Server, query
from tasks.errors import RemoteCommandFailed
from tests.unit.local_host import local_host
from tests.unit.local_postgres import programs, running_postgres

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]
HOST = local_host()


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture(autouse=True)
def images(server: Server) -> None:
    """Two images: one of ours with two layers, one of a proxy cache that shares a layer."""
    rows = [
        (digest(name), size)
        for name, size in (("config", 7), ("layer", 100), ("manifest", 30), ("orphan", 9))
    ]
    values = ",".join(f"('{d}', {s})" for d, s in rows)
    query(
        HOST,
        server,
        "registry",
        f"""
        TRUNCATE blob, artifact_blob, artifact CASCADE;
        INSERT INTO blob (digest, size) VALUES {values};
        INSERT INTO artifact (project_id, repository_id, digest, pull_time)
          VALUES (1, 1, '{digest("manifest")}', to_timestamp(1700000000) AT TIME ZONE 'UTC'),
                 (2, 2, '{digest("cached")}', NULL);
        INSERT INTO artifact_blob (digest_af, digest_blob) VALUES
          ('{digest("manifest")}', '{digest("config")}'), ('{digest("manifest")}', '{digest("layer")}'),
          ('{digest("cached")}', '{digest("layer")}'), ('{digest("cached")}', '{digest("never-fetched")}');
        """,
    )


def test_rows_that_come_after_the_snapshot_are_in_neither_counts_nor_blobs(server: Server) -> None:
    with open_snapshot(HOST, server, "registry", timeout=60) as snapshot:
        query(HOST, server, "registry", f"INSERT INTO blob (digest, size) VALUES ('{digest('late')}', 1)")
        assert snapshot.facts.tables["public.blob"] == 4
        assert digest("late") not in {blob.digest for blob in snapshot.blobs()}
    with open_snapshot(HOST, server, "registry", timeout=60) as snapshot:
        assert snapshot.facts.tables["public.blob"] == 5
        assert digest("late") in {blob.digest for blob in snapshot.blobs()}


def test_every_table_is_counted_whatever_its_name(server: Server) -> None:
    with open_snapshot(HOST, server, "registry", timeout=60) as snapshot:
        assert snapshot.facts.tables['public.odd "name'] == 0
        assert snapshot.facts.schema_version == 120
        assert not snapshot.facts.schema_dirty
        assert snapshot.facts.role == "primary"
        assert snapshot.facts.owner == "harbor"


def test_a_blob_says_who_needs_it(server: Server) -> None:
    with open_snapshot(HOST, server, "registry", timeout=60) as snapshot:
        blobs = {blob.digest: blob for blob in snapshot.blobs()}
    assert list(blobs) == sorted(blobs)
    assert blobs[digest("layer")].size == 100
    assert not blobs[digest("layer")].proxied
    assert blobs[digest("layer")].pulled == 1700000000
    assert blobs[digest("manifest")].pulled == 1700000000
    assert blobs[digest("cached")].proxied
    assert blobs[digest("never-fetched")].size is None
    assert not blobs[digest("orphan")].referenced


def test_a_database_without_blobs_has_none(server: Server) -> None:
    with open_snapshot(HOST, server, "postgres", timeout=60) as snapshot:
        assert list(snapshot.blobs()) == []
        assert snapshot.facts.schema_version is None


def test_a_missing_database_is_said_by_its_name(server: Server) -> None:
    with (
        pytest.raises(RemoteCommandFailed, match="notarysigner"),
        open_snapshot(HOST, server, "notarysigner", timeout=60),
    ):
        pass


def test_a_session_that_the_server_ends_is_an_error_and_not_a_short_list(server: Server) -> None:
    with open_snapshot(HOST, server, "registry", timeout=60) as snapshot:
        query(
            HOST,
            server,
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='registry'",
        )
        with pytest.raises(RemoteCommandFailed, match="terminat"):
            list(snapshot.blobs())
