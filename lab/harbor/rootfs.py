"""File systems of the images, made from the packages of this machine's own distribution."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.images import ensure_base
from lab.shell import run, step

SCRIPT = Path(__file__).with_name("layers.sh")
PACKAGES = (
    "python3-minimal", "python3-psycopg2", "python3-redis", "python3-cryptography", "python3-yaml",
    "python3-bcrypt", "docker-registry", "nginx-light", "redis-server", "openssl",
)  # fmt: skip
TIME_LIMIT = 900.0  # seconds; thirty are usual, a slow mirror is not our fault


@dataclass(frozen=True)
class Layers:
    """Two layers as tar files: what all images share, and PostgreSQL on top of it."""

    base: Path
    postgres: Path


def _fingerprint(base: str) -> str:
    """Changes when the layers would come out different by our doing (newer packages do not count)."""
    text = "\n".join((base, *PACKAGES, SCRIPT.read_text()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_layers(cache: Path) -> Layers:
    """Build both layers below `cache`, or take what is there.

    Raises:
        LabError: this machine has no engine or no packages; the error shows the end of the output.
    """
    base = ensure_base()
    done = cache / f"rootfs-{_fingerprint(base)}"
    layers = Layers(done / "base.tar", done / "postgres.tar")
    if done.is_dir():
        return layers
    work = done.with_suffix(f".{os.getpid()}")
    work.mkdir(parents=True)
    try:
        with step("Install what the miniature Harbor is made of"):
            # The host's network: a mirror that only the machine itself can resolve works here, too.
            argv = ["docker", "run", "--rm", "-i", "--network", "host", "-v", f"{work.absolute()}:/out", base]
            argv += ["sh", "-s", "--", f"{os.getuid()}:{os.getgid()}", *PACKAGES]
            log = cache / "rootfs.log"
            run(argv, stdin=SCRIPT.read_text(), timeout=TIME_LIMIT, log=log)
        work.rename(done)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return layers
