"""A site on a lab, for tests: its flows as processes, its nodes past the network, its clients."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from blocks import HarborSite
from blocks.site_file import read_site_file
from blocks.store import remember
from lab.faults.processes import Nursery, Run
from lab.site_lab import Lab
from tasks.hosts.connection import Host, connect
from tasks.postgres.layout import layout_of


@dataclass
class LabSite:
    """The site that the lab's site file describes; whether it stands is asked, not known.

    Args:
        lab: the lab, up.
        nursery: forks the flows' processes.
    """

    lab: Lab
    nursery: Nursery

    @property
    def site(self) -> HarborSite:
        """The site as its file describes it."""
        return read_site_file(self.lab.site_file)

    @property
    def name(self) -> str:
        """The site's name, which is the lab's."""
        return self.lab.name

    def flow(self, name: str, **parameters: Any) -> Run:
        """Call a flow in a process of its own; it is not waited for."""
        return self.nursery.flow(name, site=self.name, **parameters)

    def bootstrap(self, **parameters: Any) -> Run:
        """Run bootstrap to its end."""
        return self.flow("bootstrap", **parameters).wait(900)

    def variant(self, document: dict[str, Any], directory: Path, *, now: datetime | None = None) -> Run:
        """Run bootstrap with another site file, which is not saved.

        Args:
            document: the site file's content.
            directory: where it is written.
            now: the time at which the file counts as read; what it names may have expired since.
        """
        file = directory / "site.yml"
        file.write_text(yaml.safe_dump(document))
        given = {"site_file": str(file), "now": now.isoformat() if now else None}
        return self.nursery.call("variant", "tests.lab.site:bootstrap_of", **given).wait(300)

    def stands(self) -> bool:
        """Whether all nodes have the site's database and run Harbor."""
        layout = layout_of(self.site)
        script = f"test -e {layout.record} && test $(docker ps -q | wc -l) -ge 7"
        return all(self.holds(node.name, script) for node in self.site.nodes)

    def document(self, name: str = "site.yml") -> dict[str, Any]:
        """The content of the lab's site file, or of `site-disaster.yml`, which has the third node alone."""
        file = self.lab.site_file if name == "site.yml" else self.lab.topology.directory / name
        document: dict[str, Any] = yaml.safe_load(file.read_text())
        return document

    def host(self, node: str) -> Host:
        """A node over SSH."""
        return connect(self.site.node(node))

    def shell(self, node: str, script: str, *, check: bool = True, timeout: float = 60.0) -> str:
        """Run a script as root on a node, past the network."""
        return self.lab.exec(node, ["bash", "-c", script], check=check, timeout=timeout).stdout.strip()

    def holds(self, node: str, condition: str) -> bool:
        """Whether a shell condition holds on a node right now."""
        return self.lab.exec(node, ["bash", "-c", condition], check=False).returncode == 0

    def everything(self, node: str) -> str:
        """Everything on a node that stands still and that bootstrap might change: files, mounts, services."""
        return self.shell(node, f"{_ALL_FILES}\n{_MOUNTS}\n{_SERVICES}")

    def configuration(self, node: str) -> str:
        """What bootstrap set up on a node that is in use: files, mounts, services, containers."""
        return self.shell(node, f"{_CONFIGURATION}\n{_MOUNTS}\n{_SERVICES}\ndocker ps -q --no-trunc | sort")


def bootstrap_of(site_file: str, now: str | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Run bootstrap with a site file's site, kept in this process's memory only."""
    from flows.bootstrap import bootstrap

    site = read_site_file(Path(site_file), now=datetime.fromisoformat(now) if now else None)
    remember(site)
    answer: dict[str, Any] = bootstrap(site.name, dry_run)
    return answer


_ALL_FILES = """
find /etc /opt /usr/local /data /root /var/lib/harbor-ha /var/lib/dpkg /var/lib/apt /var/cache/apt /var/tmp \\
  -xdev -not -path /var/tmp \\
  -printf '%p %y %s %m %T@ %l\\n' 2>/dev/null | sort"""
_CONFIGURATION = """
find /etc /opt /usr/local /data/harbor/secret /var/lib/dpkg/status /var/lib/harbor-ha/cluster.json \\
  /var/lib/harbor-ha/harbor_*.json -xdev -type f -printf '%p %s %m %T@\\n' | sort"""
_MOUNTS = "cut -d' ' -f4- /proc/self/mountinfo | grep -v overlay | sort"
_SERVICES = (
    "systemctl list-units --type=service --state=running --no-legend --plain | cut -d' ' -f1 | grep -v ^user"
)
