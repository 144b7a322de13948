"""Harbor's registryctl: health, and the deletion of blobs and manifest links for GC."""

import os
import re
import shutil
from pathlib import Path

from .web import Refused, Request, Response, Routes, Server, heed_sigterm, setup_logging

ROOT = Path("/storage/docker/registry/v2")


def blob_directory(root: Path, digest: str) -> Path:
    """Where a blob lies. Raises Refused (400) for anything but a sha256 digest."""
    found = re.fullmatch(r"sha256:([0-9a-f]{64})", digest)
    if found is None:
        raise Refused(400, "BAD_REQUEST", f"invalid digest {digest}")
    return root / "blobs" / "sha256" / found[1][:2] / found[1]


def delete_blob(root: Path, digest: str) -> bool:
    """Remove a blob's directory; False when there is none."""
    directory = blob_directory(root, digest)
    if not directory.is_dir():
        return False
    shutil.rmtree(directory)
    return True


def delete_manifest(root: Path, repository: str, digest: str) -> bool:
    """Remove a manifest's revision link and the tags that point to it; False when there is none."""
    base = root / "repositories" / repository / "_manifests"
    if ".." in repository.split("/"):
        raise Refused(400, "BAD_REQUEST", "invalid repository")
    revision = base / "revisions" / "sha256" / blob_directory(root, digest).name
    for link in base.glob("tags/*/current/link"):
        if link.read_text() == digest:
            shutil.rmtree(link.parent.parent)
    if not revision.is_dir():
        return False
    shutil.rmtree(revision)
    return True


def routes(root: Path) -> Routes:
    """All routes of registryctl."""

    def health(request: Request) -> Response:
        return Response.of("healthy")

    def blob(request: Request, digest: str) -> Response:
        return Response(200 if delete_blob(root, digest) else 404)

    def manifest(request: Request, name: str, digest: str) -> Response:
        return Response(200 if delete_manifest(root, name, digest) else 404)

    table = Routes()
    table.add("GET", "/api/health", health)
    table.add("DELETE", r"/api/registry/blob/(?P<digest>[^/]+)", blob)
    table.add("DELETE", r"/api/registry/(?P<name>.+)/manifests/(?P<digest>[^/]+)", manifest)
    return table


def main() -> None:
    """Serve for ever."""
    setup_logging()
    heed_sigterm()
    table = routes(ROOT)

    def answer(request: Request) -> Response:
        handler, arguments = table.resolve(request.method, request.path)
        return handler(request, **arguments)

    Server(int(os.environ.get("PORT") or 8080), answer).serve_forever()


if __name__ == "__main__":
    main()
