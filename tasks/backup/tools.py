"""Which programs a node has, and which command makes a dump there."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.backup.format.manifest import Compression
from tasks.backup.server import Server
from tasks.hosts.connection import Host

# pg_dump compresses with zstd by itself from here on, and pg_restore reads that without help.
_ZSTD_INSIDE = 160000


@dataclass(frozen=True)
class NodeTools:
    """Programs on one node.

    Attributes:
        pg_dump: version as it prints it, empty where there is none.
        zstd: whether `zstd` is there.
    """

    pg_dump: str
    zstd: bool


@dataclass(frozen=True)
class Command:
    """A command on a node, and what it leaves around its content.

    Attributes:
        argv: safe to run as it is.
        compression: what the reader must take off again.
    """

    argv: tuple[str, ...]
    compression: Compression

    @property
    def suffixes(self) -> tuple[str, ...]:
        """File name suffixes of the compression."""
        return {"none": (), "zstd": ("zst",), "gzip": ("gz",)}[self.compression]


def find_tools(host: Host, server: Server) -> NodeTools:
    """Look which programs a node has."""
    script = (
        f"{shlex.quote(server.programs)}/pg_dump --version; command -v zstd >/dev/null && echo zstd; true"
    )
    lines = host.run(["sh", "-c", script]).stdout.splitlines()
    versions = [line.split()[2] for line in lines if line.startswith("pg_dump (PostgreSQL) ")]
    return NodeTools(versions[0] if versions else "", "zstd" in lines)


def dump_command(server: Server, database: str, snapshot: str, version_num: int, tools: NodeTools) -> Command:
    """The fastest dump that this version can make, in one archive on standard output.

    Measured on Harbor's schema: pg_dump's own gzip takes twice as long as no compression piped into zstd, and
    stores more. An archive that was piped has no offsets, which costs a parallel restore a tenth.
    """
    base = server.command(
        "pg_dump", "-Fc", f"--snapshot={snapshot}", "--lock-wait-timeout=60s", "-d", database
    )
    if version_num >= _ZSTD_INSIDE:
        return Command((*base, "--compress=zstd:3"), "none")
    if tools.zstd:
        return pipeline([*base, "-Z0"], tools)
    return Command((*base, "-Z1"), "none")


def pipeline(producer: Sequence[str], tools: NodeTools) -> Command:
    """Pipe a command's output through the node's best compressor; the failure of either end is a failure."""
    packer = "zstd -3 -T2 -q -c" if tools.zstd else "gzip -1 -c"
    script = f"{shlex.join(producer)} | {packer}"
    # Without pipefail the status is the compressor's, and half a dump would count as a whole one.
    return Command(("bash", "-o", "pipefail", "-c", script), "zstd" if tools.zstd else "gzip")
