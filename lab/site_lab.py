"""A lab: a whole site on one machine, and the accidents that can happen to it."""

import ipaddress
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from lab import machines, partition
from lab.images import Images
from lab.shell import LabError, alone, docker, in_parallel, run, step
from lab.state import known_labs, remember
from lab.subnets import docker_subnets
from lab.topology import NODES, ORCHESTRATOR, SERVICES, STATE, Topology, check_name, free_subnet

_BOOT_LIMIT_S = 60.0
_PORTS = {"redis": 6379, "lb": 9999, "oss": 9000}


class Lab:
    """One lab by name.

    Args:
        name: the lab's name.
        subnet: its network; when it is not given, the network it has, else the first free one.
        releases: the release of each node; when none is given, those they have, else the usual one.
        harbor: the version of the miniature Harbor, `2.9.5`; when not given, the one it has, else the usual.
    """

    def __init__(
        self,
        name: str = "demo",
        subnet: str | None = None,
        releases: Mapping[str, str] | None = None,
        harbor: str = "",
    ) -> None:
        check_name(name)
        self.name = name
        self._wanted_releases = releases or {}
        self._wanted_harbor = harbor
        self._wanted_subnet = ipaddress.IPv4Network(subnet) if subnet else None

    @property
    def topology(self) -> Topology:
        """Names and addresses of this lab.

        Raises:
            LabError: the lab was never brought up.
        """
        known = known_labs().get(self.name)
        if known is None:
            raise LabError(f"There is no lab {self.name!r}.", remedy=f"python -m lab --name {self.name} up")
        return known

    @property
    def site_file(self) -> Path:
        """The site file that `up` writes."""
        return self.topology.site_file

    def machines(self) -> tuple[str, ...]:
        """Names of the nodes and the services."""
        return (*NODES, *SERVICES)

    def node_address(self, machine: str) -> str:
        """Address of a node, a service, or the orchestrator."""
        return self.topology.address(machine)

    def prepare(self) -> None:
        """Do what takes long and belongs to no lab: Docker engine, images, Harbor installer.

        Raises:
            LabError: this machine lacks something that cannot be installed.
        """
        from lab import engine, images, site_file

        STATE.mkdir(exist_ok=True)
        engine.ensure_engine(STATE)
        images.ensure_images(self._wanted_releases)
        site_file.find_installer(self._wanted_harbor)

    def up(self) -> Topology:
        """Bring the lab up; what stands already stays, what was stopped is started.

        Raises:
            LabError: it did not come up; the message says which part.
        """
        from lab import creation, engine, images, keys, services, site_file

        logs = STATE / self.name
        logs.mkdir(parents=True, exist_ok=True)
        with self._alone():
            engine.ensure_engine(logs)
            with alone(STATE / "subnets.lock"):
                topology = self._settle()
            built = images.ensure_images(topology.releases)
            installer = site_file.find_installer(topology.harbor)
            keys.ensure_keys(topology)
            changed = services.write_settings(topology, keys.secret(topology, "redis-password"))
            creation.ensure_network(topology)
            for service in changed:
                # It is started again below and reads its new settings; one that does not exist yet is no error.
                docker("kill", topology.container(service), check=False)
            self._ensure_machines(topology, built)
            site_file.write_site(topology, installer, images.postgres_majors(built))
        return topology

    def down(self) -> None:
        """Remove the lab's containers, volumes, network and state; its images stay for the next time."""
        import shutil

        from lab import ownership
        from lab.orchestrator import Orchestrator

        known = known_labs().get(self.name)
        with self._alone():
            # Raises when the lab of this name is another clone's.
            ownership.left_behind(self.name, known)
            if (STATE / self.name / "orchestrator").exists():
                Orchestrator(self.name).down()
            ownership.remove(self.name)
            if known:
                known.site_file.unlink(missing_ok=True)
            shutil.rmtree(STATE / self.name, ignore_errors=True)

    def stop(self, machine: str) -> None:
        """Cut the power of a machine: no shutdown, no goodbye on its connections' behalf.

        Only the processes die. What they had written, but not yet flushed, is still in this machine's page
        cache and survives, unlike at a real power cut.

        Raises:
            LabError: the machine does not exist, or still runs.
        """
        container = self.topology.container(machine)
        if self.is_running(machine):
            # A failure here may mean that it had just stopped by itself: only the state below counts.
            docker("kill", "--signal", "KILL", container, check=False)
        deadline = time.monotonic() + 20.0
        while self.is_running(machine):
            if time.monotonic() > deadline:
                raise LabError("It still runs after a power cut.", where=container)
            time.sleep(0.05)

    def start(self, machine: str, *, wait: bool = True) -> None:
        """Switch a machine on again: same disk, address and keys; cuts that concern it are in force again.

        Args:
            machine: its name.
            wait: return only when it has booted and answers on its port.
        """
        topology = self.topology
        docker("start", topology.container(machine))
        cuts = partition.recorded(topology)
        if partition.peers(machine, cuts):
            self._apply_cuts(machine, cuts)
        if wait:
            self._wait_until_ready(machine)

    def is_running(self, machine: str) -> bool:
        """Whether a machine has power.

        Raises:
            LabError: there is no such machine, or the engine does not say.
        """
        container = self.topology.container(machine)
        return docker("inspect", "--format", "{{.State.Running}}", container, timeout=15).strip() == "true"

    def cut(self, end: str, other: str) -> None:
        """Drop every packet between two machines, both ways, also those of the containers on them.

        Args:
            end: a node, a service or `orchestrator`.
            other: the other end.
        """
        topology = self.topology
        topology.address(end), topology.address(other)
        self._set_cuts(lambda cuts: cuts | {partition.ordered(end, other)})

    def heal(self, end: str | None = None, other: str | None = None) -> None:
        """Take back one cut, or all of them when no ends are given."""
        gone = {partition.ordered(end, other)} if end and other else None
        self._set_cuts(lambda cuts: cuts - gone if gone else set())

    def exec(
        self,
        machine: str,
        argv: Sequence[str],
        *,
        stdin: str | bytes = b"",
        timeout: float = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine by the engine, past the network: it works while everything is cut.

        Raises:
            LabError: it failed (with `check`) or took longer than `timeout` seconds.
        """
        command = ["docker", "exec", "-i", self.topology.container(machine), *argv]
        return run(command, stdin=stdin, timeout=timeout, check=check)

    def recreate(self, *nodes: str, release: str | None = None) -> None:
        """Make nodes bare again, as they came from the factory; same addresses and host keys.

        Args:
            nodes: their names.
            release: install this one instead of the one that they have; the site files follow.
        """
        from lab import images, site_file

        topology = self.topology
        with self._alone():
            if release is not None:
                releases = {**topology.releases, **dict.fromkeys(nodes, release)}
                topology = replace(topology, releases=releases)
                remember(topology)
            for node in nodes:
                docker("rm", "-f", "-v", topology.container(node))
                docker(
                    "volume",
                    "rm",
                    "-f",
                    *(topology.volume(f"{node}-{part}") for part in ("docker", "containerd")),
                )
            built = images.ensure_images(topology.releases)
            self._ensure_machines(topology, built)
            if release is not None:
                site_file.write_site(
                    topology, site_file.find_installer(topology.harbor), images.postgres_majors(built)
                )

    def empty_shared(self) -> None:
        """Empty what the nodes share: NAS, Redis and the bucket."""
        self.exec(
            "redis",
            [
                "sh",
                "-c",
                "REDISCLI_AUTH=$(sed -n 's/^requirepass //p' /etc/lab/redis.conf) redis-cli flushall",
            ],
        )
        self.exec("oss", ["find", "/data", "-mindepth", "1", "-delete"])
        docker("restart", "-t", "1", self.topology.container("oss"))
        node = next(node for node in NODES if self.is_running(node))
        self.exec(node, ["find", "/mnt/nas", "-mindepth", "1", "-delete"])
        self._wait_until_ready("oss")

    def save_nodes(self, tag: str) -> None:
        """Shut all machines down, keep their disks under a name, and boot them again."""
        from lab import images, snapshot

        with self._alone(), step(f"Save the nodes as {tag}"):
            snapshot.save(self.topology, tag, images.ensure_images(self.topology.releases))
        self._boot()

    def restore_nodes(self, tag: str) -> None:
        """Heal the network, bring all disks back as they were saved, and boot.

        Raises:
            LabError: nothing was saved under that name.
        """
        from lab import images, snapshot

        self.heal()
        with self._alone(), step(f"Restore the nodes as they were saved as {tag}"):
            snapshot.restore(self.topology, tag, images.ensure_images(self.topology.releases))
        self._boot()

    def has_saved(self, tag: str) -> bool:
        """Whether `restore_nodes` can bring something back."""
        from lab import snapshot

        return snapshot.exists(self.topology, tag)

    def _boot(self) -> None:
        in_parallel(lambda machine: self.start(machine, wait=False), self.machines())
        in_parallel(self._wait_until_ready, self.machines())

    def _settle(self) -> Topology:
        """Which lab this is: the one that this clone knows, else a new one."""
        known = known_labs()
        mine = known.pop(self.name, None)
        if mine and self._wanted_subnet and mine.subnet != self._wanted_subnet:
            raise LabError(
                f"The lab {self.name!r} stands on {mine.subnet}.",
                remedy="Take it down first, or leave --subnet out.",
            )
        if mine:
            for option, has, wanted in (
                ("release", mine.releases, self._wanted_releases),
                ("harbor", mine.harbor, self._wanted_harbor),
            ):
                if wanted and has != wanted:
                    what = f"The lab {self.name!r} stands with another {option}."
                    raise LabError(what, remedy=f"Take it down first, or leave --{option} out.")
        self._clear_away(mine)
        if mine:
            return mine
        taken = [lab.subnet for lab in known.values()]
        made = Topology(
            self.name,
            self._wanted_subnet or free_subnet([*taken, *docker_subnets()]),
            secrets.token_hex(8),
            self._wanted_releases,
            self._wanted_harbor,
        )
        for other in known.values():
            if other.subnet.overlaps(made.subnet):
                raise LabError(
                    f"{made.subnet} belongs to the lab {other.name!r}.", remedy="Choose another --subnet."
                )
        remember(made)
        return made

    def _clear_away(self, mine: Topology | None) -> None:
        """Remove what a clone that is gone left under this name; nobody has its keys and passwords.

        Raises:
            LabError: the lab of this name belongs to another clone.
        """
        from lab import ownership, snapshot

        if ownership.left_behind(self.name, mine):
            with step(f"Remove a lab {self.name} whose keys and passwords are gone"):
                ownership.remove(self.name)
                if mine:
                    snapshot.forget_all(mine)

    def _ensure_machines(self, topology: Topology, built: Images) -> None:
        standing = machines.states(topology)
        for machine in [machine for machine, state in standing.items() if not state.complete]:
            docker("rm", "-f", topology.container(machine))
            del standing[machine]
        missing = [machine for machine in NODES | SERVICES if machine not in standing]
        asleep = [machine for machine, state in standing.items() if not state.running]
        if missing:
            from lab.creation import create_machines

            with step(f"Create {', '.join(missing)}"):
                create_machines(topology, missing, built)
        with step("Boot and wait until everything answers"):
            in_parallel(lambda machine: self.start(machine, wait=False), [*missing, *asleep])
            in_parallel(self._wait_until_ready, self.machines())

    def _wait_until_ready(self, machine: str) -> None:
        topology = self.topology
        deadline = time.monotonic() + _BOOT_LIMIT_S
        # Nobody can be waited for through a cut.
        if (partition.ordered(machine, ORCHESTRATOR)) not in partition.recorded(topology):
            port = _PORTS.get(machine, 22)
            while not _answers(topology.address(machine), port):
                if time.monotonic() > deadline or not self.is_running(machine):
                    said = docker("logs", "--tail", "5", topology.container(machine), check=False)
                    raise LabError(
                        f"It does not answer on port {port}. {said}", where=topology.container(machine)
                    )
                time.sleep(0.1)
        if machines.is_node(machine):
            self._wait_until_booted(machine, deadline)

    def _wait_until_booted(self, node: str, deadline: float) -> None:
        # Without --wait: it fails at once while D-Bus is not up yet, so that a poll is needed anyway.
        ask = ["systemctl", "is-system-running"]
        while (state := self.exec(node, ask, check=False).stdout.strip()) not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise LabError(f"systemd says {state!r} after {_BOOT_LIMIT_S:.0f} s.", where=node)
            time.sleep(0.1)

    def _set_cuts(self, change: Callable[[set[partition.Cut]], set[partition.Cut]]) -> None:
        topology = self.topology
        with self._alone():
            before = partition.recorded(topology)
            after = change(before)
            # First the file: a node that starts meanwhile must come up with the new rules.
            partition.record(topology, after)
            touched = sorted({end for cut in before ^ after for end in partition.ends(cut)})
            in_parallel(lambda machine: self._apply_cuts(machine, after), touched)

    def _apply_cuts(self, machine: str, cuts: Iterable[partition.Cut]) -> None:
        if not self.is_running(machine):
            return
        addresses = [self.topology.address(peer) for peer in partition.peers(machine, cuts)]
        self.exec(machine, ["sh"], stdin=partition.script(addresses), timeout=20)

    def _alone(self) -> AbstractContextManager[None]:
        return alone(STATE / f"{self.name}.lock")


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.0) as connection:
            # sshd speaks first; a port that merely accepts is not a host that can be logged in to.
            return port != 22 or connection.recv(4) == b"SSH-"
    except OSError:
        return False
