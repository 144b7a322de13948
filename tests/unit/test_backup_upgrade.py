"""A site from before there were signatures: no secret in its site file, backups without a signature in its bucket."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml

from blocks.signing import with_signing_secret
from flows.machinery.backup_report import facts_of
from lab.oss.server import OssServer
from tasks.backup.drill.rehearsal import drill, run_drill
from tasks.backup.format.catalogue import find_backup, list_backups, read_manifest
from tasks.backup.format.layout import SIGNATURE
from tasks.backup.format.signature import NotSigned, SignatureWrong
from tasks.backup.restore.fetch import Origin
from tasks.backup.restore.restore_database import restore_database
from tasks.backup.server import Server
from tasks.backup.settings import trust_of
from tests.unit.local_host import local_host
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.one_night import IDENTITY, Night, back_up, bucket_of, new_night

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
def night(tmp_path: Path, oss: OssServer, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """The site as it was before: no secret in its file, and never applied since."""
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    made = new_night(tmp_path, oss.endpoint, server)
    written = yaml.safe_load(made.site_file.read_text())
    del written["backup"]["signing_secret"]
    made.site_file.write_text(yaml.safe_dump(written))
    made.push("library/old")
    yield made
    made._sql("TRUNCATE blob, artifact_blob, artifact CASCADE;")


def applied(night: Night) -> Night:
    """The same after `harbor-ha apply`: the site file names the secret that was made."""
    _, made = with_signing_secret(night.site)
    assert made is not None
    written = yaml.safe_load(night.site_file.read_text())
    written["backup"]["signing_secret"] = {"file": str(made)}
    night.site_file.write_text(yaml.safe_dump(written))
    return night


def drilled(night: Night, directory: str, *, identity: bool = True) -> list[str]:
    """Drill the newest backup as its schedule does; returns what was not proven."""
    file = night.site_file.parent / "identity"
    file.write_text(str(IDENTITY))
    file.chmod(0o600)
    with (
        patch("tasks.backup.drill.rehearsal.server_of", lambda _: night.server),
        patch("tasks.backup.drill.rehearsal.make_user", lambda _: "postgres"),
        patch.object(run_drill, "__defaults__", (f"{directory}/drill",)),
    ):
        found = drill(night.site, local_host(), identity_file=str(file) if identity else None)
    return list(found.data["not_proven"])


def test_before_apply_it_is_backed_up_and_the_night_says_that_nothing_is_signed(
    night: Night, oss: OssServer
) -> None:
    manifest, _ = back_up(night)
    assert any("not signed" in line for line in manifest.warnings)
    store = bucket_of(night, oss)
    (entry,) = list_backups(store)
    assert entry.complete
    assert not store.exists(entry.backup.key(SIGNATURE))
    # And counts as it did before: prune keeps generations of it.
    ((_, fact),) = facts_of(store, trust_of(night.site))
    assert (fact.complete, fact.with_images, fact.signed) == (True, True, True)


def test_before_apply_the_weekly_drill_is_not_red_and_nothing_is_said_against_the_backup(
    night: Night, oss: OssServer, server: Server
) -> None:
    back_up(night)
    assert any("signing_secret" in line for line in drilled(night, server.sockets))
    (entry,) = list_backups(bucket_of(night, oss))
    assert [name.endswith("-ok.json") for name in entry.verified] == [True]


def test_before_apply_there_is_nothing_to_sign_with_and_the_drill_says_so(night: Night) -> None:
    back_up(night)
    with pytest.raises(NotSigned, match="harbor-ha apply"):
        drill(night.site, local_host(), accept_unsigned=True, sign_it=True)


def test_after_apply_the_first_night_is_signed_and_sends_no_image_again(night: Night, oss: OssServer) -> None:
    back_up(night)
    manifest, _ = back_up(applied(night))
    assert manifest.blobs is not None
    assert (manifest.blobs.uploaded, manifest.blobs.referenced) == (0, 1)
    store = bucket_of(night, oss)
    assert read_manifest(store, find_backup(store, "latest"), trust_of(night.site)) == manifest
    signed = {str(entry.backup): fact.signed for entry, fact in facts_of(store, trust_of(night.site))}
    assert sorted(signed.values()) == [False, True]
    assert signed[manifest.backup_id]


def test_an_old_backup_is_refused_with_the_way_out_and_restored_by_who_says_so(
    night: Night, oss: OssServer
) -> None:
    old, _ = back_up(night)
    store, site = bucket_of(night, oss), applied(night).site
    backup = find_backup(store, old.backup_id)
    with pytest.raises(NotSigned, match="accept_unsigned"):
        read_manifest(store, backup, trust_of(site))
    origin = Origin(store, backup, [IDENTITY], trust_of(site, accept_unsigned=True))
    manifest = read_manifest(store, backup, origin.trust)
    with running_postgres("CREATE ROLE harbor LOGIN;") as target:
        restored = restore_database(
            local_host(),
            target,
            origin,
            manifest,
            "registry",
            owner="harbor",
            work_directory=f"{target.sockets}/restore",
            timeout=120,
        )
        assert restored.changed
        assert restored.rows == sum(old.database("registry").tables.values())


def test_a_site_that_lost_its_secret_restores_when_told_to(night: Night, oss: OssServer) -> None:
    """A new orchestrator on the worst day, whose apply has made another secret than the one in the safe."""
    manifest, _ = back_up(applied(night))
    store, backup = bucket_of(night, oss), find_backup(bucket_of(night, oss), manifest.backup_id)
    trust = replace(trust_of(night.site), keys=(bytes(32),))
    with pytest.raises(SignatureWrong, match="signing_secret"):
        read_manifest(store, backup, trust)
    assert read_manifest(store, backup, replace(trust, accept_unsigned=True)) == manifest
