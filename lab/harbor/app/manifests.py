"""What core needs to know of an image manifest before it writes rows about it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
MAX_SIZE = 4 * 1024 * 1024


class BadManifest(Exception):
    """The body is not a manifest that core can record."""


@dataclass(frozen=True)
class Descriptor:
    """A blob or a child manifest that a manifest names."""

    digest: str
    size: int
    media_type: str
    platform: str = ""


@dataclass(frozen=True)
class Manifest:
    """One parsed manifest; `size` counts config, layers and the manifest itself, in bytes."""

    digest: str
    media_type: str
    config_type: str
    blobs: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    size: int
    annotations: dict[str, str]


def _descriptor(item: dict[str, Any]) -> Descriptor:
    platform = item.get("platform")
    return Descriptor(
        digest=str(item["digest"]),
        size=int(item["size"]),
        media_type=str(item.get("mediaType", "")),
        platform=json.dumps(platform) if platform else "",
    )


def parse(body: bytes, content_type: str) -> Manifest:
    """Parse the body of a manifest PUT. Raises BadManifest with the reason."""
    try:
        document = json.loads(body)
        media_type = str(document.get("mediaType") or content_type.split(";")[0].strip())
        children = tuple(_descriptor(item) for item in document.get("manifests") or ())
        config = _descriptor(document["config"]) if "config" in document else None
        layers = tuple(_descriptor(item) for item in document.get("layers") or ())
        annotations = {str(k): str(v) for k, v in (document.get("annotations") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadManifest(f"manifest invalid: {error}") from error
    if config is None and not children:
        raise BadManifest("manifest invalid: neither a config nor manifests")
    blobs = ((config,) if config else ()) + layers
    return Manifest(
        digest="sha256:" + hashlib.sha256(body).hexdigest(),
        media_type=media_type,
        config_type=config.media_type if config else media_type,
        blobs=blobs,
        children=children,
        size=len(body) + sum(blob.size for blob in blobs),
        annotations=annotations,
    )
