"""A site and nodes in a directory, for tests of what runs on Harbor's nodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from blocks import HarborSite, read_site_file
from tasks.hosts.connection import Completed, Host
from tests.unit.local_host import LocalHost
from tests.unit.site_on_disk import NOW, correct_site


def make_site(directory: Path, **harbor: Any) -> HarborSite:
    """A correct site; keyword arguments replace settings of its `harbor` part."""
    on_disk = correct_site(directory)
    on_disk.data["harbor"].update(harbor)
    return read_site_file(on_disk.write(), now=NOW)


def make_dark_site(directory: Path) -> HarborSite:
    """A correct site of which every machine is off: at their addresses, of loopback, nobody listens."""
    site = make_site(directory)
    for number, node in enumerate(site.nodes):
        node.address, node.port = f"127.0.0.{number + 2}", 9
    site.redis.host, site.redis.port = "127.0.0.4", 9
    site.balancer.address = site.balancer.admin_host = "127.0.0.5"
    site.balancer.admin_port = 9
    return site


class NodeInDirectory(LocalHost):
    """A node whose programs really run, on this machine, with their state in a directory of the test."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.calls: list[Any] = []

    def python(
        self, source: str, payload: object = None, *, timeout: float = 30.0, user: str | None = None
    ) -> Any:
        self.calls.append(payload)
        here = source.replace("/var/lib/harbor-ha", str(self.state))
        return super().python(here, payload, timeout=timeout, user=user)

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        return super().run(argv, **options)

    def as_host(self) -> Host:
        """This node, for functions that take a Host."""
        return cast(Host, self)


def program(directory: Path, name: str, body: str) -> Path:
    """Write an executable shell script."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return path
