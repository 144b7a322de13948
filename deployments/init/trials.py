"""Each answer tried at once: a time limit for everything, and a sentence for an operator when it fails."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import Any

from pydantic import SecretStr

from blocks import LoadBalancer, NasVolume, OssBucket, RedisServer, SshHost
from blocks.value_rules import is_ip
from deployments.init.draft import Draft
from tasks.balancer.haproxy import HaProxy
from tasks.errors import HarborHaError
from tasks.hosts import nas
from tasks.hosts.connection import connect
from tasks.observation.redis import list_clients
from tasks.storage.facts import preflight
from tasks.storage.retry import Patience
from tasks.storage.store import open_store

LIMIT_S = 5.0
# A bucket that is throttled or far is asked twice; a wrong key is an answer at once.
_OSS = Patience(attempts=2, total_s=15.0)


def node_of(draft: Draft, name: str) -> SshHost | None:
    """Give a node as it is known by now; None while its key is not."""
    values = {key: draft.value(f"nodes.{name}.{key}") for key in ("address", "user", "port")}
    keys = {key: draft.text(f"nodes.{name}.{key}") for key in ("private_key", "host_key")}
    if not values["address"] or not all(keys.values()):
        return None
    known: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    return SshHost(name=name, private_key=SecretStr(keys["private_key"]), host_key=keys["host_key"], **known)


def try_login(node: SshHost) -> list[str]:
    """Log in to a node and run a command as root."""
    try:
        connect(node).run(["true"], timeout=LIMIT_S)
    except HarborHaError as error:
        return [str(error)]
    return []


def try_balancer(draft: Draft) -> list[str]:
    """Ask the name service for Harbor's name, and HAProxy for the nodes."""
    address = draft.text("balancer.address")
    problems = try_name(draft.text("harbor.hostname"), address)
    if draft.text("balancer.kind") != "haproxy":
        return problems
    settings = LoadBalancer(
        kind="haproxy",
        address=address,
        admin_host=draft.text("balancer.admin_host"),
        admin_port=int(draft.text("balancer.admin_port") or 0),
        backend=draft.text("balancer.backend") or "harbor",
    )
    try:
        known = HaProxy(settings).status(limit_s=LIMIT_S)
    except HarborHaError as error:
        return [*problems, str(error)]
    lacking = [name for name in draft.value("nodes") or {} if name not in known]
    if lacking:
        problems.append(
            f"HAProxy's backend {settings.backend} has no server {', '.join(lacking)} -> one server for each node, "
            "with its name: docs/load-balancer.md"
        )
    return problems


def try_name(hostname: str, balancer: str) -> list[str]:
    """Whether clients that ask for the host name come to the load balancer."""
    if hostname == balancer:
        return addresses_of(hostname)[1]
    (led, problems), (wanted, others) = addresses_of(hostname), addresses_of(balancer)
    if problems or others:
        return problems + others
    if led & wanted:
        return []
    return [
        f"{hostname} leads to {', '.join(sorted(led))}, and the load balancer is {', '.join(sorted(wanted))} -> "
        "correct the name service, or the address"
    ]


def addresses_of(name: str) -> tuple[set[str], list[str]]:
    """Ask the name service; return the addresses of a name, and what is wrong."""
    if is_ip(name):
        return {name}, []
    # A thread, since the resolver knows no limit; it is not waited for.
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        found = pool.submit(socket.getaddrinfo, name, None, socket.AF_INET).result(LIMIT_S)
    except Late:
        return set(), [f"The name service did not answer for {name} within {LIMIT_S:.0f} s"]
    except OSError:
        return set(), [f"The name service does not know {name} -> add it, pointing to the load balancer"]
    finally:
        pool.shutdown(wait=False)
    return {str(entry[4][0]) for entry in found}, []


def try_redis(draft: Draft) -> list[str]:
    """Log in to Redis, and ask it what a failover asks: who its clients are."""
    server = RedisServer(
        host=draft.text("redis.host"),
        port=int(draft.text("redis.port") or 6379),
        password=SecretStr(draft.text("redis.password")),
    )
    try:
        list_clients(server, LIMIT_S)
    except HarborHaError as error:
        return [f"{error} -> host, port and password of Redis; this machine must reach it as the nodes do"]
    return []


def try_oss(draft: Draft) -> list[str]:
    """Write, read, list and remove an object in the bucket."""
    asked = ("endpoint", "region", "bucket", "access_key_id", "access_key_secret")
    given = {key: draft.text(f"oss.{key}") for key in asked}
    if not given["bucket"]:
        return []
    more = {key: draft.value(f"oss.{key}") for key in ("prefix", "is_cname")}
    settings = OssBucket.model_validate({**given, **{k: v for k, v in more.items() if v is not None}})
    try:
        return preflight(open_store(settings, draft.text("name"), patience=_OSS))
    except HarborHaError as error:
        return [str(error)]


def try_nas(draft: Draft) -> list[str]:
    """Mount the NAS on every node for a moment; where the node has no NFS client, knock at the server's door."""
    known = {key: draft.value(f"nas.{key}") for key in ("path", "source", "fs_type", "options")}
    volume = NasVolume.model_validate({key: value for key, value in known.items() if value is not None})
    problems = []
    for name in draft.value("nodes") or {}:
        node = node_of(draft, name)
        if node is None:
            continue  # its own problem has been told
        try:
            problem = nas.try_out(volume, connect(node))
        except HarborHaError as error:
            problem = str(error)
        if problem:
            problems.append(f"{name}: {problem}")
    return problems


TRIALS: Mapping[str, Callable[[Draft], list[str]]] = {
    "balancer": try_balancer,
    "redis": try_redis,
    "nas": try_nas,
    "oss": try_oss,
}
