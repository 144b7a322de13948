"""Which images are whole on a node's storage, so that a sample pulls what can be pulled."""

from collections.abc import Iterable

from blocks import HarborSite
from tasks.backup.night.links import REGISTRY_ROOT
from tasks.backup.server import Server, query
from tasks.hosts.connection import Host

_LACKING = """
SELECT DISTINCT r.name || coalesce(':' || t.name, '@' || a.digest)
FROM artifact a JOIN repository r USING (repository_id) LEFT JOIN tag t ON t.artifact_id = a.id
WHERE a.digest = ANY (:'v0'::text[])
   OR a.digest IN (SELECT digest_af FROM artifact_blob WHERE digest_blob = ANY (:'v0'::text[])) ORDER BY 1;
"""
_BLOBS = """
SELECT digest_af, digest_blob FROM artifact_blob WHERE digest_af = ANY (:'v0'::text[]);
"""
_MISSING = """
import json, os, sys
p = json.load(sys.stdin)
print(json.dumps([d for d in p["digests"] if not os.path.exists(
    "%s/blobs/sha256/%s/%s/data" % (p["root"], d[7:9], d[7:]))]))
"""


def images_of(host: Host, server: Server, database: str, digests: Iterable[str]) -> list[str]:
    """Name the images that need any of the blobs: by tag where there is one, else by digest."""
    listed = ",".join(digests)
    return (
        [row[0] for row in query(host, server, database, _LACKING, values=[f"{{{listed}}}"])]
        if listed
        else []
    )


def whole_artifacts(site: HarborSite, host: Host, server: Server, digests: list[str]) -> set[str]:
    """Return those of some artifacts whose manifest and blobs are all there."""
    rows = query(host, server, site.postgres.database, _BLOBS, values=["{" + ",".join(digests) + "}"])
    needs: dict[str, set[str]] = {digest: {digest} for digest in digests}
    for artifact, blob in rows:
        needs[artifact].add(blob)
    root = f"{site.nas.path.rstrip('/')}/registry/{REGISTRY_ROOT}"
    given = {"root": root, "digests": sorted(set().union(*needs.values()))}
    missing = set(host.python(_MISSING, given, timeout=120))
    return {digest for digest, blobs in needs.items() if not blobs & missing}
