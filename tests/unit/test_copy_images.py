"""The images of an old Harbor arrive on the NAS proven by their digests, or under no name at all."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import HarborHaError
from tasks.harbor.adoption import refuse_much_damage
from tasks.harbor.on_node import copy_images as program


class Images:
    """Two registries' directories: the old Harbor's, and the NAS."""

    def __init__(self, root: Path) -> None:
        self.source, self.target = root / "old", root / "nas" / "registry"
        (root / "nas").mkdir()
        self.blobs = self.source / program.REGISTRY / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.nas = root / "nas"

    def blob(self, content: bytes, *, stored: bytes | None = None) -> str:
        digest = hashlib.sha256(content).hexdigest()
        place = self.blobs / digest[:2] / digest
        place.mkdir(parents=True)
        (place / "data").write_bytes(content if stored is None else stored)
        return f"sha256/{digest[:2]}/{digest}"

    def link(self, name: str, content: str) -> Path:
        path = self.source / program.REGISTRY / "repositories" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return self.target / program.REGISTRY / "repositories" / name

    def copied(self, blob: str) -> Path:
        return self.target / program.REGISTRY / "blobs" / blob / "data"

    def copy(self, limit_s: float = 60.0) -> dict[str, Any]:
        given = {
            "source": str(self.source),
            "target": str(self.target),
            "nas": str(self.nas),
            "limit_s": limit_s,
        }
        return program.copy_images(given)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    made = Images(tmp_path)
    real = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(made.nas) or real(path))
    return made


def test_every_blob_and_link_arrives_and_the_second_pass_copies_nothing(images: Images) -> None:
    blobs = [images.blob(b"%d" % number * 1000) for number in range(200)]
    tag = images.link("library/a/_manifests/tags/v1/current/link", "sha256:aa")
    first = images.copy()
    assert (first["copied"], first["blobs"], first["whole"]) == (201, 200, True)
    for blob in blobs:
        assert hashlib.sha256(images.copied(blob).read_bytes()).hexdigest() == blob.rpartition("/")[2]
    assert tag.read_text() == "sha256:aa"
    again = images.copy()
    assert (again["copied"], again["there"]) == (0, 201)


def test_a_tag_that_moved_meanwhile_is_copied_again(images: Images) -> None:
    tag = images.link("library/a/_manifests/tags/v1/current/link", "sha256:aa")
    images.copy()
    images.link("library/a/_manifests/tags/v1/current/link", "sha256:bb")
    assert images.copy()["copied"] == 1
    assert tag.read_text() == "sha256:bb"


def test_uploads_that_are_under_way_are_left_out(images: Images) -> None:
    upload = images.link("library/a/_uploads/1/data", "half")
    assert images.copy()["copied"] == 0
    assert not upload.exists()


def test_a_damaged_blob_is_named_and_gets_no_name_on_the_nas(images: Images) -> None:
    bad, good = images.blob(b"was this", stored=b"is that!"), images.blob(b"sound")
    seen = images.copy()
    assert (seen["damaged"], seen["named"], seen["copied"]) == (1, [bad], 1)
    assert images.copied(good).exists()
    assert list(images.copied(bad).parent.iterdir()) == []


def test_a_nas_that_gives_back_something_else_is_an_error_and_the_blob_gets_no_name(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = images.blob(b"sound")
    real = program.digest_of
    monkeypatch.setattr(
        program, "digest_of", lambda source, copy=None: real(source, copy) if copy else "0" * 64
    )
    with pytest.raises(SystemExit, match="gives back something else"):
        images.copy()
    assert list(images.copied(blob).parent.iterdir()) == []


def test_what_was_cut_short_is_copied_again(images: Images) -> None:
    blob = images.blob(b"a whole blob")
    images.copied(blob).parent.mkdir(parents=True)
    images.copied(blob).write_bytes(b"a who")
    assert images.copy()["copied"] == 1
    assert images.copied(blob).read_bytes() == b"a whole blob"


def test_a_call_ends_when_its_time_is_over_and_the_next_one_goes_on(images: Images) -> None:
    for number in range(300):
        images.blob(b"%d" % number)
    calls, seen = 1, images.copy(limit_s=0.0)
    assert not seen["whole"]
    while not seen["whole"]:
        calls, seen = calls + 1, images.copy(limit_s=0.0)
    assert calls <= 6, "each call must come further than the one before"
    assert seen["blobs"] == 300


def test_a_blob_that_is_deleted_meanwhile_is_no_error(images: Images) -> None:
    blob = images.blob(b"gone soon")
    (images.blobs.parent / blob / "data").unlink()
    assert images.copy()["gone"] == 1


def test_without_the_nas_nothing_is_copied(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.blob(b"x")
    with pytest.raises(SystemExit, match="not mounted"):
        images.copy()
    assert not images.target.exists()


def test_images_that_lie_on_the_nas_already_stay_where_they_are(images: Images) -> None:
    images.blob(b"x")
    images.target.parent.mkdir(exist_ok=True)
    images.target.symlink_to(images.source)
    assert images.copy()["copied"] == 0


def test_many_damaged_blobs_stop_the_adoption_and_a_rotten_one_does_not() -> None:
    refuse_much_damage({"damaged": 1, "blobs": 3, "named": ["a"]}, "node-a")
    refuse_much_damage({"damaged": 90, "blobs": 10_000, "named": ["a"]}, "node-a")
    with pytest.raises(HarborHaError, match="200 of 10000"):
        refuse_much_damage({"damaged": 200, "blobs": 10_000, "named": ["a"]}, "node-a")


def test_a_blob_that_is_a_link_of_harbors_user_brings_no_file_of_roots_to_the_nas(
    images: Images, tmp_path: Path
) -> None:
    """It was followed: the content lay on the NAS, readable for user 10000, until its digest was compared."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"root:secret")
    blobs = [images.blob(b"%d" % number) for number in range(3)]
    planted = images.blobs / blobs[0].partition("/")[2] / "data"
    planted.unlink()
    planted.symlink_to(precious)
    seen = images.copy()
    assert (seen["damaged"], seen["named"], seen["copied"]) == (1, [blobs[0]], 2)
    assert not images.copied(blobs[0]).exists()


