"""Thousands of blobs and hundreds of thousands of rows, generated where they belong: on the NAS, in the database."""

from lab.faults.stage import Stage

# On the node: blobs of pseudo-random content, their digests as the answer.
_BLOBS = """
import hashlib, os, random, subprocess, sys
root, count, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for number in range(count):
    chance = random.Random(seed + str(number))
    data = chance.randbytes(chance.choice([200, 900, 3000, 20000]))
    name = hashlib.sha256(data).hexdigest()
    place = os.path.join(root, "docker/registry/v2/blobs/sha256", name[:2], name)
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "data"), "wb") as target:
        target.write(data)
    print("sha256:" + name, len(data), sep="\\t")
# As the registry would have made them; in a directory of root's it cannot write a layer.
owner = os.stat(root)
subprocess.check_call(["chown", "-R", "%d:%d" % (owner.st_uid, owner.st_gid), root])
"""

_ROWS = """
CREATE TEMP TABLE generated (digest text, size bigint);
\\copy generated FROM '/tmp/generated'
INSERT INTO blob (digest, size, content_type)
  SELECT digest, size, 'application/vnd.oci.image.layer.v1.tar+gzip' FROM generated ON CONFLICT DO NOTHING;
INSERT INTO artifact_blob (digest_af, digest_blob)
  SELECT (SELECT digest FROM artifact ORDER BY id LIMIT 1), digest FROM generated ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS generated_rows (id bigserial PRIMARY KEY, t text);
INSERT INTO generated_rows (t) SELECT md5(n::text) FROM generate_series(1, {rows}) n;
"""


def add_blobs(stage: Stage, count: int, seed: str, rows: int = 1) -> None:
    """Put blobs on the NAS, which an existing artifact refers to, and rows into the database."""
    node = stage.primary
    registry = f"{stage.site.nas.path}/registry"
    stage.lab.exec(
        node,
        ["sh", "-c", 'python3 - "$@" > /tmp/generated', "sh", registry, str(count), seed],
        stdin=_BLOBS,
        timeout=300,
    )
    stage.lab.exec(
        node,
        [
            "runuser",
            "-u",
            "postgres",
            "--",
            "psql",
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            stage.site.postgres.database,
        ],
        stdin=_ROWS.format(rows=rows),
        timeout=300,
    )
