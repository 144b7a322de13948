"""Images of a moment: links made from the database, blobs from wherever they are, the others named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.backup.format.blobs import NeededBlob, StoredBlob
from tasks.backup.restore.on_node import make_links
from tasks.node_program import node_program
from tasks.pitr.images import Lost, images_of, obtainable
from tests.unit.local_host import local_host
from tests.unit.local_postgres import programs, running_postgres

ROWS = """
INSERT INTO artifact (project_id, repository_id, repository_name, digest) VALUES (1, 1, 'library/app', '{0}');
INSERT INTO blob (digest, size) VALUES ('{0}', 10), ('{1}', 20);
INSERT INTO artifact_blob (digest_af, digest_blob) VALUES ('{0}', '{0}'), ('{0}', '{1}');
INSERT INTO tag (artifact_id, name) VALUES (1, 'v1');
"""


def digest(number: int) -> str:
    """A digest that sorts by its number."""
    return f"sha256:{number:064x}"


def raw(number: int) -> bytes:
    """Its bytes."""
    return bytes.fromhex(f"{number:064x}")


def test_what_is_on_the_nas_stays_what_is_in_the_bucket_comes_and_the_rest_is_named() -> None:
    lost = Lost()
    needed = [
        NeededBlob(digest(n), size) for n, size in ((1, 10), (2, 20), (3, 30), (4, None), (6, None), (7, 70))
    ]
    stored = [StoredBlob(digest(n), size) for n, size in ((2, 20), (4, 40), (5, 50), (7, 69))]
    present = {(raw(1), 10), (raw(6), 60), (raw(7), 7)}

    found = list(obtainable(needed, stored, present, lost))

    # The NAS has a truncated copy of 7; the bucket's has another size than the database, and its hash will tell.
    assert [(blob.digest, blob.size) for blob in found] == [(digest(2), 20), (digest(4), 40), (digest(7), 69)]
    assert (lost.digests, lost.count) == ([digest(3)], 1)


def test_only_so_many_losses_are_named_and_all_are_counted() -> None:
    lost = Lost()
    assert list(obtainable([NeededBlob(digest(n), 1) for n in range(250)], [], set(), lost)) == []
    assert (lost.count, len(lost.digests)) == (250, 100)


@pytest.mark.servers
@pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed")
class TestWithADatabase:
    """A small Harbor database with one image of two blobs."""

    def test_links_are_made_from_the_database_and_existing_ones_stay(self, tmp_path: Path) -> None:
        newer = tmp_path / "repositories/library/app/_manifests/tags/v1/current/link"
        newer.parent.mkdir(parents=True)
        newer.write_text(digest(9))
        empty = tmp_path / f"repositories/library/app/_layers/sha256/{2:064x}/link"
        empty.parent.mkdir(parents=True)
        empty.touch()
        with running_postgres() as server:
            host = local_host()
            host.run(
                server.psql("registry", "-f", "-"), stdin=ROWS.format(digest(1), digest(2)), user=server.user
            )
            argv = server.psql("registry")
            if os.geteuid() == 0:
                argv = ["runuser", "-u", server.user, "--", *argv]
            given = json.dumps({"root": str(tmp_path), "psql": argv})

            def make() -> dict[str, int]:
                program = [sys.executable, "-c", node_program(make_links)]
                done = subprocess.run(
                    program, input=given, text=True, capture_output=True, timeout=30, check=True
                )
                answer: dict[str, int] = json.loads(done.stdout)
                return answer

            assert make() == {"links": 4, "made": 3}
            assert make() == {"links": 4, "made": 0}
        assert newer.read_text() == digest(9)
        assert empty.read_text() == digest(2)
        revision = tmp_path / f"repositories/library/app/_manifests/revisions/sha256/{1:064x}/link"
        assert revision.read_text() == digest(1)

    def test_lost_blobs_are_told_by_the_images_that_need_them(self) -> None:
        with running_postgres() as server:
            host = local_host()
            host.run(
                server.psql("registry", "-f", "-"), stdin=ROWS.format(digest(1), digest(2)), user=server.user
            )
            assert images_of(host, server, "registry", [digest(2)]) == ["library/app:v1"]
            assert images_of(host, server, "registry", [digest(1)]) == ["library/app:v1"]
            assert images_of(host, server, "registry", [digest(5)]) == []
            assert images_of(host, server, "registry", []) == []


def test_a_name_that_would_leave_the_storage_is_refused(tmp_path: Path) -> None:
    argv = ["sh", "-c", f"printf '%s\\t%s\\t%s\\t%s\\n' ../../etc manifest {digest(1)} ''"]
    given = json.dumps({"root": str(tmp_path), "psql": argv})
    program = [sys.executable, "-c", node_program(make_links)]
    done = subprocess.run(program, input=given, text=True, capture_output=True, timeout=30)
    assert done.returncode != 0
    assert "not a repository" in done.stderr
    assert list(tmp_path.iterdir()) == []
