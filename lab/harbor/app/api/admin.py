"""/registries, /labels, /users, /robots, /audit-logs, /quotas."""

import secrets
from typing import Any

from .. import cipher, passwords
from ..context import Core, audit
from ..database import Row
from ..identity import require_admin
from ..records import find_project
from ..web import Refused, Request, Response, Routes

API = "/api/v2.0"


def _listing(core: Core, request: Request, table: str, order: str, hidden: tuple[str, ...] = ()) -> Response:
    limit, offset = request.page()
    with core.database.session() as session:
        total = session.value(f"SELECT count(*) FROM {table}")
        rows = session.rows(f"SELECT * FROM {table} ORDER BY {order} LIMIT %s OFFSET %s", (limit, offset))
    shown = [{key: value for key, value in row.items() if key not in hidden} for row in rows]
    return Response.of(shown, headers={"X-Total-Count": str(total)})


def list_registries(core: Core, request: Request) -> Response:
    """Endpoints of replication, their secrets hidden."""
    require_admin(core, request)
    limit, offset = request.page()
    with core.database.session() as session:
        total = session.value("SELECT count(*) FROM registry")
        rows = session.rows("SELECT * FROM registry ORDER BY id LIMIT %s OFFSET %s", (limit, offset))
    return Response.of([_present_registry(row) for row in rows], headers={"X-Total-Count": str(total)})


def _present_registry(row: Row) -> dict[str, Any]:
    fields = ("id", "name", "url", "type", "insecure", "description", "creation_time", "update_time")
    credential = {"type": row["credential_type"], "access_key": row["access_key"], "access_secret": "*****"}
    return {**{name: row[name] for name in fields}, "credential": credential, "status": row["health"]}


def create_registry(core: Core, request: Request) -> Response:
    """Store an endpoint; its secret is encrypted by secretkey. Raises Refused (400, 409)."""
    who = require_admin(core, request)
    asked = request.json()
    credential = asked.get("credential") or {}
    if not asked.get("name") or not asked.get("url"):
        raise Refused(400, "BAD_REQUEST", "name and url are required")
    secret = str(credential.get("access_secret", ""))
    with core.database.session() as session:
        number = session.value(
            "INSERT INTO registry (name, url, type, insecure, description, credential_type, access_key,"
            " access_secret, health) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'healthy')"
            " ON CONFLICT (name) DO NOTHING RETURNING id",
            (asked["name"], asked["url"], asked.get("type", "harbor"), bool(asked.get("insecure")),
             asked.get("description", ""), credential.get("type", "basic"), credential.get("access_key", ""),
             cipher.encrypt(secret, core.secretkey) if secret else ""),
        )  # fmt: skip
        if number is None:
            raise Refused(409, "CONFLICT", f"registry {asked['name']} already exists")
        audit(session, 0, "create", "registry", asked["name"], who.name)
    return Response(201, headers={"Location": f"{API}/registries/{number}"})


def delete_registry(core: Core, request: Request, number: str) -> Response:
    """Forget an endpoint."""
    require_admin(core, request)
    with core.database.session() as session:
        if not session.run("DELETE FROM registry WHERE id = %s", (int(number),)):
            raise Refused(404, "NOT_FOUND", f"registry {number} not found")
    return Response()


def ping_registry(core: Core, request: Request) -> Response:
    """Decrypt the endpoint's credential, which proves secretkey; the endpoint itself is not called."""
    require_admin(core, request)
    number = request.json().get("id")
    with core.database.session() as session:
        row = session.row("SELECT * FROM registry WHERE id = %s", (number,))
    if row is None:
        raise Refused(404, "NOT_FOUND", f"registry {number} not found")
    try:
        cipher.decrypt(row["access_secret"] or "", core.secretkey)
    except (cipher.WrongKey, ValueError) as error:
        raise Refused(400, "BAD_REQUEST", f"registry {row['name']} is unhealthy: {error}") from error
    return Response()


def create_label(core: Core, request: Request) -> Response:
    """A cheap write: what a write probe creates and deletes."""
    who = require_admin(core, request)
    asked = request.json()
    if not asked.get("name") or asked.get("scope") not in ("g", "p"):
        raise Refused(400, "BAD_REQUEST", "name and scope (g or p) are required")
    project = int(asked.get("project_id") or 0)
    with core.database.session() as session:
        number = session.value(
            "INSERT INTO harbor_label (name, description, color, scope, project_id)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id",
            (asked["name"], asked.get("description", ""), asked.get("color", ""), asked["scope"], project),
        )
        if number is None:
            raise Refused(409, "CONFLICT", f"label {asked['name']} already exists")
        audit(session, project, "create", "label", asked["name"], who.name)
    return Response(201, headers={"Location": f"{API}/labels/{number}"})


def list_labels(core: Core, request: Request) -> Response:
    """All labels."""
    require_admin(core, request)
    return _listing(core, request, "harbor_label", "id")


