"""Make the containers of a lab: network, volumes, services, and hosts with an identity of their own."""

import io
import tarfile
import time
from collections.abc import Sequence

from lab import keys, machines
from lab.images import Images
from lab.keys import KeyPair
from lab.shell import docker, in_parallel, run
from lab.topology import NODES, ORCHESTRATOR, Topology


def create_machines(topology: Topology, missing: Sequence[str], built: Images) -> None:
    """Create the containers that are missing, without starting them.

    Raises:
        LabError: the engine refuses one, or this machine gives a container too few rights to be a host.
    """
    powers = {
        image: machines.find_powers(image)
        for image in {built.nodes[node] for node in NODES if node in missing}
    }
    disks = [f"{node}-{part}" for node in NODES for part in ("docker", "containerd")]
    for purpose in ("nas", "redis", "oss", *disks):
        docker("volume", "create", *topology.labels, topology.volume(purpose))

    def create(machine: str) -> None:
        if machine in NODES:
            image = built.nodes[machine]
            docker("create", *machines.node_arguments(topology, machine, image, powers[image]))
            identity = keys.ssh_pair(topology, f"{machine}-host-key"), keys.ssh_pair(topology, "ssh-key")
            docker("cp", "-", f"{topology.container(machine)}:/", stdin=_identity(*identity))
        elif machine == "redis":
            docker("create", *machines.redis_arguments(topology, built.services))
        elif machine == "lb":
            docker("create", *machines.balancer_arguments(topology, built.services))
        else:
            rights = keys.OSS_ACCESS_KEY_ID, topology.secrets / "oss-access-key-secret"
            docker("create", *machines.oss_arguments(topology, built.services, *rights))

    in_parallel(create, missing)


def _identity(host_key: KeyPair, login_key: KeyPair) -> bytes:
    """A tar archive of what makes a bare host this one: its host key, and who may log in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text, mode in (
            ("etc/ssh/ssh_host_ed25519_key", host_key.private, 0o600),
            ("etc/ssh/ssh_host_ed25519_key.pub", host_key.public + "\n", 0o644),
            ("root/.ssh/authorized_keys", login_key.public + "\n", 0o600),
        ):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(text), mode, int(time.time())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def ensure_network(topology: Topology) -> None:
    """Create the lab's network when it is missing."""
    if run(["docker", "network", "inspect", topology.network], check=False).returncode:
        addresses = ("--subnet", str(topology.subnet), "--gateway", topology.address(ORCHESTRATOR))
        docker("network", "create", *topology.labels, *addresses, topology.network)
