"""Who may write into the bucket cannot make a backup that is believed."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks import HarborSite, read_site_file
from blocks.signing import with_signing_secret
from tasks.backup.format.catalogue import publish, read_manifest, sign
from tasks.backup.format.layout import COMPLETE, MANIFEST, SIGNATURE, parse_backup_id
from tasks.backup.format.manifest import Manifest, encode, fingerprint
from tasks.backup.format.signature import ANYONE, NotSigned, SignatureWrong, Trust, parse_signing_secret
from tasks.backup.settings import trust_of
from tasks.storage.store import ObjectStore
from tests.unit.local_oss import running_oss
from tests.unit.local_store import local_store
from tests.unit.site_on_disk import NOW, correct_site
from tests.unit.test_backup_manifest import MANIFEST as MANIFEST_FACTS

KEY, OLD, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
TRUST = Trust((KEY,))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    with running_oss(tmp_path / "oss") as running:
        yield local_store(running)


def published(store: ObjectStore, key: bytes | None = KEY) -> Manifest:
    manifest = MANIFEST_FACTS
    publish(store, manifest, Trust((key,) if key else ()))
    return manifest


def test_what_the_orchestrator_signed_is_believed(store: ObjectStore) -> None:
    manifest = published(store)
    assert read_manifest(store, parse_backup_id(manifest.backup_id), TRUST) == manifest


def test_a_forged_manifest_with_a_fitting_marker_is_refused(store: ObjectStore) -> None:
    """Marker, sizes and hashes all fit: everything that a writer of the bucket can make without the key."""
    manifest = published(store)
    backup = parse_backup_id(manifest.backup_id)
    forged = encode(replace(manifest, tool="somebody else"))
    store.put_bytes(backup.key(MANIFEST), forged)
    store.put_bytes(backup.key(COMPLETE), fingerprint(forged).encode())
    with pytest.raises(SignatureWrong):
        read_manifest(store, backup, TRUST)


def test_one_whose_signature_was_removed_or_never_made_is_refused_with_the_way_out(
    store: ObjectStore,
) -> None:
    backup = parse_backup_id(published(store, None).backup_id)
    with pytest.raises(NotSigned, match="accept_unsigned"):
        read_manifest(store, backup, TRUST)
    assert read_manifest(store, backup, replace(TRUST, accept_unsigned=True))


def test_after_a_review_an_old_backup_is_signed_and_needs_no_exception_any_more(store: ObjectStore) -> None:
    manifest = published(store, None)
    backup = parse_backup_id(manifest.backup_id)
    sign(store, backup, fingerprint(encode(manifest)), TRUST)
    assert read_manifest(store, backup, TRUST) == manifest


def test_what_was_exchanged_after_the_review_is_not_signed(store: ObjectStore) -> None:
    manifest = published(store, None)
    backup = parse_backup_id(manifest.backup_id)
    store.put_bytes(backup.key(MANIFEST), encode(replace(manifest, tool="somebody else")))
    with pytest.raises(SignatureWrong, match="reviewed"):
        sign(store, backup, fingerprint(encode(manifest)), TRUST)
    assert not store.exists(backup.key(SIGNATURE))


def test_a_key_is_rotated_by_a_new_first_line_and_old_backups_stay_believed(store: ObjectStore) -> None:
    backup = parse_backup_id(published(store, OLD).backup_id)
    assert read_manifest(store, backup, Trust((KEY, OLD)))
    with pytest.raises(SignatureWrong):
        read_manifest(store, backup, Trust((KEY, FOREIGN)))


def test_without_a_key_nothing_is_believed_and_the_safe_is_named(store: ObjectStore) -> None:
    backup = parse_backup_id(published(store).backup_id)
    with pytest.raises(NotSigned, match="signing_secret"):
        read_manifest(store, backup, Trust(()))
    assert read_manifest(store, backup, ANYONE)


def test_openssl_alone_finds_the_same_signature(store: ObjectStore, tmp_path: Path) -> None:
    """The runbook without this software; the first word names the key and is none."""
    backup = parse_backup_id(published(store).backup_id)
    (tmp_path / MANIFEST).write_bytes(store.get_bytes(backup.key(MANIFEST)))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{KEY.hex()}", MANIFEST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == store.get_bytes(backup.key(SIGNATURE)).decode().split()[-1]


def test_a_secret_is_lines_of_hexadecimal_digits() -> None:
    assert parse_signing_secret(f"# new\n{KEY.hex()}\n\n{OLD.hex()}\n") == (KEY, OLD)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    return read_site_file(correct_site(tmp_path).write(), now=NOW)


def test_apply_makes_a_secret_where_the_site_file_has_none_and_keeps_it(site: HarborSite) -> None:
    assert site.backup.signing_secret is None
    first, made = with_signing_secret(site)
    again, found = with_signing_secret(site)
    assert made is not None
    assert found is None
    assert made.stat().st_mode & 0o777 == 0o600
    assert trust_of(first).keys == trust_of(again).keys
    assert len(trust_of(first).keys[0]) == 32


def test_the_secret_of_the_site_file_counts(site: HarborSite, tmp_path: Path) -> None:
    on_disk = correct_site(tmp_path)
    on_disk.data["backup"]["signing_secret"] = on_disk.secret("signing", f"{KEY.hex()}\n")
    given = read_site_file(on_disk.write(), now=NOW)
    same, made = with_signing_secret(given)
    assert made is None
    assert trust_of(same).keys == (KEY,)
