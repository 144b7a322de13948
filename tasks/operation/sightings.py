"""Who could see each node while it was last in service: the note by which witnesses may vote later.

A witness that never saw a node cannot lose it. A Redis behind a proxy, a node addressed by a name or with a second
interface: its absence from a list said "lost", and the standby was promoted beside a living primary.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

BALANCER = "balancer"
REDIS = "redis"

# A living client of Redis may be silent for the moment of one look, and a check of the load balancer may just fail;
# whoever has not seen the node in five looks, one a minute, does not see it.
RECENT_S = 300.0


@dataclass(frozen=True)
class NodeSeen:
    """One node, as it was seen.

    Attributes:
        since: wall time of the first look of which this note tells.
        at: wall time of the last look at which the node was in service.
        witnesses: when each was last known to see it: `balancer`, `redis`, and the names of nodes that could open
            its PostgreSQL port.
        addresses: all IP addresses that it has, as it said itself and as its name resolved.
    """

    since: float
    at: float
    witnesses: Mapping[str, float]
    addresses: frozenset[str]

    @property
    def saw(self) -> frozenset[str]:
        """Who saw it when it was last in service."""
        return frozenset(who for who, at in self.witnesses.items() if at >= self.at - RECENT_S)

    @property
    def settled(self) -> bool:
        """Whether it has been looked at for long enough to say who does not see it."""
        return self.at - self.since >= RECENT_S


@dataclass(frozen=True)
class Sightings:
    """The note.

    Attributes:
        at: wall time of the look that wrote it.
        nodes: by name.
    """

    at: float
    nodes: Mapping[str, NodeSeen]

    def with_node(self, name: str, witnesses: Iterable[str], addresses: Iterable[str]) -> "Sightings":
        """Add what this look has seen of a node that is in service."""
        before = self.nodes.get(name)
        # A clock that was set back makes the times of the note come from the future; then it begins anew.
        known = before if before is not None and before.at <= self.at else None
        kept = {who: at for who, at in known.witnesses.items() if at >= self.at - RECENT_S} if known else {}
        seen = NodeSeen(
            since=known.since if known else self.at,
            at=self.at,
            witnesses={**kept, **dict.fromkeys(witnesses, self.at)},
            addresses=frozenset(addresses),
        )
        return replace(self, nodes={**self.nodes, name: seen})

    def to_json(self) -> str:
        """Write it, sorted, so that equal notes are equal files."""
        nodes = {
            name: {
                "since": seen.since,
                "at": seen.at,
                "witnesses": dict(seen.witnesses),
                "addresses": sorted(seen.addresses),
            }
            for name, seen in self.nodes.items()
        }
        return json.dumps({"at": self.at, "nodes": nodes}, sort_keys=True) + "\n"


def sightings_from(value: Any) -> Sightings | None:
    """Read a note from decoded JSON; None when there is none or it is damaged: then nobody is known to see."""
    try:
        nodes = {str(name): _node(row) for name, row in value["nodes"].items()}
        return Sightings(float(value["at"]), nodes)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def newest(notes: Iterable[Any]) -> Sightings | None:
    """Choose the newest of the notes that nodes hold, as decoded JSON."""
    read = [note for note in map(sightings_from, notes) if note is not None]
    return max(read, key=lambda note: note.at, default=None)


def _node(row: Any) -> NodeSeen:
    return NodeSeen(
        since=float(row["since"]),
        at=float(row["at"]),
        witnesses={str(who): float(at) for who, at in row["witnesses"].items()},
        addresses=frozenset(map(str, row["addresses"])),
    )
