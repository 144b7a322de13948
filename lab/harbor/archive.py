"""An image archive as `docker save` writes it: many images, their common layers in it once."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 20


@dataclass(frozen=True)
class Layer:
    """One layer: a tar file and its name inside the archive."""

    name: str
    path: Path

    def diff_id(self) -> str:
        """Digest of the uncompressed tar, which is how Docker knows a layer."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while part := file.read(CHUNK):
                digest.update(part)
        return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True)
class Image:
    """One image: its tag, its layers from the bottom up, and what it runs."""

    tag: str
    layers: Sequence[Layer]
    command: Sequence[str]
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    health: Sequence[str] = ()
    entrypoint: bool = False
    stop_signal: str = "SIGTERM"

    def config(self, diff_ids: Mapping[Layer, str], architecture: str) -> bytes:
        """The image's configuration as JSON."""
        runtime: dict[str, Any] = {
            "Entrypoint" if self.entrypoint else "Cmd": list(self.command),
            "Env": [f"{key}={value}" for key, value in self.env.items()],
            "User": self.user,
            "StopSignal": self.stop_signal,
        }
        if self.health:
            second = 1_000_000_000
            runtime["Healthcheck"] = {
                "Test": ["CMD", *self.health],
                "Interval": 30 * second,
                "Timeout": 10 * second,
            }
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": runtime,
            "rootfs": {"type": "layers", "diff_ids": [diff_ids[layer] for layer in self.layers]},
        }
        return json.dumps(document, sort_keys=True).encode()


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Put a small file into a tar, owned by root, without a time of its own."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def write(images: Iterable[Image], target: IO[bytes], architecture: str) -> None:
    """Write the archive of all images to `target`, uncompressed."""
    images = list(images)
    layers = {layer: layer.diff_id() for image in images for layer in image.layers}
    manifest = []
    with tarfile.open(fileobj=target, mode="w|") as archive:
        for layer in layers:
            archive.add(layer.path, f"{layer.name}/layer.tar", filter=_anonymous)
        for image in images:
            config = image.config(layers, architecture)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            add_bytes(archive, name, config)
            files = [f"{layer.name}/layer.tar" for layer in image.layers]
            manifest.append({"Config": name, "RepoTags": [image.tag], "Layers": files})
        add_bytes(archive, "manifest.json", json.dumps(manifest).encode())


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info
