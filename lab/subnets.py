"""Which networks of this machine are taken."""

import ipaddress

from lab.shell import docker


def docker_subnets() -> list[ipaddress.IPv4Network]:
    """Networks of everything on this machine's Docker engine."""
    networks = docker("network", "ls", "-q").split()
    layout = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    subnets = docker("network", "inspect", "--format", layout, *networks).split()
    return [ipaddress.IPv4Network(subnet) for subnet in subnets if "." in subnet]
