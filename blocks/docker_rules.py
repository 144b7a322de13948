"""What Docker takes for a mirror and for a registry without TLS; each value was given to a real dockerd, 20.10."""

import ipaddress
import re
from urllib.parse import urlsplit

from blocks.flaw import Flaw, shown

_HOST_PORT = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:(?P<port>[0-9]{1,5}))?"
)


def mirrors(value: list[str]) -> Flaw | None:
    """With one that it does not take, Docker does not start any more."""
    for mirror in value:
        if not mirror.startswith(("http://", "https://")):
            return Flaw(f"{shown(mirror)} has no scheme", f"https://{shown(mirror)}")
        try:
            parts = urlsplit(mirror)
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            return Flaw(f"{shown(mirror)} is not an address", "such as https://mirror.example.com")
        plain = f"{parts.scheme}://{parts.hostname or ''}{port}"
        if parts.username is not None:
            return Flaw("one has a user or a password in it, which Docker does not take", plain)
        if parts.path not in ("", "/") or parts.query or parts.fragment or not parts.hostname:
            return Flaw(
                f"{shown(mirror)} has more than scheme, name and port, which Docker does not take", plain
            )
    return None


def insecure_registries(value: list[str]) -> Flaw | None:
    """Docker wants host:port here, or a network; with anything else it does not start any more."""
    for registry in value:
        if "://" in registry:
            return Flaw(f"{shown(registry)} has a scheme", shown(registry).partition("://")[2])
        host = _HOST_PORT.fullmatch(registry)
        if not (is_network(registry) or (host and int(host["port"] or 1) <= 65535)):
            right = "a name or an address, with a port or without, or a network such as 10.20.0.0/16"
            return Flaw(f"{shown(registry)!r} is nothing that Docker takes", right)
    return None


def is_network(value: str) -> bool:
    """Whether the text is a network with its prefix; host bits do not matter to Docker."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value
