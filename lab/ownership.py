"""Which clone of this repository a lab belongs to, and what is done with one that was left behind.

Containers outlive the clone that made them, and two clones may choose one name. A `make test` in a new clone
once took the Redis and the bucket that another clone had left standing for its own; no password fitted.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from lab.images import REPOSITORY_PREFIX
from lab.shell import LabError, docker
from lab.topology import LABEL, OWNER, Topology

# How the engine lists what a lab is made of, and removes it. Containers first: they hold the rest.
_KINDS = (
    (("ps", "-a", "--format", "{{.ID}}"), ("rm", "-f", "-v")),
    (("volume", "ls", "--format", "{{.Name}}"), ("volume", "rm")),
    (("network", "ls", "--format", "{{.ID}}"), ("network", "rm")),
)


@dataclass(frozen=True)
class Owner:
    """The state of a lab, as everything that was made for the lab is labelled.

    Attributes:
        mark: drawn once for each lab; a later lab in the same place has another.
        directory: where the state was kept.
    """

    mark: str
    directory: Path

    @classmethod
    def read(cls, label: str) -> "Owner":
        """Read a label; what was made before there were labels has an empty one."""
        mark, _, directory = label.partition(":")
        return cls(mark, Path(directory))

    def lives(self) -> bool:
        """Whether that state is still there; without its keys and passwords nobody can use the lab."""
        try:
            note = json.loads((self.directory / "lab.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(self.mark) and isinstance(note, dict) and note.get("mark") == self.mark


def owners(name: str) -> set[Owner]:
    """Whose the parts of a lab of this name are, as the engine has them."""
    return {Owner.read(label) for listing, _ in _KINDS for _, label in _listed(listing, name)}


def left_behind(name: str, mine: Topology | None) -> bool:
    """Whether there are parts of a lab of this name that nobody can use any more.

    Args:
        name: the lab's name.
        mine: the lab of this name that this clone knows, if it knows one.

    Raises:
        LabError: the lab of this name belongs to another clone.
    """
    others = sorted(owners(name) - {mine and Owner.read(mine.owner)}, key=str)
    for other in others:
        if other.lives():
            raise LabError(
                f"The lab {name!r} belongs to another clone of this repository.",
                where=str(other.directory.parents[1]),
                remedy="Choose another name (`--name`; HARBOR_HA_LAB for the demo, HARBOR_HA_TEST_LAB for "
                f"the tests), or take that lab down in its own clone: python -m lab --name {name} down",
            )
    return bool(others)


def remove(name: str) -> None:
    """Remove the containers, volumes, networks and saved copies of a lab of this name."""
    for listing, removal in _KINDS:
        found = [part for part, _ in _listed(listing, name)]
        if found:
            docker(*removal, *found, timeout=120)
    pattern = f"reference={REPOSITORY_PREFIX}/saved-{name}-*"
    for image in docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", pattern).split():
        docker("rmi", image, check=False)


def _listed(listing: tuple[str, ...], name: str) -> list[tuple[str, str]]:
    """Parts of one kind, each with its owner's label."""
    *command, layout = listing
    layout += f' {{{{.Label "{OWNER}"}}}}'
    lines = docker(*command, layout, "--filter", f"label={LABEL}={name}").splitlines()
    return [(part, label) for part, _, label in (line.partition(" ") for line in lines)]
