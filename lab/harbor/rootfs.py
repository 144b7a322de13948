"""File systems of the images, made from the machine's own Debian or Ubuntu packages."""

import hashlib
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import HarborHaError

HOOK = Path(__file__).with_name("layers.sh")
PACKAGES = (
    "python3-minimal", "python3-psycopg2", "python3-redis", "python3-cryptography", "python3-yaml",
    "python3-bcrypt", "docker-registry", "nginx-light", "redis-server", "openssl", "procps",
)  # fmt: skip
NOT_WANTED = ("doc", "man", "locale", "info", "i18n", "lintian", "bash-completion")
TIME_LIMIT = 900.0  # seconds; thirty are usual, a slow mirror is not our fault


class ImageBuildFailed(HarborHaError):
    """The images of the miniature Harbor could not be built on this machine."""


@dataclass(frozen=True)
class Layers:
    """Two layers as tar files: what all images share, and PostgreSQL on top of it."""

    base: Path
    postgres: Path


def apt_sources() -> list[Path]:
    """The package sources of this machine, as apt reads them."""
    directory = Path("/etc/apt/sources.list.d")
    found = [
        Path("/etc/apt/sources.list"),
        *sorted(directory.glob("*.list")),
        *sorted(directory.glob("*.sources")),
    ]
    return [path for path in found if path.is_file() and path.stat().st_size > 0]


def codename() -> str:
    """The release of this machine, e.g. bookworm. Raises ImageBuildFailed on other systems."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise ImageBuildFailed(
        "This machine is neither Debian nor Ubuntu.",
        remedy="Build the lab on one of them, or set HARBOR_INSTALLER.",
    )


def _command(out: Path) -> list[str]:
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NOT_WANTED]
    return [
        "mmdebstrap",
        "--variant=apt",
        "--format=null",
        *excludes,
        '--aptopt=Apt::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        f"--include={','.join(PACKAGES)}",
        f'--customize-hook=sh {shlex.quote(str(HOOK))} "$1" {shlex.quote(str(out))}',
        codename(),
        "-",
        *[str(path) for path in apt_sources()],
    ]


def fingerprint() -> str:
    """Changes when the layers would come out different by our doing (package updates do not count)."""
    text = "\n".join((*PACKAGES, *NOT_WANTED, codename(), HOOK.read_text()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_layers(cache: Path) -> Layers:
    """Build both layers below `cache`, or take what is there. Raises ImageBuildFailed."""
    done = cache / f"rootfs-{fingerprint()}"
    layers = Layers(done / "base.tar", done / "postgres.tar")
    if done.is_dir():
        return layers
    if shutil.which("mmdebstrap") is None:
        raise ImageBuildFailed("mmdebstrap is not installed.", remedy="apt-get install mmdebstrap")
    work = cache / f"rootfs-{fingerprint()}.{os.getpid()}"
    work.mkdir(parents=True)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        result = subprocess.run(
            _command(work), env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
        if result.returncode:
            tail = "\n".join(result.stderr.splitlines()[-15:])
            raise ImageBuildFailed(f"mmdebstrap ended with {result.returncode}:\n{tail}")
        work.rename(done)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return layers
