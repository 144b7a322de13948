"""Who is who in a lab: names, addresses and the places where its state is kept. Pure."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.shell import LabError

REPOSITORY = Path(__file__).resolve().parents[1]
STATE = REPOSITORY / ".lab"

HOSTNAME = "harbor.lab"
BUCKET = "harbor-backup"
REGION = "cn-lab"
# OSS speaks S3 under another name than its own protocol, with the bucket in front of it.
S3_HOST = "s3.oss.lab"
S3_PORT = 9443
ORCHESTRATOR = "orchestrator"

NODES = {"node-a": 11, "node-b": 12, "node-c": 13}
PAIR = ("node-a", "node-b")
SERVICES = {"redis": 21, "lb": 22, "oss": 23}

FIRST_SUBNET = ipaddress.IPv4Network("172.30.90.0/24")
LABEL = "harbor-ha.lab"
OWNER = "harbor-ha.owner"


@dataclass(frozen=True)
class Topology:
    """One lab.

    Attributes:
        name: its name.
        subnet: its network.
        mark: drawn when it was first brought up; what was made for it is known by that.
        releases: code name of the release that each node runs; a node that is not in it runs the usual one.
        harbor: the version of the miniature Harbor; "" is the usual one.
    """

    name: str
    subnet: ipaddress.IPv4Network
    mark: str
    releases: Mapping[str, str] = field(default_factory=dict, hash=False)
    harbor: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if len({self.releases.get(node) for node in PAIR}) > 1:
            raise LabError(
                f"{' and '.join(PAIR)} replicate to each other and must run one release: WAL is of one major version "
                "of PostgreSQL.",
                remedy="Give node-c alone another one: --release node-c=…",
            )
        if self.subnet.prefixlen > 27:
            raise LabError(
                f"The subnet {self.subnet} is too small.", remedy="Give a /27 or larger, e.g. a /24."
            )

    @property
    def directory(self) -> Path:
        """Keys, certificates, logs and notes of this lab."""
        return STATE / self.name

    @property
    def owner(self) -> str:
        """Label of everything that is made for this lab: which lab of which clone."""
        return f"{self.mark}:{self.directory}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Arguments for every `docker … create`: what the lab is found by."""
        return ("--label", f"{LABEL}={self.name}", "--label", f"{OWNER}={self.owner}")

    @property
    def secrets(self) -> Path:
        """What the site file refers to as `{file: …}`; mode 0700."""
        return self.directory / "secrets"

    @property
    def site_file(self) -> Path:
        """The site file: `lab/site.yml` for the default lab, beside its state for the others."""
        return REPOSITORY / "lab" / "site.yml" if self.name == "demo" else self.directory / "site.yml"

    @property
    def network(self) -> str:
        """Name of the Docker network."""
        return f"{self.name}-net"

    def container(self, machine: str) -> str:
        """Name of the container of a machine.

        Raises:
            LabError: the lab has no such machine.
        """
        if machine not in NODES | SERVICES:
            raise LabError(
                f"The lab has no machine {machine!r}.", remedy=f"It has: {', '.join(NODES | SERVICES)}."
            )
        return f"{self.name}-{machine}"

    def volume(self, purpose: str) -> str:
        """Name of a Docker volume."""
        return f"{self.name}-{purpose}"

    def address(self, machine: str) -> str:
        """Address of a machine; the orchestrator is this host, seen at the network's gateway.

        Raises:
            LabError: the lab has no such machine.
        """
        if machine == ORCHESTRATOR:
            return str(self.subnet.network_address + 1)
        self.container(machine)
        return str(self.subnet.network_address + (NODES | SERVICES)[machine])


def check_name(name: str) -> None:
    """Refuse a lab name that Docker or a file system could not carry.

    Raises:
        LabError: with the accepted form.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,20}", name):
        raise LabError(
            f"{name!r} cannot be the name of a lab.",
            remedy="Use at most 21 lower-case letters, digits and dashes, with a letter first.",
        )


def read_releases(words: Sequence[str]) -> dict[str, str]:
    """Read what `--release` was given: a release for all nodes, or `NODE=RELEASE`, which comes before that.

    Raises:
        LabError: there is no such node.
    """
    single = dict(word.split("=", 1) for word in words if "=" in word)
    for node in single.keys() - NODES.keys():
        raise LabError(f"The lab has no node {node!r}.", remedy=f"It has: {', '.join(NODES)}.")
    for_all = [word for word in words if "=" not in word]
    return {**(dict.fromkeys(NODES, for_all[-1]) if for_all else {}), **single}


def free_subnet(taken: list[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first subnet from 172.30.90.0/24 on that overlaps with nothing that is taken.

    Raises:
        LabError: thirty labs exist already.
    """
    first = int(FIRST_SUBNET.network_address)
    for offset in range(30):
        candidate = ipaddress.IPv4Network((first + (offset << 8), 24))
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise LabError("No free subnet was found for this lab.", remedy="Choose one with --subnet.")