def test_what_is_not_proven_yet_is_nobodys_to_read(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = program.digest_of

    def look(source: Any, copy: Any = None) -> str:
        modes.extend([] if copy is None else [os.fstat(copy.fileno()).st_mode & 0o777])
        if copy is None:
            modes.append(os.fstat(source.fileno()).st_mode & 0o777)
        return real(source, copy)

    monkeypatch.setattr(program, "digest_of", look)
    blob = images.blob(b"content")
    images.copy()
    assert modes == [0o600, 0o600]
    assert images.copied(blob).stat().st_mode & 0o777 == 0o644


def test_a_link_file_that_was_swapped_for_a_link_is_not_read(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the opening by name a swap left any file of root's on the NAS, under the link's name."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"root:secret")
    copied = images.link("library/a/_manifests/tags/v1/current/link", "sha256:aa")
    place = images.source / copied.relative_to(images.target)
    before, look = os.lstat(place), os.lstat
    place.unlink()
    place.symlink_to(precious)
    monkeypatch.setattr(os, "lstat", lambda path: before if path == str(place) else look(path))
    assert images.copy()["gone"] == 1
    assert not copied.exists()


def test_a_link_on_the_nas_is_replaced_and_not_compared_through(images: Images, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("sha256:aa")
    copied = images.link("library/a/_manifests/tags/v1/current/link", "sha256:aa")
    copied.parent.mkdir(parents=True)
    copied.symlink_to(other)
    images.copy()
    assert not copied.is_symlink()
    assert copied.read_text() == "sha256:aa"
