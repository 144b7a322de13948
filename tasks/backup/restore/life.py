"""Does the site that is about to be rebuilt live after all? Asked of whoever its Harbor needs."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blocks import HarborSite
from tasks.backup.restore.on_node import signs_of_life
from tasks.balancer.balancer import balancer_of
from tasks.balancer.states import Served
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program

_SIGNS_OF_LIFE = node_program(signs_of_life)
# Two beats of a living primary, and some: see tasks/guard/on_node/beat.py.
BEAT_LIMIT_S = 25.0


@dataclass(frozen=True)
class Life:
    """What was seen of the old site.

    Attributes:
        seen: each sign of life, as a sentence.
        unknown: who could not be asked, as a sentence.
        kept: the site's term and acceptance on the NAS; empty where it could not be read.
    """

    seen: tuple[str, ...]
    unknown: tuple[str, ...]
    kept: Mapping[str, Any] = field(default_factory=dict)


def look_for_life(site: HarborSite, host: Host, *, need_nas: bool, before: Life | None = None) -> Life:
    """Ask the load balancer from here, and Redis and the NAS from the machine that will use them.

    An orchestrator that is cut off from both nodes sees no primary; so did the one that emptied the Redis of a living
    site and wrote to its NAS.

    Args:
        host: the machine that is to become Harbor.
        need_nas: it must have the NAS mounted by now; else one that is not mounted is asked later.
        before: an earlier look: what has changed on the NAS since was changed by somebody.
    """
    seen, unknown = _balancer(site, host.name)
    try:
        answer = host.python(_SIGNS_OF_LIFE, _given(site, host), timeout=BEAT_LIMIT_S + 60)
    except HarborHaError as error:
        return Life(tuple(seen), (*unknown, f"{host.name} could not ask Redis and the NAS: {error.what}"))
    clients, nas = answer["redis"], answer["nas"]
    if clients is None:
        unknown.append(f"Redis at {site.redis.host} does not say who uses it")
    for address in clients or ():
        # A monitor's client, or a proxy's, must not hold a restore back for ever; a node's is the site itself.
        node = _node_at(site, address)
        if node:
            seen.append(f"Redis is used from {node} ({address})")
        else:
            unknown.append(f"Redis is used from {address}, which is none of the site's nodes")
    if not nas.get("asked"):
        if need_nas:
            unknown.append(f"the NAS at {site.nas.path} does not answer")
        return Life(tuple(seen), tuple(unknown))
    if nas["beats"]:
        seen.append(f"{nas['beats']} tells on the NAS that it is the primary")
    if before is not None and before.kept and before.kept != nas["kept"]:
        seen.append("somebody has changed the site's term or acceptance on the NAS meanwhile")
    return Life(tuple(seen), tuple(unknown), nas["kept"])


def _balancer(site: HarborSite, target: str) -> tuple[list[str], list[str]]:
    balancer = balancer_of(site)
    if balancer is None:
        return [], ["the load balancer is of a kind that cannot be asked whom it serves"]
    try:
        states = balancer.status()
    except HarborHaError as error:
        return [], [f"the load balancer does not say whom it serves ({error.what})"]
    served = [node for node, state in states.items() if node != target and state.served is Served.UP]
    return [f"the load balancer serves {node}" for node in served], []


def _node_at(site: HarborSite, address: str) -> str:
    for node in site.nodes:
        if address in {node.address, *_resolved(node.address)}:
            return node.name
    return ""


def _resolved(name: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except OSError:
        return set()


def _given(site: HarborSite, host: Host) -> dict[str, Any]:
    redis = site.redis
    return {
        "target": host.name,
        "own": [host.address],
        "redis": {
            "host": redis.host,
            "port": redis.port,
            "password": redis.password.get_secret_value(),
            "databases": sorted(
                {0, redis.registry_db, redis.jobservice_db, redis.chartmuseum_db, redis.trivy_db}
            ),
        },
        "nas_path": site.nas.path.rstrip("/"),
        "site": site.name,
        "beat_s": BEAT_LIMIT_S,
    }
