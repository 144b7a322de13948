"""Settings that live in the database, behind a cache in Redis that all nodes share for a minute."""

import json
import logging
from typing import Any

import redis

from .context import Core
from .web import Refused

log = logging.getLogger("config")
CACHE_KEY = "cfgs"
CACHE_SECONDS = 60
DEFAULTS: dict[str, Any] = {
    "auth_mode": "db_auth",
    "project_creation_restriction": "everyone",
    "read_only": False,
    "self_registration": False,
    "token_expiration": 30,
    "robot_name_prefix": "robot$",
    "storage_per_project": -1,
    "skip_audit_log_database": False,
}
READ_ONLY_MESSAGE = "The system is in read only mode. Any modification is prohibited."


def _typed(key: str, text: str) -> Any:
    default = DEFAULTS[key]
    if isinstance(default, bool):
        return text == "true"
    return int(text) if isinstance(default, int) else text


def load(core: Core) -> dict[str, Any]:
    """All settings. A Redis that is away costs speed, not the answer."""
    try:
        cached = core.redis.get(CACHE_KEY)
        if cached:
            return dict(json.loads(cached))
    except redis.RedisError as error:
        log.warning("configuration cache: %s", error)
    with core.database.session() as session:
        rows = session.rows("SELECT k, v FROM properties")
    known = {row["k"]: _typed(row["k"], row["v"]) for row in rows if row["k"] in DEFAULTS}
    values = {**DEFAULTS, **known}
    try:
        core.redis.setex(CACHE_KEY, CACHE_SECONDS, json.dumps(values))
    except redis.RedisError as error:
        log.warning("configuration cache: %s", error)
    return values


def save(core: Core, changes: dict[str, Any]) -> None:
    """Store settings and drop the cache, so that both nodes see them at once. Raises Refused (400)."""
    unknown = sorted(set(changes) - set(DEFAULTS))
    if unknown:
        raise Refused(400, "BAD_REQUEST", f"unknown configuration: {', '.join(unknown)}")
    with core.database.session() as session:
        for key, value in changes.items():
            text = json.dumps(value) if isinstance(value, bool) else str(value)
            session.run(
                "INSERT INTO properties (k, v) VALUES (%s, %s) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v",
                (key, text),
            )
    core.redis.delete(CACHE_KEY)


def refuse_when_read_only(core: Core) -> None:
    """Raises Refused (403 DENIED) while the site is in read-only mode."""
    if load(core)["read_only"]:
        raise Refused(403, "DENIED", READ_ONLY_MESSAGE)
