"""Which networks are taken: by the labs of this repository and by others on the same Docker engine."""

import ipaddress
import json
from contextlib import suppress

from lab.shell import docker
from lab.topology import STATE


def known_labs() -> list[str]:
    """Names of the labs that were brought up from this repository and not taken down."""
    return sorted(known_subnets())


def known_subnets() -> dict[str, ipaddress.IPv4Network]:
    """Networks of the labs of this repository, by lab."""
    known = {}
    for file in STATE.glob("*/lab.json"):
        with suppress(OSError, ValueError):
            known[file.parent.name] = ipaddress.IPv4Network(json.loads(file.read_text())["subnet"])
    return known


def docker_subnets() -> list[ipaddress.IPv4Network]:
    """Networks of everything on this machine's Docker engine."""
    networks = docker("network", "ls", "-q").split()
    layout = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    subnets = docker("network", "inspect", "--format", layout, *networks).split()
    return [ipaddress.IPv4Network(subnet) for subnet in subnets if "." in subnet]
