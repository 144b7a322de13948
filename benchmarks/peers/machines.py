"""Three machines of the lab with a peer's packages: two for databases, one for what watches them."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab import creation, engine, images, keys
from lab.images import REPOSITORY_PREFIX, Images
from lab.shell import LabError, alone, in_parallel, run, step
from lab.site_lab import Lab
from lab.state import known_labs, remember
from lab.subnets import docker_subnets
from lab.topology import NODES, PAIR, STATE, Topology, free_subnet

NAME = "peers"
WATCHER = "node-c"
_BUILD_LIMIT_S = 540.0

# Like everything on the nodes from Debian's own packages; nothing of it starts before its settings are there.
_RECIPE = """
RUN printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \\
 && mkdir -p /etc/postgresql-common/createcluster.d \\
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/none.conf \\
 && major=$(cat /usr/share/lab-postgresql-major) && apt-get -q update \\
 && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends postgresql-$major \\
    patroni python3-etcd etcd-server pg-auto-failover-cli postgresql-$major-auto-failover \\
 && systemctl disable patroni.service etcd.service postgresql.service \\
 && rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d
"""

# The version of each package as the node has it.
_VERSIONS = ("dpkg-query", "-W", "-f", "${Version}")


class Machines:
    """Two database nodes and a third machine, each with all peers' packages and none of them set up.

    Attributes:
        lab: cuts their power and switches them on again.
        major: of the PostgreSQL that they have.
    """

    def __init__(self, lab: Lab, major: int) -> None:
        self.lab = lab
        self.major = major

    @property
    def programs(self) -> str:
        """The directory of PostgreSQL's programs."""
        return f"/usr/lib/postgresql/{self.major}/bin"

    @property
    def network(self) -> str:
        """The network that they share, as pg_hba.conf names it."""
        return str(self.lab.topology.subnet)

    def address(self, machine: str) -> str:
        """The address of a machine."""
        return self.lab.node_address(machine)

    def run(self, machine: str, *argv: str, stdin: str = "", timeout: float = 60.0) -> str:
        """Run a command as root and return what it wrote.

        Raises:
            LabError: it failed.
        """
        return self.lab.exec(machine, argv, stdin=stdin, timeout=timeout).stdout

    def run_as_postgres(self, machine: str, *argv: str, timeout: float = 60.0) -> str:
        """Run a command as PostgreSQL's user, in its home.

        Raises:
            LabError: it failed.
        """
        return self.run(machine, "sudo", "-iu", "postgres", *argv, timeout=timeout)

    def write(self, machine: str, path: str, text: str) -> None:
        """Write a file that everybody may read."""
        self.run(machine, "install", "-D", "-m", "644", "/dev/stdin", path, stdin=text)

    def version(self, package: str) -> str:
        """The version of a package on the nodes."""
        return self.run(PAIR[0], *_VERSIONS, package).strip()

    def kill_postmaster(self, node: str, data: str) -> None:
        """Kill PostgreSQL's first process, so that it cannot write anything any more; its children follow it."""
        self.run(node, "sh", "-c", 'kill -9 "$(head -n 1 "$1/postmaster.pid")"', "sh", data)


@contextmanager
def machines() -> Iterator[Machines]:
    """Bring up bare machines, and remove them with all that belongs to them, whatever happens.

    Raises:
        LabError: the engine or the packages cannot be had here.
    """
    lab = Lab(NAME)
    logs = STATE / NAME
    logs.mkdir(parents=True, exist_ok=True)
    engine.ensure_engine(logs)
    nodes = images.ensure_images({})
    built = Images({node: _with_packages(image) for node, image in nodes.nodes.items()}, "")
    lab.down()  # what a run before this one could not take away
    try:
        with step("Bring up three bare machines"):
            topology = _new_topology()
            keys.ensure_keys(topology)
            creation.ensure_network(topology)
            creation.create_machines(topology, tuple(NODES), built)
            in_parallel(lab.start, NODES)
        yield Machines(lab, images.postgres_majors(nodes)[PAIR[0]])
    finally:
        with step("Remove the machines"):
            lab.down()


def _with_packages(image: str) -> str:
    """The image of a node with the peers' packages on it, built when it is missing."""
    recipe = f"FROM {image}{_RECIPE}"
    tag = f"{REPOSITORY_PREFIX}/{NAME}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with alone(STATE / "images.lock"):
        if run(["docker", "image", "inspect", tag], check=False).returncode:
            with step("Install the peers' packages"):
                argv = ["docker", "build", "--network", "host", "--force-rm", "--tag", tag, "-"]
                run(argv, stdin=recipe, timeout=_BUILD_LIMIT_S, log=STATE / "images.log")
    return tag


def _new_topology() -> Topology:
    with alone(STATE / "subnets.lock"):
        taken = [lab.subnet for lab in known_labs().values()]
        made = Topology(NAME, free_subnet([*taken, *docker_subnets()]), secrets.token_hex(8))
        remember(made)
    return made


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        LabError: it did not within `limit_s` seconds.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"Not within {limit_s:.0f} s: {what}.")
        time.sleep(0.5)
