"""Proof of a restore: old images, pulled by digest through Harbor and hashed to their last byte."""

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

from blocks import HarborSite
from tasks.backup.restore.application import as_application
from tasks.backup.restore.whole import whole_artifacts
from tasks.backup.server import query
from tasks.errors import HarborHaError
from tasks.harbor.oci import WrongContent
from tasks.harbor.web import Answer, HarborRefused, HarborUnreachable, Session, through_node
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, unchanged

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
# Proxy caches are left out: what they lack they fetch from elsewhere, which proves nothing here.
_ARTIFACTS = """
SELECT r.name, a.digest FROM artifact a JOIN repository r USING (repository_id)
JOIN project p ON p.project_id = r.project_id WHERE {own} ORDER BY a.id;
"""
_HAS_PROXIES = """
SELECT 1 FROM information_schema.columns WHERE table_name = 'project' AND column_name = 'registry_id';
"""
# Enough that some are whole even after a bad day.
_CANDIDATES = 500
_LARGEST_BLOB = 512 << 20


class NotServed(HarborHaError):
    """An image that the database knows cannot be pulled."""


@dataclass(frozen=True)
class Pulled:
    """What was pulled and hashed."""

    artifacts: int
    blobs: int
    size: int


def pull_sample(
    site: HarborSite, host: Host, *, count: int = 5, seed: int = 0, whole_only: bool = False
) -> Outcome:
    """Pull some images that were there before the disaster, through this node's Harbor.

    Args:
        site: its Harbor.
        host: the node.
        count: how many artifacts; indexes count as one and only their own manifest is pulled.
        seed: of the choice.
        whole_only: leave out those that are known to lack a blob.

    Raises:
        NotServed: with every artifact that cannot be pulled, and why.
    """
    database = site.postgres.database
    with as_application(site, host) as server:
        own = "coalesce(p.registry_id, 0) = 0" if query(host, server, database, _HAS_PROXIES) else "true"
        rows = query(host, server, database, _ARTIFACTS.format(own=own))
        candidates = random.Random(seed).sample(rows, min(_CANDIDATES if whole_only else count, len(rows)))
        if whole_only:
            whole = whole_artifacts(site, host, server, [digest for _, digest in candidates])
            candidates = [row for row in candidates if row[1] in whole]
    chosen = candidates[:count]
    problems, done = [], []
    with _Puller(Session(through_node(site, host.name), 60.0)) as puller:
        for repository, digest in chosen:
            try:
                done.append(puller.pull(repository, digest))
            except (HarborRefused, HarborUnreachable, WrongContent, ValueError, KeyError) as error:
                problems.append(f"{repository}@{digest}: {error}")
    if problems:
        raise NotServed(
            f"{len(problems)} of {len(chosen)} images cannot be pulled: {'; '.join(problems)}",
            where=host.name,
            meaning="Links, or what they lead to, are missing or damaged on the NAS. Harbor runs.",
            remedy="Run the restore again with images=oss, which makes the links that are missing under a running "
            "Harbor and fetches what is missing from the bucket; what is there is not copied again.",
        )
    if not chosen:
        return unchanged("there is no image that could be pulled", artifacts=0)
    total = Pulled(len(done), sum(p.blobs for p in done), sum(p.size for p in done))
    return unchanged(
        f"pulled {total.artifacts} of {len(rows)} images: {total.blobs:,} blobs, {total.size:,} bytes",
        artifacts=total.artifacts,
    )


class _Puller:
    """Pulls with basic authentication, which Harbor accepts below /v2/."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> "_Puller":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def pull(self, repository: str, digest: str) -> Pulled:
        """Pull a manifest and the blobs that it names."""
        manifest = self._get(repository, f"manifests/{digest}", digest)
        document: dict[str, Any] = json.loads(manifest)
        named = [document["config"], *document["layers"]] if "layers" in document else []
        wanted = {blob["digest"]: int(blob["size"]) for blob in named if not blob.get("urls")}
        sizes = [
            len(self._get(repository, f"blobs/{each}", each))
            for each, size in wanted.items()
            if size <= _LARGEST_BLOB
        ]
        return Pulled(1, 1 + len(sizes), len(manifest) + sum(sizes))

    def _get(self, repository: str, path: str, digest: str) -> bytes:
        headers = self._session.endpoint.authorization() | {"Accept": _ACCEPT}
        answer: Answer = self._session.request("GET", f"/v2/{repository}/{path}", headers=headers)
        if answer.status != 200:
            text = answer.body[:200].decode("utf-8", "replace")
            raise HarborRefused(f"{path} was answered with {answer.status}: {text}", answer.status)
        found = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        if found != digest:
            raise WrongContent(f"{path} came back as {found}.")
        return answer.body
