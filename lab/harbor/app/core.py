"""Harbor's core: `python3 -m miniharbor.core`.

Start-up in Harbor's order: Redis, PostgreSQL (sixty seconds of dialling), migration, first rows, the checkers of
health, what else is loaded, then serve; any failure ends the process and Docker's restart policy tries again.
"""

import logging
import os
import sys
import time
from pathlib import Path

import psycopg2
import redis

from . import config, passwords
from .api import admin, gc, projects, system, token, v2
from .context import Core, connect_redis
from .database import Database, Session, wait_for_tcp
from .habits import Habits, habits
from .health import Check, Health, http_check
from .identity import identify
from .loading import load
from .migrate import MigrationFailed, migrate
from .settings import CoreSettings
from .tokens import load_key
from .web import Request, Response, Routes, Server, setup_logging

log = logging.getLogger("core")
KEY_FILE = Path("/etc/core/key")
PRIVATE_KEY_FILE = Path("/etc/core/private_key.pem")
VERSION_FILE = Path("/harbor/UIVERSION")
DIAL_BUDGET = 60.0
WRITES_IN_READ_ONLY = ("/api/v2.0/configurations", "/service/token", "/c/login", "/service/notifications/")


def _wait_for_redis(client: redis.Redis, budget: float) -> None:
    deadline = time.monotonic() + budget
    while True:
        try:
            client.ping()
            return
        except redis.RedisError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(f"failed to initialize cache: {error}") from error
            time.sleep(1)


def first_rows(session: Session, admin_password: str) -> None:
    """The administrator and the project `library`, once.

    The password of harbor.yml counts only here: when the administrator has a salt it is never read again.
    """
    row = session.row("SELECT salt FROM harbor_user WHERE user_id = 1")
    if row is None:
        session.run(
            "INSERT INTO harbor_user (username, email, realname, sysadmin_flag)"
            " VALUES ('admin', NULL, 'system admin', true)"
        )
        session.run("INSERT INTO project (name, owner_id) VALUES ('library', 1)")
        projects.complete_project(session, 1, 1, {"public": "true"}, -1)
    if row is None or not row["salt"]:
        salt = passwords.new_salt()
        session.run(
            "UPDATE harbor_user SET password = %s, salt = %s WHERE user_id = 1",
            (passwords.digest(admin_password, salt), salt),
        )


def sync_scanner(session: Session, with_trivy: bool) -> None:
    """Register Trivy, or remove its registration: a node started without the flag takes it from both."""
    known = session.value("SELECT count(*) FROM scanner_registration WHERE name = 'Trivy'")
    if with_trivy and not known:
        session.run(
            "INSERT INTO scanner_registration (uuid, url, name, immutable, is_default)"
            " VALUES (gen_random_uuid()::text, 'http://trivy-adapter:8080', 'Trivy', true, true)"
        )
    elif known and not with_trivy:
        session.run("DELETE FROM scanner_registration WHERE name = 'Trivy'")


def prepare_database(settings: CoreSettings, known: Habits) -> Database:
    """Migrate, write the first rows. Raises MigrationFailed, psycopg2.Error."""
    where = settings.database
    database = Database(where, known.audit_ext)
    applied = migrate(database, known)
    log.info("database %s:%s/%s is ready, %d migrations applied", where.host, where.port, where.name, applied)
    with database.session() as session:
        # Both nodes may start together on an empty database.
        session.value("SELECT pg_advisory_xact_lock(%s)::text", (1486121318,))
        first_rows(session, settings.admin_password)
        sync_scanner(session, settings.with_trivy)
    return database


def _checks(settings: CoreSettings, database: Database, client: redis.Redis) -> dict[str, Check]:
    def ping_redis() -> None:
        client.ping()

    def answering() -> None:
        """Core's check of itself never fails in Harbor: who reports is alive. Asking its own port before it
        listens would keep a new core unhealthy, and out of the load balancer, for ten seconds."""

    checks = {
        "core": answering,
        "database": database.ping,
        "jobservice": http_check(f"{settings.jobservice_url}/api/v1/stats"),
        "portal": http_check(f"{settings.portal_url}/"),
        "redis": ping_redis,
        "registry": http_check(f"{settings.registry_url}/"),
        "registryctl": http_check(f"{settings.registryctl_url}/api/health"),
    }
    if settings.with_trivy:
        checks["trivy"] = http_check("http://trivy-adapter:8080/probe/healthy")
    if settings.notary_url:
        checks["notary"] = http_check(f"{settings.notary_url}/_notary_server/health")
    if settings.chartmuseum_url:
        checks["chartmuseum"] = http_check(f"{settings.chartmuseum_url}/health")
    return checks


def answers(core: Core) -> Routes:
    """All routes of core."""
    routes = Routes()
    for module in (system, projects, admin, gc, token, v2):
        module.register(routes)
    return routes


def answer(core: Core, routes: Routes, request: Request) -> Response:
    """One request: read-only mode first, then the handler."""
    handler, arguments = routes.resolve(request.method, request.path)
    writes = request.method not in ("GET", "HEAD", "OPTIONS")
    if writes and not request.path.startswith(("/v2/", *WRITES_IN_READ_ONLY)):
        identify(core, request)
        config.refuse_when_read_only(core)
    return handler(core, request, **arguments)


def build(settings: CoreSettings, secretkey: str, private_key: bytes, version: str) -> Core:
    """Connect everything and load. Raises what makes core end at start."""
    client = connect_redis(settings.redis)
    begin = time.monotonic()
    _wait_for_redis(client, DIAL_BUDGET)
    wait_for_tcp(settings.database.host, settings.database.port, DIAL_BUDGET)
    waited = time.monotonic() - begin
    database = prepare_database(settings, habits(version))
    # As in Harbor the checkers look once before core listens: its first answer may be older than itself.
    health = Health(_checks(settings, database, client))
    load(waited)
    return Core(settings, database, client, secretkey, load_key(private_key), health, version)


def main() -> None:
    """Serve for ever. As PID 1 this process has no handler for SIGTERM, and so does not heed it: who stops
    it waits the whole stop time-out, which is what one waits for Harbor's core."""
    setup_logging(os.environ.get("LOG_LEVEL") or "info")
    try:
        core = build(
            CoreSettings.from_env(os.environ),
            KEY_FILE.read_text(),
            PRIVATE_KEY_FILE.read_bytes(),
            VERSION_FILE.read_text().strip(),
        )
    except (ConnectionError, MigrationFailed, psycopg2.Error, OSError, ValueError, KeyError) as error:
        log.critical("failed to start: %s: %s", type(error).__name__, error)
        sys.exit(1)
    routes = answers(core)
    server = Server(core.settings.port, lambda request: answer(core, routes, request))
    log.info("core %s serves on port %d", core.version, core.settings.port)
    server.serve_forever()


if __name__ == "__main__":
    main()
