"""How the machines of a lab are run as containers. The argument lists are pure."""

import json
from dataclasses import dataclass
from pathlib import Path

from lab.shell import LabError, docker, run
from lab.topology import (
    BUCKET,
    HOSTNAME,
    LABEL,
    NODES,
    ORCHESTRATOR,
    REGION,
    REPOSITORY,
    S3_HOST,
    S3_PORT,
    Topology,
)


@dataclass(frozen=True)
class Powers:
    """How a container may get the rights of a real host on this machine."""

    arguments: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What the engine says of one container.

    Attributes:
        running: it has power.
        complete: it was started at least once; else its creation may have been interrupted half-way.
    """

    running: bool
    complete: bool


def find_powers(image: str) -> Powers:
    """Try which rights this machine can give to a node; both cgroup versions, with and without --privileged.

    Raises:
        LabError: none of the ways works.
    """
    version = docker("info", "--format", "{{.CgroupVersion}}").strip()
    refusals = []
    for candidate in candidates(version):
        probe = ["docker", "run", "--rm", "--network", "none", *candidate.arguments, image, "/bin/true"]
        done = run(probe, check=False)
        if done.returncode == 0:
            return candidate
        refusals.append(done.stderr.strip())
    raise LabError(
        "This machine gives a container too few rights to be a host: " + " / ".join(refusals),
        remedy="Run the lab as root on a machine or virtual machine of its own.",
    )


def candidates(cgroup_version: str) -> tuple[Powers, ...]:
    """The ways to try, best first.

    Args:
        cgroup_version: "1" or "2", as `docker info` says.
    """
    free = ("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")
    # --privileged fails where this machine's own root lacks a capability; sandboxes keep SYS_RESOURCE back.
    without = ("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", *free)
    if cgroup_version == "2":
        private = ("--cgroupns=private",)
        shared = ("--cgroupns=host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw")
        return Powers(("--privileged", *private)), Powers((*without, *shared))
    groups = ("-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro")
    # Not --privileged: with version 1 a node needs nothing of it, and it hands over the machine's devices.
    return Powers(("--cap-add", "ALL", *free, *groups)), Powers((*without, *groups))


def node_arguments(lab: Topology, node: str, image: str, powers: Powers) -> list[str]:
    """Arguments of `docker create` for one bare host.

    `/run` is lost at a stop as at a reboot; everything else is disk and stays.
    """
    return [
        *_common(lab, node),
        *powers.arguments,
        *("--hostname", node, "--add-host", f"{HOSTNAME}:{lab.address('lb')}"),
        *("--add-host", f"{BUCKET}.{S3_HOST}:{lab.address('oss')}"),
        *("--tmpfs", "/run", "--tmpfs", "/run/lock"),
        # PostgreSQL's parallel workers need more than the 64 MB that a container gets.
        *("--shm-size", "512m"),
        # The inner engine cannot put overlayfs on overlayfs.
        *("-v", f"{lab.volume(f'{node}-docker')}:/var/lib/docker"),
        *("-v", f"{lab.volume(f'{node}-containerd')}:/var/lib/containerd"),
        *("-v", f"{lab.volume('nas')}:/mnt/nas"),
        image,
    ]


def redis_arguments(lab: Topology, image: str) -> list[str]:
    """Arguments of `docker create` for the shared Redis."""
    settings = lab.directory / "redis"
    mounts = ("-v", f"{settings}:/etc/lab:ro", "-v", f"{lab.volume('redis')}:/data")
    return [*_common(lab, "redis"), *_service(), *mounts, image, "redis-server", "/etc/lab/redis.conf"]


def balancer_arguments(lab: Topology, image: str) -> list[str]:
    """Arguments of `docker create` for HAProxy."""
    mounts = ("-v", f"{lab.directory / 'haproxy'}:/etc/lab:ro")
    return [
        *_common(lab, "lb"),
        *_service(),
        *mounts,
        image,
        "haproxy",
        "-W",
        "-db",
        "-f",
        "/etc/lab/haproxy.cfg",
    ]


def oss_arguments(lab: Topology, image: str, access_key_id: str, secret_file: Path) -> list[str]:
    """Arguments of `docker create` for the OSS server."""
    mounts = (
        *("-v", f"{REPOSITORY / 'lab'}:/srv/lab:ro"),
        *("-v", f"{secret_file}:/etc/lab/access-key-secret:ro"),
        *("-v", f"{lab.directory / 'oss.pem'}:/etc/lab/oss.pem:ro"),
        *("-v", f"{lab.secrets / 'oss-key'}:/etc/lab/oss.key:ro"),
        *("-v", f"{lab.volume('oss')}:/data"),
    )
    program = ("python3", "-B", "-m", "lab.oss", "--host", "0.0.0.0", "--port", "9000", "--data", "/data")
    rights = ("--access-key-id", access_key_id, "--access-key-secret-file", "/etc/lab/access-key-secret")
    bucket = ("--bucket", BUCKET, "--region", REGION, "--admin-from", f"{lab.address(ORCHESTRATOR)}/32")
    secure = ("--tls-port", str(S3_PORT), "--certificate", "/etc/lab/oss.pem")
    key = ("--certificate-key", "/etc/lab/oss.key")
    settings = ("-e", "PYTHONPATH=/srv", "-e", "PYTHONUNBUFFERED=1", *mounts)
    return [*_common(lab, "oss"), *_service(), *settings, image, *program, *bucket, *rights, *secure, *key]


def states(lab: Topology) -> dict[str, State]:
    """What stands of a lab, by machine name."""
    listing = docker("ps", "-aq", "--filter", f"label={LABEL}={lab.name}").split()
    if not listing:
        return {}
    return {
        container["Name"].removeprefix(f"/{lab.name}-"): State(
            running=bool(container["State"]["Running"]), complete=container["State"]["Status"] != "created"
        )
        for container in json.loads(docker("inspect", *listing))
    }


def is_node(machine: str) -> bool:
    """Whether a machine is a host, and not a service."""
    return machine in NODES


def _common(lab: Topology, machine: str) -> tuple[str, ...]:
    return (
        *("--name", lab.container(machine), *lab.labels),
        *("--network", lab.network, "--ip", lab.address(machine)),
    )


def _service() -> tuple[str, ...]:
    # NET_ADMIN: a service can be cut off as well as a node.
    # --init: as PID 1 a program would ignore the signals that it has no handler for.
    return ("--cap-add", "NET_ADMIN", "--init")
