"""/projects, their repositories, artifacts and tags."""

import json
import re
from typing import Any

from .. import config
from ..context import Core, audit
from ..database import Row, Session
from ..identity import Identity, allowed_actions, identify, require_user
from ..records import delete_artifact, find_artifact, find_project
from ..web import Refused, Request, Response, Routes

API = "/api/v2.0"
NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
PROJECT = r"(?P<project>[^/]+)"
REPOSITORY = r"(?P<repository>[^/]+)"


def _visible(core: Core, who: Identity, project: Row | None, action: str = "pull") -> Row:
    if project is None:
        raise Refused(404, "NOT_FOUND", "project not found")
    if action not in allowed_actions(core, who, project):
        if not who.name:
            raise Refused(401, "UNAUTHORIZED", "unauthorized")
        raise Refused(403, "FORBIDDEN", f"forbidden: {action} in project {project['name']}")
    return project


def _load(core: Core, request: Request, name: str, action: str = "pull") -> tuple[Identity, Row]:
    who = identify(core, request)
    with core.database.session() as session:
        project = find_project(session, name)
    return who, _visible(core, who, project, action)


def _present(session: Session, project: Row) -> dict[str, Any]:
    metadata = session.rows(
        "SELECT name, value FROM project_metadata WHERE project_id = %s", (project["project_id"],)
    )
    count = session.value("SELECT count(*) FROM repository WHERE project_id = %s", (project["project_id"],))
    return {**project, "metadata": {row["name"]: row["value"] for row in metadata}, "repo_count": count}


def list_projects(core: Core, request: Request) -> Response:
    """All projects for an administrator, the public ones for others."""
    who = identify(core, request)
    limit, offset = request.page()
    condition = "NOT deleted AND name LIKE %(like)s AND (%(admin)s OR project_id IN (SELECT project_id FROM"
    condition += " project_metadata WHERE name = 'public' AND value = 'true'))"
    like = f"%{request.query.get('name', '')}%"
    values: dict[str, Any] = {"like": like, "admin": who.admin, "limit": limit, "offset": offset}
    with core.database.session() as session:
        total = session.value(f"SELECT count(*) FROM project WHERE {condition}", values)
        rows = session.rows(
            f"SELECT * FROM project WHERE {condition} ORDER BY project_id LIMIT %(limit)s OFFSET %(offset)s",
            values,
        )
        found = [_present(session, row) for row in rows]
    return Response.of(found, headers={"X-Total-Count": str(total)})


def head_project(core: Core, request: Request) -> Response:
    """Does a project of this name exist."""
    require_user(core, request)
    with core.database.session() as session:
        if find_project(session, request.query.get("project_name", "")) is None:
            raise Refused(404, "NOT_FOUND", "project not found")
    return Response()


def create_project(core: Core, request: Request) -> Response:
    """Create a project with its metadata and quota. Raises Refused (400, 403, 409)."""
    who = require_user(core, request)
    if not who.admin and config.load(core)["project_creation_restriction"] == "adminonly":
        raise Refused(403, "FORBIDDEN", "only administrators may create projects")
    asked = request.json()
    name = str(asked.get("project_name", ""))
    if not NAME.fullmatch(name) or len(name) > 255:
        raise Refused(400, "BAD_REQUEST", f"invalid project name: {name!r}")
    metadata = {str(k): str(v) for k, v in (asked.get("metadata") or {}).items()}
    if asked.get("public") is not None:
        metadata["public"] = json.dumps(bool(asked["public"]))
    limit = asked.get("storage_limit")
    with core.database.session() as session:
        owner = who.user_id or 1
        project_id = session.value(
            "INSERT INTO project (name, owner_id) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING"
            " RETURNING project_id",
            (name, owner),
        )
        if project_id is None:
            raise Refused(409, "CONFLICT", f"The project named {name} already exists")
        complete_project(
            session, project_id, owner, {"public": "false", **metadata}, -1 if limit is None else limit
        )
        audit(session, project_id, "create", "project", name, who.name)
    return Response(201, headers={"Location": f"{API}/projects/{project_id}"})


def complete_project(
    session: Session, project_id: int, owner: int, metadata: dict[str, str], limit: int
) -> None:
    """The rows that belong to a new project: metadata, its owner as a member, quota."""
    for key, value in metadata.items():
        session.run(
            "INSERT INTO project_metadata (project_id, name, value) VALUES (%s, %s, %s)",
            (project_id, key, value),
        )
    session.run(
        "INSERT INTO project_member (project_id, entity_id, role) VALUES (%s, %s, 1)", (project_id, owner)
    )
    for table, column, used in (("quota", "hard", limit), ("quota_usage", "used", 0)):
        session.run(
            f"INSERT INTO {table} (reference, reference_id, {column}) VALUES ('project', %s, %s)",
            (str(project_id), json.dumps({"storage": used})),
        )


def get_project(core: Core, request: Request, project: str) -> Response:
    """One project."""
    _, row = _load(core, request, project)
    with core.database.session() as session:
        return Response.of(_present(session, row))


