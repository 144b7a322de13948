"""What every handler of core needs, made once at start."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from cryptography.hazmat.primitives.asymmetric import rsa

from .database import Database, Session
from .settings import CoreSettings, RedisSettings

log = logging.getLogger("core")


def connect_redis(settings: RedisSettings) -> redis.Redis:
    """A client with its own pool; every command has a time limit of ten seconds."""
    return redis.Redis(
        host=settings.host,
        port=settings.port,
        password=settings.password or None,
        db=settings.db,
        socket_timeout=10,
        socket_connect_timeout=10,
        decode_responses=True,
    )


@dataclass(frozen=True)
class Core:
    """The parts of a running core."""

    settings: CoreSettings
    database: Database
    redis: Any
    secretkey: str
    signing_key: rsa.RSAPrivateKey | None
    health: Callable[[], dict[str, Any]]
    version: str


def audit(session: Session, project: int, operation: str, kind: str, resource: str, username: str) -> None:
    """One line of the audit log, in the caller's transaction."""
    if not session.audit_ext:
        session.run(
            "INSERT INTO audit_log (project_id, operation, resource_type, resource, username)"
            " VALUES (%s, %s, %s, %s, %s)",
            (project, operation, kind, resource, username),
        )
        return
    session.run(
        "INSERT INTO audit_log_ext (project_id, operation, resource_type, resource, username, op_desc)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (project, operation, kind, resource[:255], username, f"{operation} {kind}: {resource}"[:500]),
    )
