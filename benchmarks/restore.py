"""The way back: blobs from the bucket against a plain oss2 loop, a dump against `psql < dump.sql`."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path

from benchmarks.blobs import KINDS, make
from benchmarks.blobs import ours as copied
from benchmarks.meter import Spent, measured
from benchmarks.site import Oss, oss_process
from tasks.backup.format.blobs import IndexedBlob
from tasks.backup.format.layout import blob_key
from tasks.backup.restore.restore_blobs import restore_blobs
from tasks.backup.server import Server, query
from tasks.storage.store import open_store
from tests.unit.local_host import as_user, local_host
from tests.unit.local_postgres import running_postgres
from tests.unit.test_backup_round_trip import back_up, restore

COUNTS = {"small": 10_000, "large": 20}
BOUND_DUMP = 0.5
_TRIES = 3

# Half a dozen tables of about the same size, as a Harbor that is in use has them, with its indexes.
_TABLES = 6
_ROWS = """
SELECT format('CREATE TABLE bulk_%s (id bigint PRIMARY KEY, digest varchar(255), what varchar(255), size bigint)', t),
       format('INSERT INTO bulk_%s SELECT n, ''sha256:'' || encode(sha256(n::text::bytea), ''hex''), '
              '''application/vnd.oci.image.layer.v1.tar+gzip'', n FROM generate_series(1, %s) n', t, :'v0'),
       format('CREATE UNIQUE INDEX ON bulk_%s (digest)', t), format('ALTER TABLE bulk_%s OWNER TO harbor', t)
FROM generate_series(1, :'v1'::int) t
\\gexec
"""


def blobs() -> list[str]:
    """Measure blobs of both kinds; returns lines for a reader."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work, oss_process(Path(work) / "server") as oss:
        return [line for kind in KINDS for line in _blob_lines(Path(work), oss, kind)]


def _blob_lines(work: Path, oss: Oss, kind: str) -> list[str]:
    count, size = COUNTS[kind], KINDS[kind][1]
    root = work / kind
    names = make(root, count, size)
    site = copied(names, root, oss, 1)
    shutil.rmtree(root)
    tries: list[list[Spent]] = []
    target = work / "target"
    for _ in range(_TRIES):
        ways: list[Callable[[], None]] = [
            lambda: loop(names, target / "loop", oss, site, hashed=False),
            lambda: loop(names, target / "hashed", oss, site, hashed=True),
            lambda: ours(names, size, target / "ours", oss, site),
        ]
        tries.append([measured(way, oss.pid) for way in ways])
        shutil.rmtree(target)
    told = [f"{count:,} blobs of {size:,} bytes, best of {_TRIES}"]
    plain, hashing, own = (min(column, key=lambda spent: spent.wall) for column in zip(*tries, strict=True))
    for name, spent in (("plain oss2 loop", plain), ("the same that hashes", hashing), ("ours", own)):
        told.append(
            f"    {name}: {count / spent.wall:.0f} blobs/s, {count * size / spent.wall / 1e6:.0f} MB/s, "
            f"{plain.wall / spent.wall:.2f} times the plain loop; {spent}"
        )
    return told


def loop(names: list[str], target: Path, oss: Oss, site: str, *, hashed: bool) -> None:
    """What a script would do, in a process of its own: one object after the other into a file."""
    with ProcessPoolExecutor(1) as pool:
        pool.submit(_loop, names, str(target), oss.endpoint, site, hashed).result()


def _loop(names: list[str], target: str, endpoint: str, site: str, hashed: bool) -> None:
    import oss2

    from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION

    auth = oss2.AuthV4(ACCESS_KEY_ID, ACCESS_KEY_SECRET)
    bucket = oss2.Bucket(auth, endpoint, BUCKET, region=REGION, enable_crc=False)
    for name in names:
        path = Path(target, name[:2], name, "data")
        path.parent.mkdir(parents=True)
        bucket.get_object_to_file(f"harbor/{site}/{blob_key(f'sha256:{name}')}", str(path))
        if hashed:
            assert sha256(path.read_bytes()).hexdigest() == name


def ours(names: list[str], size: int, target: Path, oss: Oss, site: str) -> None:
    """As a restore does: hashed and synced on the node, renamed into place, owned by Harbor."""
    wanted = [IndexedBlob(f"sha256:{name}", size, None, "", "present", 0) for name in names]
    done = restore_blobs(local_host(), open_store(oss.settings, site), str(target), wanted, timeout=3600)
    assert done.restored == len(names), done


def dump(rows: int) -> list[str]:
    """Measure a database of so many rows a table; returns lines for a reader."""
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as work,
        running_postgres() as server,
        oss_process(Path(work)) as oss,
    ):
        host = local_host()
        query(host, server, "registry", _ROWS, values=[str(rows), str(_TABLES)], timeout=1800)
        query(host, server, "registry", "VACUUM (FREEZE, ANALYZE); CHECKPOINT;", timeout=900)
        plain = f"{server.sockets}/dump.sql"
        _as(server, server.command("pg_dump", "--no-owner", "-f", plain, "registry"))
        size = Path(plain).stat().st_size
        store = open_store(oss.settings, "main")
        manifest = back_up(store, server)
        query(host, server, "postgres", "DROP DATABASE registry;")
        tries = []
        for _ in range(_TRIES):
            script = measured(lambda: _psql(server, plain))
            began = time.monotonic()
            inner = restore(store, server, manifest)
            tries.append((script.wall, time.monotonic() - began, inner.rows))
            query(host, server, "postgres", "DROP DATABASE registry;")
    best, own = min(one[0] for one in tries), min(one[1] for one in tries)
    return [
        f"dump.sql of {size / 1e6:.0f} MB, {tries[0][2]:,} rows in {_TABLES} tables, best of {_TRIES}: "
        f"psql {best:.1f} s; ours, with download, decryption, statistics and all rows counted, {own:.1f} s, "
        f"{own / best:.2f} of it (bound {BOUND_DUMP})",
        "    all tries, ours:psql, seconds: "
        + ", ".join(f"{mine:.1f}:{theirs:.1f}" for theirs, mine, _ in tries),
    ]


def _psql(server: Server, file: str) -> None:
    _as(server, server.command("createdb", "-O", "harbor", "by_hand"))
    _as(server, [*server.psql("by_hand", "-f", file), "-U", "harbor"])
    _as(server, server.command("dropdb", "by_hand"))


def _as(server: Server, argv: list[str]) -> None:
    subprocess.run(as_user(argv, server.user), check=True, cwd="/", stdout=subprocess.DEVNULL)
