"""Which node a dump is taken from: the standby when it is fresh, else the primary."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import Refused

# 16 MB is one WAL segment: a standby that far behind on a busy site is seconds old.
MAX_LAG_BYTES = 16 << 20


@dataclass(frozen=True)
class DumpCandidate:
    """A database node as the backup sees it.

    Attributes:
        role: `primary`, `standby`, or empty when it did not answer.
        lsn: write position of a primary, replay position of a standby, in bytes.
        streaming: whether a standby receives from a primary right now.
        error: why it did not answer.
        system_identifier: of its database; empty when it did not answer.
        version_num: of its server, as PostgreSQL counts: 150004 is 15.4.
    """

    node: str
    role: str
    lsn: int = 0
    streaming: bool = False
    error: str = ""
    system_identifier: str = ""
    version_num: int = 0


@dataclass(frozen=True)
class DumpNode:
    """The chosen node, the one to try when it fails half way, and the reason."""

    node: str
    role: str
    reason: str
    fallback: str | None = None


def choose_dump_node(candidates: Sequence[DumpCandidate]) -> DumpNode:
    """Choose the node to dump.

    Raises:
        Refused: there is neither a primary nor a fresh standby, or there are two primaries.
    """
    primary = only_primary(candidates)
    standbys = sorted((c for c in candidates if c.role == "standby"), key=lambda c: -c.lsn)
    for standby in standbys:
        lag = max(0, primary.lsn - standby.lsn)
        if standby.streaming and lag <= MAX_LAG_BYTES:
            reason = f"the standby is {lag:,} bytes behind, and the primary has other work"
            return DumpNode(standby.node, "standby", reason, primary.node)
    why = "; ".join(f"{c.node} {_unfit(c, primary)}" for c in candidates if c is not primary)
    return DumpNode(primary.node, "primary", why or "it is the only database node")


def choose_drill_node(candidates: Sequence[DumpCandidate]) -> str:
    """Choose where a backup is restored for a test: where the dump is taken, if no other node is newer.

    A server writes into the catalog what only its own minor version knows, and a dump has all of it, whichever node it
    is taken from. Seen in the week of an upgrade: what 15.20 had marked its columns with, 15.18 refused for each
    table, and a good backup was called one that cannot be restored.

    Raises:
        Refused: as `choose_dump_node`.
    """
    usual = choose_dump_node(candidates).node
    newest = max(candidate.version_num for candidate in candidates)
    newer = [candidate.node for candidate in candidates if candidate.version_num == newest]
    return usual if usual in newer else newer[0]


def older_servers(candidates: Sequence[DumpCandidate]) -> list[str]:
    """Say which nodes run an older PostgreSQL than another one: a restore onto such a version can fail."""
    newest = max(candidate.version_num for candidate in candidates)
    older = [candidate for candidate in candidates if 0 < candidate.version_num < newest]
    return [
        f"{candidate.node} runs PostgreSQL {release(candidate.version_num)}, and another node {release(newest)}: "
        f"where this is restored onto the older version, what the newer one wrote may be refused; upgrade "
        f"{candidate.node}"
        for candidate in older
    ]


def release(version_num: int) -> str:
    """Return a version as people write it: 15.4 of 150004."""
    return f"{version_num // 10000}.{version_num % 10000}"


def only_primary(candidates: Sequence[DumpCandidate]) -> DumpCandidate:
    """Find the one primary.

    Raises:
        Refused: there is none, or there are two.
    """
    primaries = [c for c in candidates if c.role == "primary"]
    if len(primaries) > 1:
        raise Refused(
            "Two nodes say that they are the primary.",
            [
                f"{', '.join(c.node for c in primaries)}: run `check`; a backup of the wrong one is worse than none."
            ],
        )
    if not primaries:
        reasons = [f"{c.node}: {c.error or 'a standby whose primary is not there'}" for c in candidates]
        raise Refused("No primary answers, so nobody can say which data is the newest.", reasons)
    return primaries[0]


def _unfit(candidate: DumpCandidate, primary: DumpCandidate) -> str:
    if candidate.role != "standby":
        return f"did not answer ({candidate.error})"
    if not candidate.streaming:
        return "does not stream from the primary"
    return f"is {primary.lsn - candidate.lsn:,} bytes behind"
