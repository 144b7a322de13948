"""Cut the network between two machines of a lab, and heal it. The scripts are pure."""

import json
from collections.abc import Iterable
from pathlib import Path

from lab.shell import LabError
from lab.topology import ORCHESTRATOR, Topology

Cut = tuple[str, str]

_CHAIN = "HARBOR_HA_CUT"


def ordered(end: str, other: str) -> Cut:
    """One cut, the same whichever end is named first.

    Raises:
        LabError: both ends are the same machine.
    """
    if end == other:
        raise LabError(f"A network cannot be cut between {end} and itself.")
    return (end, other) if end < other else (other, end)


def peers(machine: str, cuts: Iterable[Cut]) -> list[str]:
    """From whom a machine is cut off."""
    return sorted({b if a == machine else a for a, b in cuts if machine in (a, b)})


def script(addresses: Iterable[str]) -> str:
    """A shell script that cuts a machine off from addresses, and from no others.

    `raw PREROUTING` and `mangle POSTROUTING` see forwarded packets as well: Harbor runs in containers on the
    node, and a cut that only looked at INPUT and OUTPUT would leave its database connections alive. Packets
    are dropped, not rejected: a dead network does not say so.
    """
    addresses = list(addresses)
    lines = ["set -e"]
    for table, hook, side in (("raw", "PREROUTING", "-s"), ("mangle", "POSTROUTING", "-d")):
        iptables = f"iptables -w 10 -t {table}"
        lines += [
            f"{iptables} -N {_CHAIN} 2>/dev/null || {iptables} -F {_CHAIN}",
            *(f"{iptables} -A {_CHAIN} {side} {address} -j DROP" for address in addresses),
            f"{iptables} -C {hook} -j {_CHAIN} 2>/dev/null || {iptables} -I {hook} 1 -j {_CHAIN}",
        ]
        if not addresses:
            lines += [f"{iptables} -D {hook} -j {_CHAIN}", f"{iptables} -X {_CHAIN}"]
    return "\n".join(lines) + "\n"


def recorded(lab: Topology) -> set[Cut]:
    """The cuts that are in force; they are kept in a file because a node forgets its rules at a power cut."""
    file = _file(lab)
    return {(end, other) for end, other in json.loads(file.read_text())} if file.exists() else set()


def record(lab: Topology, cuts: Iterable[Cut]) -> None:
    """Remember which cuts are in force."""
    _file(lab).write_text(json.dumps(sorted(cuts)) + "\n")


def ends(cut: Cut) -> list[str]:
    """The ends of a cut that are machines of the lab; this host's own packet filter is not touched."""
    return [end for end in cut if end != ORCHESTRATOR]


def _file(lab: Topology) -> Path:
    return lab.directory / "cuts.json"
