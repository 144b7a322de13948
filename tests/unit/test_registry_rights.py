"""The images belong to the user that Harbor's registry runs as, or every push ends with 500."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.harbor.on_node import storage
from tasks.on_node import registry_rights
from tasks.on_node.registry_rights import HARBOR_UID, denied_paths, rights_command

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
BLOBS, REPOSITORIES = "docker/registry/v2/blobs/sha256/ab", "docker/registry/v2/repositories/library/app"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A NAS with images, as Harbor leaves it; what is above belongs to root alone, which is no harm."""
    directory = tmp_path / "nas" / "registry"
    (directory / BLOBS).mkdir(parents=True)
    (directory / REPOSITORIES).mkdir(parents=True)
    (directory / BLOBS / "data").write_text("blob")
    (tmp_path / "nas").chmod(0o700)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, HARBOR_UID, HARBOR_UID)
    return directory


def denied(registry: Path) -> list[str]:
    done = subprocess.run(
        rights_command(str(registry)), capture_output=True, text=True, timeout=20, check=True
    )
    return denied_paths(done.stdout, str(registry))


def test_images_of_the_registrys_user_are_denied_to_nobody(registry: Path) -> None:
    assert denied(registry) == []


def test_a_registry_that_root_made_at_boot_is_denied(registry: Path) -> None:
    """It happens by itself: a node boots without that directory, and something makes it."""
    os.chown(registry, 0, 0)
    assert denied(registry) == [str(registry)]
    assert denied(registry.parent / "none") == [f"{registry.parent}/none (missing)"]


@pytest.mark.parametrize(
    ("path", "uid", "mode"),
    [
        (BLOBS, HARBOR_UID, 0o555),
        ("docker/registry/v2", 0, 0o755),
        ("docker/registry/v2/repositories/library", 0, 0o755),
    ],
)
def test_what_lies_deeper_is_asked_for_too(registry: Path, path: str, uid: int, mode: int) -> None:
    place = registry / path
    if path == BLOBS:
        place = place.parent
    os.chown(place, uid, uid)
    place.chmod(mode)
    assert denied(registry) == [str(place)]


def test_images_are_given_back_whole_and_nothing_that_a_link_points_to(
    registry: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (registry / "link").symlink_to(precious)
    for path in (registry, *registry.rglob("*")):
        os.chown(path, 0, 0, follow_symlinks=False)
    (registry / BLOBS).chmod(0o500)
    (done,) = storage.give_back(str(registry))
    assert str(registry) in done
    assert {path.lstat().st_uid for path in (registry, *registry.rglob("*"))} == {HARBOR_UID}
    assert (registry / BLOBS).stat().st_mode & 0o777 == 0o700
    assert precious.stat().st_uid == 0
    assert storage.give_back(str(registry)) == []


def test_a_nas_that_lets_root_change_no_owner_is_refused_with_what_to_do(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(registry, 0, 0)
    monkeypatch.setattr(storage, "run", lambda argv, timeout: (1, "", "chown: Operation not permitted"))
    with pytest.raises(SystemExit, match=r"squashes root.*Operation|Operation.*squashes root"):
        storage.give_back(str(registry))


def test_the_binding_of_a_known_directory_repairs_its_owner(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It repaired nothing: only a directory that was not there was made for the right user."""
    os.chown(registry, 0, 0)
    monkeypatch.setattr(storage, "FSTAB", str(tmp_path / "fstab"))
    monkeypatch.setattr(storage, "mounts", lambda: {str(registry.parent): "0:1"})

    def mount(argv: list[str], timeout: float, cwd: Any = None) -> str:
        if argv[0] == "mount":
            return ""
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=True).stdout

    monkeypatch.setattr(storage, "must", mount)
    done = storage.bind({"nas": str(registry.parent), "target": str(tmp_path / "target")})
    assert f"gave {registry} back to user {HARBOR_UID}" in done
    assert registry.stat().st_uid == HARBOR_UID


def test_without_root_the_question_is_asked_as_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_rights.os, "geteuid", lambda: 1000)
    assert "setpriv" not in rights_command("/nas/registry")
