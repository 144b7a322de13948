"""What this clone of the repository remembers of its labs."""

import ipaddress
import json
from contextlib import suppress

from lab.topology import STATE, Topology


def known_labs() -> dict[str, Topology]:
    """The labs that were brought up from this clone and not taken down, by name."""
    known = {}
    for file in sorted(STATE.glob("*/lab.json")):
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(file.read_text())
            network = ipaddress.IPv4Network(note["subnet"])
            releases = note.get("releases", {})
            harbor = str(note.get("harbor", ""))
            known[file.parent.name] = Topology(file.parent.name, network, str(note["mark"]), releases, harbor)
    return known


def remember(lab: Topology) -> None:
    """Write a lab down, before the first part of it exists."""
    lab.directory.mkdir(parents=True, exist_ok=True)
    note = {
        "subnet": str(lab.subnet),
        "mark": lab.mark,
        "releases": dict(lab.releases),
        "harbor": lab.harbor,
    }
    (lab.directory / "lab.json").write_text(json.dumps(note) + "\n")