def delete_label(core: Core, request: Request, number: str) -> Response:
    """Delete a label."""
    require_admin(core, request)
    with core.database.session() as session:
        session.run("DELETE FROM label_reference WHERE label_id = %s", (int(number),))
        if not session.run("DELETE FROM harbor_label WHERE id = %s", (int(number),)):
            raise Refused(404, "NOT_FOUND", f"label {number} not found")
    return Response()


def list_users(core: Core, request: Request) -> Response:
    """All users without what their passwords are kept in."""
    require_admin(core, request)
    return _listing(core, request, "harbor_user", "user_id", ("password", "salt", "password_version"))


def create_user(core: Core, request: Request) -> Response:
    """A user who may log in. Raises Refused (400, 409)."""
    who = require_admin(core, request)
    asked = request.json()
    name, password = str(asked.get("username", "")), str(asked.get("password", ""))
    if not name or len(password) < 8:
        raise Refused(400, "BAD_REQUEST", "username and a password of at least 8 characters are required")
    salt = passwords.new_salt()
    with core.database.session() as session:
        number = session.value(
            "INSERT INTO harbor_user (username, email, realname, password, salt) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING user_id",
            (
                name,
                asked.get("email") or None,
                asked.get("realname", ""),
                passwords.digest(password, salt),
                salt,
            ),
        )
        if number is None:
            raise Refused(409, "CONFLICT", f"user {name} already exists")
        audit(session, 0, "create", "user", name, who.name)
    return Response(201, headers={"Location": f"{API}/users/{number}"})


def delete_user(core: Core, request: Request, number: str) -> Response:
    """Delete a user, never the first administrator."""
    require_admin(core, request)
    with core.database.session() as session:
        if int(number) <= 1 or not session.run("DELETE FROM harbor_user WHERE user_id = %s", (int(number),)):
            raise Refused(404, "NOT_FOUND", f"user {number} not found")
    return Response()


def list_robots(core: Core, request: Request) -> Response:
    """All robots without their secrets."""
    require_admin(core, request)
    return _listing(core, request, "robot", "id", ("secret", "salt"))


def create_robot(core: Core, request: Request) -> Response:
    """A robot of the system or of one project; its secret is shown once."""
    who = require_admin(core, request)
    asked = request.json()
    name, level = str(asked.get("name", "")), asked.get("level", "system")
    secret, salt = str(asked.get("secret") or secrets.token_urlsafe(24)), passwords.new_salt()
    with core.database.session() as session:
        project: int | None = None
        if level == "project":
            namespace = str((asked.get("permissions") or [{}])[0].get("namespace", ""))
            found = find_project(session, namespace)
            if found is None:
                raise Refused(400, "BAD_REQUEST", f"project {namespace!r} not found")
            project, name = found["project_id"], f"{namespace}+{name}"
        number = session.value(
            "INSERT INTO robot (name, description, project_id, secret, salt) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING id",
            (name, asked.get("description", ""), project, passwords.digest(secret, salt), salt),
        )
        if number is None:
            raise Refused(409, "CONFLICT", f"robot {name} already exists")
        audit(session, project or 0, "create", "robot", name, who.name)
    created = {"id": number, "name": f"robot${name}", "secret": secret}
    return Response.of(created, status=201, headers={"Location": f"{API}/robots/{number}"})


def list_audit(core: Core, request: Request) -> Response:
    """The audit log, youngest first."""
    require_admin(core, request)
    newer = request.path.endswith("-exts")
    if newer and not core.database.audit_ext:
        raise Refused(404, "NOT_FOUND", "path /api/v2.0/auditlog-exts was not found")
    return _listing(core, request, "audit_log_ext" if core.database.audit_ext else "audit_log", "id DESC")


def list_quotas(core: Core, request: Request) -> Response:
    """What projects may use and what they use."""
    require_admin(core, request)
    limit, offset = request.page()
    with core.database.session() as session:
        total = session.value("SELECT count(*) FROM quota")
        rows = session.rows(
            "SELECT q.id, q.hard, u.used, q.reference_id AS ref, q.creation_time FROM quota q"
            " JOIN quota_usage u USING (reference, reference_id) ORDER BY q.id LIMIT %s OFFSET %s",
            (limit, offset),
        )
    return Response.of(rows, headers={"X-Total-Count": str(total)})


def register(routes: Routes) -> None:
    """Add this module's routes."""
    number = r"(?P<number>\d+)"
    for path, listing, create, delete in (
        ("registries", list_registries, create_registry, delete_registry),
        ("labels", list_labels, create_label, delete_label),
        ("users", list_users, create_user, delete_user),
    ):
        routes.add("GET", f"{API}/{path}", listing)
        routes.add("POST", f"{API}/{path}", create)
        routes.add("DELETE", f"{API}/{path}/{number}", delete)
    routes.add("POST", f"{API}/registries/ping", ping_registry)
    routes.add("GET", f"{API}/robots", list_robots)
    routes.add("POST", f"{API}/robots", create_robot)
    routes.add("GET", f"{API}/audit-logs", list_audit)
    routes.add("GET", f"{API}/auditlog-exts", list_audit)
    routes.add("GET", f"{API}/quotas", list_quotas)
