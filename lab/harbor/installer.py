"""Packs `harbor-offline-installer-v<version>.tgz`, once for each state of the sources."""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.shell import LabError, alone, docker, step

from . import archive, images, rootfs
from .app.habits import for_version, habits

HERE = Path(__file__).parent
BUNDLE = {
    "harbor.yml.tmpl": 0o644,
    "prepare": 0o755,
    "install.sh": 0o755,
    "common.sh": 0o644,
    "LICENSE": 0o644,
}
CHUNK = 1 << 20
KEPT_SECONDS = 3 * 86400
USUAL_VERSION = "2.13.2"


@dataclass(frozen=True)
class InstallerFile:
    """A finished installer and its SHA-256 in hex."""

    path: Path
    version: str
    sha256: str


def source_hash(version: str) -> str:
    """Changes with anything that goes into the installer, except newer Debian packages."""
    digest = hashlib.sha256(f"{version}".encode())
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def bundled(name: str, version: str) -> bytes:
    """One file of the installer's directory with the version filled in."""
    text = for_version((HERE / "bundle" / name).read_text(), habits(version).minor)
    minor = ".".join(version.split(".")[:2])
    return text.replace("@VERSION@", version).replace("@MINOR@", f"{minor}.0").encode()


def _architecture() -> str:
    """Of the engine, in Docker's own words: that is what it compares an image's with."""
    return docker("version", "--format", "{{.Server.Arch}}").strip()


@contextmanager
def _compressed(path: Path) -> Iterator[IO[bytes]]:
    """A file that compresses what is written to it, with pigz where there is one."""
    tool = shutil.which("pigz") or "gzip"
    with (
        path.open("wb") as file,
        subprocess.Popen([tool, "-1", "-n"], stdin=subprocess.PIPE, stdout=file) as run,
    ):
        assert run.stdin is not None
        yield run.stdin
        run.stdin.close()
        if run.wait():
            raise LabError(f"{tool} ended with {run.returncode}.", where="this machine")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _pack(work: Path, layers: rootfs.Layers, version: str, target: Path) -> None:
    app = images.app_layer(work / "app.tar", version)
    packed = work / f"harbor.v{version}.tar.gz"
    with _compressed(packed) as stream:
        archive.write(images.images(layers, app, version), stream, _architecture())
    # The images are compressed already; a second compression of the whole would only cost time.
    with gzip.open(target, "wb", compresslevel=0) as file, tarfile.open(fileobj=file, mode="w|") as tar:
        for name, mode in BUNDLE.items():
            archive.add_bytes(tar, f"harbor/{name}", bundled(name, version), mode)
        tar.add(packed, f"harbor/{packed.name}")


def _forget_old(out_dir: Path, kind: str) -> None:
    """Remove builds of earlier days. Younger ones stay: the site file of a lab that stands names one."""
    for build in out_dir.glob(f"{kind}-*/"):
        if time.time() - build.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(build)


def build_installer(out_dir: Path, version: str = USUAL_VERSION) -> InstallerFile:
    """Build the installer below `out_dir`, or take the one that these sources already gave.

    About fifty seconds cold on two cores, under ten when only our own programs changed. Safe to call from
    two processes at once.

    Raises:
        LabError: the machine cannot build it.
        ValueError: `version` is not a version from 2.3 to 2.15.
    """
    if not re.fullmatch(r"2\.\d+\.\d+", version):
        raise ValueError(f"a Harbor version is 2.<minor>.<patch>, not {version!r}")
    habits(version)
    out_dir.mkdir(parents=True, exist_ok=True)
    done = out_dir / f"harbor-{version}-{source_hash(version)}"
    target = done / f"harbor-offline-installer-v{version}.tgz"
    checksum = done / f"{target.name}.sha256"
    with alone(out_dir / "build.lock"):
        if not checksum.exists():
            layers = rootfs.build_layers(out_dir)
            done.mkdir(exist_ok=True)
            work = done / "work"
            work.mkdir(exist_ok=True)
            with step(f"Pack the installer of the miniature Harbor {version}"):
                _pack(work, layers, version, target)
            shutil.rmtree(work)
            checksum.write_text(_sha256(target))
            os.utime(layers.base.parent)
            for kind in ("harbor", "rootfs"):
                _forget_old(out_dir, kind)
    return InstallerFile(target, version, checksum.read_text())
