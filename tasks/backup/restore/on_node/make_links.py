"""Make the links of Harbor's storage that a database refers to and that are not there.

A link is a file that holds the digest that its path ends with, so repository and digest are all that is needed.
What exists is left alone; an empty one, which a full disk leaves, is written again.
"""

import json
import os
import re
import subprocess
import sys
from typing import Any, Dict, Iterator, Tuple

from tasks.on_node.files import make_directories, write_file

# User and group that Harbor's containers run as.
HARBOR = (10000, 10000)
NAME = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

QUERY = """
COPY (
  SELECT r.name, 'manifest', a.digest, '' FROM artifact a JOIN repository r USING (repository_id)
  UNION SELECT r.name, 'layer', ab.digest_blob, '' FROM artifact a JOIN repository r USING (repository_id)
    JOIN artifact_blob ab ON ab.digest_af = a.digest WHERE ab.digest_blob <> a.digest
  UNION SELECT r.name, 'tag', a.digest, t.name FROM tag t JOIN artifact a ON a.id = t.artifact_id
    JOIN repository r ON r.repository_id = a.repository_id
  ORDER BY 1, 2, 3
) TO STDOUT
"""


def wanted(argv: Any) -> Iterator[Tuple[str, str, str, str]]:
    """Yield repository, kind, digest and tag of everything that the database refers to."""
    process = subprocess.Popen([*argv, "-c", QUERY], stdout=subprocess.PIPE, cwd="/")
    assert process.stdout is not None
    for line in process.stdout:
        repository, kind, digest, tag = line.decode().rstrip("\n").split("\t")
        if not NAME.fullmatch(repository) or ".." in repository or not DIGEST.fullmatch(digest):
            raise ValueError("not a repository and a digest: %r %r" % (repository[:200], digest[:100]))
        if tag and not TAG.fullmatch(tag):
            raise ValueError("not a tag: %r" % tag[:200])
        yield repository, kind, digest, tag
    if process.wait() != 0:
        raise SystemExit("psql failed with status %d" % process.returncode)


def places(repository: str, kind: str, digest: str, tag: str) -> Iterator[str]:
    """Yield the paths of the links, below `repositories/`."""
    short = digest[len("sha256:") :]
    if kind == "layer":
        yield "%s/_layers/sha256/%s/link" % (repository, short)
    elif kind == "manifest":
        yield "%s/_manifests/revisions/sha256/%s/link" % (repository, short)
    else:
        yield "%s/_manifests/tags/%s/current/link" % (repository, tag)
        yield "%s/_manifests/tags/%s/index/sha256/%s/link" % (repository, tag, short)


def make(root: str, place: str, digest: str) -> bool:
    """Write one link, whole or not at all; tell if it was missing."""
    path = os.path.join(root, "repositories", place)
    try:
        if os.stat(path).st_size > 0:
            return False
    except FileNotFoundError:
        pass
    make_directories(os.path.dirname(path), 0o755, HARBOR)
    return write_file(path, digest.encode(), 0o644, HARBOR)


def main(given: Dict[str, Any]) -> Dict[str, int]:
    """Make all links; returns how many there are and how many were missing."""
    links = made = 0
    for repository, kind, digest, tag in wanted(given["psql"]):
        for place in places(repository, kind, digest, tag):
            links += 1
            made += make(given["root"], place, digest)
    return {"links": links, "made": made}


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
