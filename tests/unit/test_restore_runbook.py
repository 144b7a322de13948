"""The runbook for the day without this software: its own commands, in its order, on a backup of ours."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.backup.server import Server, query
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_store import local_store
from tests.unit.whole_backup import FILES, IDENTITY, Saved, back_up, tree

PAGE = Path(__file__).parents[2] / "docs" / "restore.md"
HOST = local_host()

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        programs() is None
        or int(Path(programs() or "").parts[-2]) >= 16
        or os.geteuid() != 0
        or None in map(shutil.which, ("age", "zstd")),
        reason="needs root, age, zstd and a PostgreSQL before 16, as the commands of the page are written",
    ),
]


def runbook() -> str:
    """The commands of the page."""
    section = PAGE.read_text("utf-8").split("## Without this software")[1].split("## Drills")[0]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def with_values(script: str, **values: str) -> str:
    """The reader's own values instead of the examples; each must stand there once."""
    for name, value in values.items():
        script, count = re.subn(rf"^{name}=\S+", f"{name}={value}", script, flags=re.MULTILINE)
        assert count == 1, name
    return script


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    directory = tmp_path_factory.mktemp("site")
    with running_postgres() as server, running_oss(directory / "bucket") as oss:
        images = "SELECT 1, 1, n FROM generate_series(1, 500) n"
        query(HOST, server, "registry", f"INSERT INTO artifact (project_id, repository_id, digest) {images};")
        yield back_up(local_store(oss), server, directory / "registry")


@pytest.fixture(scope="module")
def bare_server() -> Iterator[Server]:
    with running_postgres("") as server:
        yield server


@pytest.fixture
def download(saved: Saved, bare_server: Server) -> Iterator[Path]:
    """The site's part of the bucket as plain files, as an OSS browser saves them."""
    # Not pytest's directory: the user postgres cannot enter it.
    root = Path(bare_server.sockets) / "restore"
    for found in saved.store.list():
        path = root / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved.store.get_bytes(found.key))
    identity = root / "identity"
    identity.write_text(f"{IDENTITY}\n")
    identity.chmod(0o600)
    yield root
    shutil.rmtree(root)
    query(HOST, bare_server, "postgres", "DROP DATABASE IF EXISTS registry; DROP ROLE IF EXISTS harbor;")


def follow(saved: Saved, download: Path, server: Server) -> "subprocess.CompletedProcess[str]":
    """Do what the page says, on this machine."""
    shims = download / "bin"
    shims.mkdir()
    # A container has no sudo; the test's server is not where the client programs look.
    settings = f"PGHOST={server.sockets} PGPORT={server.port} PATH={server.programs}:$PATH"
    (shims / "sudo").write_text(f'#!/bin/sh\nshift 2\nexec runuser -u {server.user} -- env {settings} "$@"\n')
    (shims / "sudo").chmod(0o755)
    script = with_values(
        runbook(),
        B=saved.origin.backup.directory.rstrip("/"),
        ID=str(download / "identity"),
        STORAGE=str(download / "storage"),
        DATA=str(download / "data"),
    ).replace("cd /var/tmp/restore/SITE", f"cd {download}")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_followed_to_the_letter_it_brings_everything_back(
    saved: Saved, download: Path, bare_server: Server
) -> None:
    done = follow(saved, download, bare_server)

    assert done.returncode == 0, done.stderr
    assert "every blob of the backup is here and whole" in done.stdout
    assert "FAILED" not in done.stdout
    assert saved.manifest.harbor.secretkey_sha256 in done.stdout.split("secretkey_sha256")[1]
    tables = saved.manifest.database("registry").tables
    for table in ("artifact", "blob", "project", "repository", "tag"):
        assert f'"public.{table}": {tables[f"public.{table}"]}' in done.stdout
        assert f"\n{table}: {tables[f'public.{table}']}\n" in done.stdout
    password = "SELECT rolpassword LIKE 'SCRAM%' AND rolcanlogin FROM pg_authid WHERE rolname = 'harbor'"
    assert query(HOST, bare_server, "postgres", password) == [["t"]]
    read_only = "SELECT v FROM properties WHERE k = 'read_only'"
    assert query(HOST, bare_server, "registry", read_only) == [["false"]]
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert query(HOST, bare_server, "registry", owners) == [["harbor"]]
    for part in ("blobs", "repositories"):
        found, wanted = tree(download / "storage") / part, tree(saved.registry) / part
        assert files_below(found) == files_below(wanted)
        assert {path.stat().st_uid for path in found.rglob("*")} == {10000}
    for name, content in FILES.items():
        if name.startswith("data/secret/"):
            put_back = download / name
            assert put_back.read_bytes() == content
            assert (put_back.stat().st_uid, put_back.stat().st_mode & 0o777) == (10000, 0o600)
    assert not (download / "registry.dump").exists()


def files_below(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_its_first_step_finds_an_object_that_is_not_what_was_backed_up(
    saved: Saved, download: Path, bare_server: Server
) -> None:
    name = saved.manifest.artifact("links").name
    file = download / saved.origin.backup.key(name)
    file.write_bytes(file.read_bytes()[:-1])
    done = follow(saved, download, bare_server)
    assert done.returncode != 0
    assert f"{name}: FAILED" in done.stdout
    assert not (download / "configuration").exists()


def test_its_last_look_at_the_images_finds_a_truncated_blob(
    saved: Saved, download: Path, bare_server: Server
) -> None:
    blob = next((download / "registry").rglob("data"))
    blob.write_bytes(blob.read_bytes()[:-1])
    done = follow(saved, download, bare_server)
    assert f"{blob.parent.name}/data: FAILED" in done.stdout
    assert "every blob" not in done.stdout
