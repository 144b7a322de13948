"""The Docker engine and compose: the distribution's packages, or what the operator installed."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks import HarborSite
from tasks.docker.on_node import engine_facts, engine_start
from tasks.errors import HarborHaError
from tasks.hosts import packages
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_ENGINE_FACTS = node_program(engine_facts)
_ENGINE_START = node_program(engine_start)

# Harbor's install.sh asks for 17.06 and, from 2.11 on, says 20.10.10.
OLDEST_ENGINE = (17, 6)
# Debian's and Ubuntu's own; Docker's repository has another one, which only an operator chooses.
ENGINE = "docker.io"
_OF_DOCKER = "docker-ce"
# From Debian 13 on the client is a package of its own, which docker.io only recommends; before, it is in docker.io.
CLIENT_CHOICES = ("docker-cli", ENGINE)
# The plugin first; Debian 12 has only compose 1. Docker's own repository calls it docker-compose-plugin.
COMPOSE_CHOICES = ("docker-compose-v2", "docker-compose-plugin", "docker-compose")


@dataclass(frozen=True)
class EngineFacts:
    """The Docker engine of a node.

    Attributes:
        engine: the server's version; "" when it is installed but does not answer, or cannot be asked for want of
            a client; None when there is none.
        client: there is a program `docker`.
        compose_plugin: version of `docker compose`, if there is one.
        compose_v1: version of `docker-compose`, if there is that program; it may be a 2, too.
        enabled: the engine starts at boot.
        half_installed: packages of these whose installation did not come to its end.
        snap: there is an engine that came as a snap. It is confined: it sees neither Harbor's directory nor its data.
    """

    engine: str | None
    client: bool
    compose_plugin: str | None
    compose_v1: str | None
    enabled: bool
    half_installed: Sequence[str] = ()
    snap: bool = False

    @property
    def compose(self) -> tuple[str, ...]:
        """The compose command of this node; empty when there is none."""
        if self.compose_plugin:
            return ("docker", "compose")
        return ("docker-compose",) if self.compose_v1 else ()

    @property
    def complete(self) -> bool:
        """Whether nothing has to be installed or started."""
        return bool(self.engine) and not self.lacks_packages and self.enabled

    @property
    def lacks_packages(self) -> bool:
        """Whether something has to be installed."""
        there = self.engine is not None and self.client and bool(self.compose)
        return not there or bool(self.half_installed)

    @property
    def too_old(self) -> bool:
        """Whether Harbor does not run on it; an engine that does not answer is not known to be."""
        return bool(self.engine) and _numbers(self.engine or "") < OLDEST_ENGINE


def observe(host: Host) -> EngineFacts:
    """Look at a node's engine and compose, in one round trip."""
    packages = [ENGINE, _OF_DOCKER, *CLIENT_CHOICES, *COMPOSE_CHOICES]
    return EngineFacts(**host.python(_ENGINE_FACTS, {"packages": packages}, timeout=120))


def install(site: HarborSite, host: Host) -> Outcome:
    """Install the engine and compose where they are missing; what the operator installed stays.

    Raises:
        HarborHaError: the engine that is there is too old for Harbor, or a snap.
        NotPackaged: no repository has compose.
        AptBusy: another installation did not end.
        RemoteCommandFailed: apt failed, or the engine does not start; its last lines are in the message.
    """
    facts = observe(host)
    if facts.snap:
        raise HarborHaError(
            "Docker is a snap here.",
            where=host.name,
            meaning="It is confined to home directories: Harbor's data would not be seen. A second engine beside it "
            "would fight with it for the socket.",
            remedy=f"`snap remove docker` on this node; bootstrap then installs {ENGINE}.",
        )
    if facts.too_old:
        raise HarborHaError(
            f"Docker {facts.engine} is too old for Harbor.",
            where=host.name,
            remedy="Update Docker on this node.",
        )
    if facts.complete:
        return unchanged(_described(facts))
    _install_missing(host, facts)
    host.python(_ENGINE_START, timeout=200)
    return changed(_described(observe(host)))


def _install_missing(host: Host, facts: EngineFacts) -> None:
    if not facts.lacks_packages:
        return
    packages.refresh(host)
    wanted = list(facts.half_installed)
    if facts.engine is None and ENGINE not in wanted:
        wanted.append(ENGINE)
    if not facts.client:
        # docker.io has it where there is no such package.
        wanted.append(_first_available(host, CLIENT_CHOICES))
    if not facts.compose and not set(wanted) & set(COMPOSE_CHOICES):
        wanted.append(_first_available(host, COMPOSE_CHOICES))
    packages.install(host, list(dict.fromkeys(wanted)))


def _first_available(host: Host, choices: Sequence[str]) -> str:
    for package in choices:
        if packages.has_candidate(host, package):
            return package
    raise packages.NotPackaged(
        f"None of {', '.join(choices)} is in a package repository that this machine reaches.",
        where=host.name,
        meaning="Harbor's containers cannot be started.",
        remedy=f"Make the distribution's repository reachable, or install {choices[0]} by hand.",
    )


def _described(facts: EngineFacts) -> str:
    compose = (
        f"compose {facts.compose_plugin}" if facts.compose_plugin else f"docker-compose {facts.compose_v1}"
    )
    return f"Docker {facts.engine}, {compose}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
