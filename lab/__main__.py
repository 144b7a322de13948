"""Command line of the lab: `python -m lab --help`."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from lab.apt import DEFAULT_RELEASE, RELEASES
from lab.harbor.app.habits import full_version
from lab.shell import LabError
from lab.site_lab import Lab
from lab.state import known_labs
from lab.topology import HOSTNAME, NODES, ORCHESTRATOR, SERVICES, read_releases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the lab.

    Returns:
        the exit status: 0 done, 1 not done, with the reason on standard error.
    """
    options = _parser().parse_args(arguments)
    try:
        releases = read_releases(getattr(options, "release", []))
        asked = getattr(options, "harbor", "")
        harbor = full_version(asked) if asked else ""
        return _run(options, Lab(options.name, options.subnet, releases, harbor))
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, lab: Lab) -> int:
    match options.command:
        case "prepare":
            lab.prepare()
        case "up":
            _up(lab)
        case "down":
            lab.down()
            if options.images:
                _remove_images()
        case "clean":
            for name in known_labs():
                Lab(name).down()
            _remove_images()
        case "status":
            return _status(lab)
        case "exec":
            command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
            terminal = ["-it"] if sys.stdin.isatty() and sys.stdout.isatty() else ["-i"]
            return subprocess.call(
                ["docker", "exec", *terminal, lab.topology.container(options.node), *command]
            )
        case "stop":
            lab.stop(options.node)
        case "start":
            lab.start(options.node)
        case "fence":
            return _fence(lab, options.node)
        case "cut":
            lab.cut(options.end, options.other)
        case "heal":
            lab.heal()
    return 0


def _up(lab: Lab) -> None:
    started = time.monotonic()
    topology = lab.up()
    print(f"The lab {lab.name} is up after {time.monotonic() - started:.1f} s on {topology.subnet}.")
    print(f"  site file  {topology.site_file}")
    print(f"  balancer   https://{topology.address('lb')}/ as {HOSTNAME}, CA {topology.directory / 'ca.pem'}")


def _remove_images() -> None:
    from lab import images

    print("\n".join(f"removed {tag}" for tag in images.remove_images()))


def _status(lab: Lab) -> int:
    from lab import machines, partition

    topology = lab.topology
    standing = machines.states(topology)
    cuts = partition.recorded(topology)
    for machine in (*NODES, *SERVICES):
        state = standing.get(machine)
        word = "missing" if state is None else "running" if state.running else "stopped"
        apart = partition.peers(machine, cuts)
        note = f"  cut off from {', '.join(apart)}" if apart else ""
        print(f"{machine:8}{topology.address(machine):16}{word}{note}")
    return 0 if len(standing) == len(NODES | SERVICES) and all(s.running for s in standing.values()) else 1


def _fence(lab: Lab, node: str) -> int:
    """Power a node off as a cloud's API does: success means that it was seen without power afterwards."""
    lab.stop(node)
    print(f"{node} is powered off.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=_DESCRIPTION)
    _add_common(parser, name="demo", subnet=None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        _add_common(added, name=argparse.SUPPRESS, subnet=argparse.SUPPRESS)
        return added

    for name, help in (
        ("prepare", "install the Docker engine and build the images; `up` does it, too"),
        ("up", "bring the lab up and write its site file; what stands already stays"),
    ):
        made = command(name, help)
        made.add_argument(
            "--release",
            action="append",
            default=[],
            metavar="[NODE=]RELEASE",
            help=f"what the nodes run: {', '.join(RELEASES)} (default: {DEFAULT_RELEASE}); again for one of them",
        )
        made.add_argument(
            "--harbor",
            default="",
            metavar="VERSION",
            help="which Harbor the miniature is: 2.3.2, 2.9, 2.13 (default) or another from 2.3 to 2.15",
        )
    down = command("down", "remove the lab's containers, volumes, network and keys")
    down.add_argument("--images", action="store_true", help="remove the images as well")
    command("clean", "take down every lab of this repository and remove the images")
    command("status", "show the machines and who is cut off from whom; status 0 when all run")
    execute = command("exec", "run a command on a machine: exec NODE -- CMD…")
    execute.add_argument("node")
    execute.add_argument("argv", nargs=argparse.REMAINDER)
    for name, help in (
        ("stop", "cut the power of a machine"),
        ("start", "switch a machine on again"),
        ("fence", "cut the power of a node and make sure of it, as a cloud's stop call does"),
    ):
        command(name, help).add_argument("node")
    cut = command("cut", f"cut the network between two machines; `{ORCHESTRATOR}` is this one")
    cut.add_argument("end")
    cut.add_argument("other")
    command("heal", "take back all cuts")
    return parser


def _add_common(parser: argparse.ArgumentParser, *, name: str, subnet: str | None) -> None:
    """Add the options that stand before or after the command.

    Each parser has its own: options shared through `parents` share their defaults, and then the command's
    default overwrote the lab named before the command. `--name test fence node-a` fenced the demo's node.
    """
    parser.add_argument("--name", default=name, help="which lab; several stand side by side (default: demo)")
    network = "its network (default: the one it has, else 172.30.90.0/24 or the next free)"
    parser.add_argument("--subnet", default=subnet, help=network)


_DESCRIPTION = "A whole Harbor site on one machine: real hosts, real network, real failures."

if __name__ == "__main__":
    sys.exit(main())