def delete_project(core: Core, request: Request, project: str) -> Response:
    """Delete an empty project. Raises Refused (412) while it has repositories."""
    who, row = _load(core, request, project, "delete")
    number = row["project_id"]
    with core.database.session() as session:
        if session.value("SELECT count(*) FROM repository WHERE project_id = %s", (number,)):
            raise Refused(412, "PRECONDITION", f"the project {row['name']} contains repositories")
        for table in ("project_metadata", "project_member", "project_blob"):
            session.run(f"DELETE FROM {table} WHERE project_id = %s", (number,))
        for table in ("quota", "quota_usage"):
            session.run(
                f"DELETE FROM {table} WHERE reference = 'project' AND reference_id = %s", (str(number),)
            )
        session.run("DELETE FROM project WHERE project_id = %s", (number,))
        audit(session, number, "delete", "project", row["name"], who.name)
    return Response()


def list_repositories(core: Core, request: Request, project: str = "") -> Response:
    """Repositories of one project, or of all for an administrator."""
    number: int | None = None
    if project:
        number = _load(core, request, project)[1]["project_id"]
    elif not require_user(core, request).admin:
        raise Refused(403, "FORBIDDEN", "name a project")
    limit, offset = request.page()
    with core.database.session() as session:
        total = session.value(
            "SELECT count(*) FROM repository WHERE project_id = coalesce(%s, project_id)", (number,)
        )
        rows = session.rows(
            "SELECT r.repository_id AS id, r.name, r.project_id, r.description, r.pull_count,"
            " r.creation_time, r.update_time,"
            " (SELECT count(*) FROM artifact a WHERE a.repository_id = r.repository_id)"
            " AS artifact_count FROM repository r WHERE r.project_id = coalesce(%s, r.project_id)"
            " ORDER BY r.repository_id LIMIT %s OFFSET %s",
            (number, limit, offset),
        )
    return Response.of(rows, headers={"X-Total-Count": str(total)})


def delete_repository(core: Core, request: Request, project: str, repository: str) -> Response:
    """Delete a repository with all its artifacts."""
    who, row = _load(core, request, project, "delete")
    name = f"{row['name']}/{repository}"
    with core.database.session() as session:
        found = session.row("SELECT * FROM repository WHERE name = %s", (name,))
        artifacts = session.rows(
            "SELECT * FROM artifact WHERE repository_name = %s ORDER BY id DESC", (name,)
        )
    if found is None:
        raise Refused(404, "NOT_FOUND", f"repository {name} not found")
    parents_first = sorted(artifacts, key=lambda item: "index" not in item["manifest_media_type"])
    for artifact in parents_first:
        delete_artifact(core, artifact, who.name)
    with core.database.session() as session:
        session.run("DELETE FROM repository WHERE repository_id = %s", (found["repository_id"],))
        audit(session, row["project_id"], "delete", "repository", name, who.name)
    return Response()


def _tags(session: Session, artifact: Row) -> list[Row]:
    return session.rows("SELECT * FROM tag WHERE artifact_id = %s ORDER BY id", (artifact["id"],))


def list_artifacts(core: Core, request: Request, project: str, repository: str) -> Response:
    """Artifacts of a repository with their tags, youngest first."""
    _, row = _load(core, request, project)
    name = f"{row['name']}/{repository}"
    limit, offset = request.page()
    with core.database.session() as session:
        if session.value("SELECT 1 FROM repository WHERE name = %s", (name,)) is None:
            raise Refused(404, "NOT_FOUND", f"repository {name} not found")
        total = session.value("SELECT count(*) FROM artifact WHERE repository_name = %s", (name,))
        rows = session.rows(
            "SELECT * FROM artifact WHERE repository_name = %s ORDER BY push_time DESC, id DESC"
            " LIMIT %s OFFSET %s",
            (name, limit, offset),
        )
        found = [{**artifact, "tags": _tags(session, artifact)} for artifact in rows]
    return Response.of(found, headers={"X-Total-Count": str(total)})


def get_artifact(core: Core, request: Request, project: str, repository: str, reference: str) -> Response:
    """One artifact by tag or digest."""
    _, row = _load(core, request, project)
    with core.database.session() as session:
        artifact = find_artifact(session, f"{row['name']}/{repository}", reference)
        if artifact is None:
            raise Refused(404, "NOT_FOUND", f"artifact {reference} not found")
        return Response.of({**artifact, "tags": _tags(session, artifact)})


def remove_artifact(core: Core, request: Request, project: str, repository: str, reference: str) -> Response:
    """Delete an artifact: its rows only."""
    who, row = _load(core, request, project, "delete")
    with core.database.session() as session:
        artifact = find_artifact(session, f"{row['name']}/{repository}", reference)
    if artifact is None:
        raise Refused(404, "NOT_FOUND", f"artifact {reference} not found")
    delete_artifact(core, artifact, who.name)
    return Response()


def register(routes: Routes) -> None:
    """Add this module's routes; a repository's name arrives with its slashes encoded."""
    one = f"{API}/projects/{PROJECT}"
    artifact = f"{one}/repositories/{REPOSITORY}/artifacts/(?P<reference>[^/]+)"
    routes.add("GET", f"{API}/projects", list_projects)
    routes.add("HEAD", f"{API}/projects", head_project)
    routes.add("POST", f"{API}/projects", create_project)
    routes.add("GET", one, get_project)
    routes.add("DELETE", one, delete_project)
    routes.add("GET", f"{API}/repositories", list_repositories)
    routes.add("GET", f"{one}/repositories", list_repositories)
    routes.add("DELETE", f"{one}/repositories/{REPOSITORY}", delete_repository)
    routes.add("GET", f"{one}/repositories/{REPOSITORY}/artifacts", list_artifacts)
    routes.add("GET", artifact, get_artifact)
    routes.add("DELETE", artifact, remove_artifact)
