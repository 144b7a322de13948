"""Keep the nodes of a lab as they are, and bring them back: a failover test need not bootstrap first.

The machines are shut down properly before they are copied and boot afterwards, as after a planned outage.
What is kept: the nodes' disks and what they share (NAS, Redis, the bucket). Cuts are not.
"""

from pathlib import Path

from lab.creation import create_machines
from lab.images import REPOSITORY_PREFIX, Images
from lab.shell import LabError, docker, in_parallel
from lab.topology import NODES, Topology

_STATEFUL = (*NODES, "redis", "oss")
_VOLUMES = ("nas", "redis", "oss", *(f"{node}-{part}" for node in NODES for part in ("docker", "containerd")))

# systemd stops PostgreSQL and the inner containers, each of which may take compose's ten seconds.
_SHUTDOWN_LIMIT_S = 60
_COPY_LIMIT_S = 300.0


def save(lab: Topology, tag: str, built: Images) -> None:
    """Shut the machines down and copy their disks under a name; an older copy of that name is replaced.

    The machines are left without power.
    """
    _marker(lab, tag).unlink(missing_ok=True)
    in_parallel(lambda machine: _shut_down(lab, machine), _STATEFUL)
    in_parallel(lambda node: _commit(lab, node, tag), NODES)
    in_parallel(lambda volume: _copy(lab, built, volume, _kept(tag, volume)), _VOLUMES)
    # Last, so that a copy that was interrupted is never taken for one.
    _marker(lab, tag).touch()


def restore(lab: Topology, tag: str, built: Images) -> None:
    """Bring disks back as they were saved. The machines are left without power.

    Raises:
        LabError: nothing was saved under that name.
    """
    if not exists(lab, tag):
        raise LabError(f"Nothing was saved as {tag!r}.", where=lab.name)
    in_parallel(lambda machine: _cut_power(lab, machine), _STATEFUL)
    in_parallel(lambda volume: _copy(lab, built, _kept(tag, volume), volume), _VOLUMES)
    in_parallel(lambda node: _replace(lab, node, tag, built), NODES)


def exists(lab: Topology, tag: str) -> bool:
    """Whether a complete copy of that name is there."""
    return _marker(lab, tag).exists()


def forget_all(lab: Topology) -> None:
    """Take no copy for complete any more; their disks are removed with the lab's own."""
    for marker in lab.directory.glob("saved-*"):
        marker.unlink()


def _shut_down(lab: Topology, machine: str) -> None:
    limit = str(_SHUTDOWN_LIMIT_S)
    docker("stop", "-t", limit, lab.container(machine), timeout=_SHUTDOWN_LIMIT_S + 30)


def _cut_power(lab: Topology, machine: str) -> None:
    docker("kill", lab.container(machine), check=False)


def _commit(lab: Topology, node: str, tag: str) -> None:
    docker("commit", lab.container(node), _image(lab, node, tag), timeout=_COPY_LIMIT_S)


def _replace(lab: Topology, node: str, tag: str, built: Images) -> None:
    docker("rm", "-f", lab.container(node))
    create_machines(lab, [node], Images({node: _image(lab, node, tag)}, built.services))


def _copy(lab: Topology, built: Images, source: str, target: str) -> None:
    docker("volume", "create", *lab.labels, lab.volume(target))
    # SYS_ADMIN: overlayfs keeps its notes in trusted.* attributes, which a lesser root silently loses.
    rights = ("--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined", "--network", "none")
    mounts = ("-v", f"{lab.volume(source)}:/from:ro", "-v", f"{lab.volume(target)}:/to")
    script = "find /to -mindepth 1 -delete && cp -a /from/. /to/"
    docker("run", "--rm", *rights, *mounts, built.services, "sh", "-c", script, timeout=_COPY_LIMIT_S)


def _kept(tag: str, volume: str) -> str:
    return f"saved-{tag}-{volume}"


def _image(lab: Topology, node: str, tag: str) -> str:
    return f"{REPOSITORY_PREFIX}/saved-{lab.name}-{tag}:{node}"


def _marker(lab: Topology, tag: str) -> Path:
    return lab.directory / f"saved-{tag}"
