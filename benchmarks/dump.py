"""A dump into OSS against the same dump into /dev/null, and the memory of whoever carries it."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pyrage

from benchmarks.meter import Spent, mb_a_core, measured, on_cores, peak_mb, prefect_alone_mb
from benchmarks.site import Oss, in_child, oss_process
from tasks.backup.server import Server, query
from tasks.hosts.connection import Host
from tests.unit.local_host import LocalHost, as_user, local_host
from tests.unit.local_postgres import running_postgres

BOUND, BOUND_MB = 1.15, 200.0
# The node has a core of its own here, and all others share the rest, as machines of their own would.
_NODE, _OTHERS = {0}, set(range(1, os.cpu_count() or 1)) or {0}
_TRIES = 6

_ROWS = """
INSERT INTO blob (digest, content_type, size)
  SELECT 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 'application/vnd.oci.image.layer.v1.tar+gzip', n
  FROM generate_series(1, :'v0'::int) n;
INSERT INTO artifact_blob (digest_af, digest_blob)
  SELECT 'sha256:' || encode(sha256((n / 10)::text::bytea), 'hex'), 'sha256:' || encode(sha256(n::text::bytea), 'hex')
  FROM generate_series(1, :'v0'::int) n;
"""


def run(rows: int) -> list[str]:
    """Measure a database with twice so many rows; returns lines for a reader."""
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as work,
        running_postgres() as server,
        oss_process(Path(work)) as oss,
    ):
        query(local_host(), server, "registry", _ROWS, values=[str(rows)], timeout=900)
        # Else the first dumps share their core with autovacuum, and write hint bits.
        for after in ("VACUUM (FREEZE, ANALYZE);", "CHECKPOINT;"):
            query(local_host(), server, "registry", after, timeout=900)
        _bind_postgres(server)
        os.sched_setaffinity(oss.pid, _OTHERS)
        to_null: list[Spent] = []
        told: list[dict[str, Any]] = []

        def null() -> None:
            with on_cores(0, _NODE):
                to_null.append(measured(lambda: dump_to_null(server)))

        def stored() -> None:
            told.append(in_child("benchmarks.dump:dump_to_oss", server=asdict(server), oss=asdict(oss)))

        for number in range(_TRIES):  # in turn, and each first in turn: whatever else happens disturbs both
            for one in (null, stored) if number % 2 else (stored, null):
                one()
    lines = _lines(rows, min(spent.wall for spent in to_null), min(told, key=_wall))
    tries = [f"{_wall(one):.1f}:{null.wall:.1f}" for one, null in zip(told, to_null, strict=True)]
    return [*lines, f"    all tries, OSS:null, seconds: {', '.join(tries)}"]


def _wall(told: dict[str, Any]) -> float:
    wall: float = told["spent"]["wall"]
    return wall


def _bind_postgres(server: Server) -> None:
    main = int((Path(server.sockets) / "data/postmaster.pid").read_text().splitlines()[0])
    os.sched_setaffinity(main, _NODE)


def _lines(rows: int, baseline: float, told: dict[str, Any]) -> list[str]:
    spent = told["spent"]
    ratio = spent["wall"] / baseline
    more = told["peak_mb"] - prefect_alone_mb()
    return [
        f"{2 * rows:,} rows, {told['plain'] / 1e6:.0f} MB compressed, {told['parts']} parts, best of {_TRIES}: "
        f"{spent['wall']:.1f} s into OSS, {baseline:.1f} s into /dev/null, ratio {ratio:.2f} "
        f"(bound {BOUND})",
        f"    CPU: ours {spent['here']:.1f} s, OSS {spent['oss']:.1f} s, both on the cores that are not the node's; "
        f"node {baseline:.1f} s",
        f"    a core moves of the compressed dump: of ours {mb_a_core(told['plain'], spent['here'])}, "
        f"of the node's {mb_a_core(told['plain'], baseline)}",
        f"    memory above Prefect itself: {more:.0f} MB, {more / BOUND_MB:.2f} of the bound of {BOUND_MB:.0f} MB",
    ]


def dump_to_null(server: Server) -> None:
    """The command of a backup, with nobody at its other end."""
    from tasks.backup.tools import dump_command, find_tools

    host = local_host()
    tools = find_tools(host, server)
    command = dump_command(server, "registry", "none", 150000, tools)
    argv = [word.replace("--snapshot=none", "") for word in command.argv]
    subprocess.run(
        as_user([word for word in argv if word], server.user), stdout=subprocess.DEVNULL, check=True, cwd="/"
    )


def dump_to_oss(server: dict[str, Any], oss: dict[str, Any]) -> dict[str, Any]:
    """Dump as a backup does, without the list of blobs; called in a process of its own."""
    from datetime import UTC, datetime

    import prefect  # noqa: F401 - part of what is measured

    from tasks.backup.format.layout import new_backup_id
    from tasks.backup.night.snapshot import open_snapshot
    from tasks.backup.night.stored import Destination, store_output
    from tasks.backup.tools import dump_command, find_tools
    from tasks.storage.store import open_store

    given, bucket, host = Server(**server), Oss(**oss), cast(Host, NodeOnItsCore())
    store = open_store(bucket.settings, "main", threads=24)
    recipients = [pyrage.x25519.Identity.generate().to_public()]
    to = Destination(store, new_backup_id(datetime.now(UTC)), recipients)
    produced = []
    with open_snapshot(host, given, "registry", timeout=900) as snapshot:
        facts = snapshot.facts
        command = dump_command(given, "registry", facts.snapshot, facts.version_num, find_tools(host, given))

        def work() -> None:
            produced.append(
                store_output(
                    host, command, to, "pg/registry.dump", role="database", user=given.user, timeout=900
                )
            )

        with on_cores(0, _OTHERS):
            spent = measured(work, bucket.pid)
    artifact = produced[0].artifact
    parts = -(-artifact.size // (8 << 20))
    return {"spent": asdict(spent), "peak_mb": peak_mb(), "plain": artifact.plain_size, "parts": parts}


class NodeOnItsCore(LocalHost):
    """This machine as a node whose programs have a core of their own."""

    def stream(self, argv: Sequence[str], **options: Any) -> Any:
        return super().stream(["taskset", "-c", ",".join(map(str, _NODE)), *argv], **options)
