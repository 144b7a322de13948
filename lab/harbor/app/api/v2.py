"""/v2/: the registry protocol. Core checks who asks, streams to the registry, then writes rows."""

import logging
from collections.abc import Mapping
from urllib.parse import quote

import psycopg2

from .. import config, manifests, records
from ..client import Answer, basic, call
from ..context import Core
from ..database import Row
from ..identity import Identity, allowed_actions, identify
from ..tokens import Access
from ..web import Refused, Request, Response, Routes

log = logging.getLogger("v2")
NAME = r"(?P<name>[a-z0-9]+(?:[._/-][a-z0-9]+|__[a-z0-9]+)*)"
DIGEST = r"(?P<digest>sha256:[0-9a-f]{64})"
FORWARDED = ("Content-Type", "Content-Range", "Content-Length", "Range", "Accept", "User-Agent",
             "X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Host")  # fmt: skip
HOP_BY_HOP = frozenset({"Connection", "Transfer-Encoding", "Keep-Alive", "Date", "Server"})
ACCEPT_ALL = ", ".join(
    (manifests.OCI_MANIFEST, manifests.OCI_INDEX, manifests.DOCKER_MANIFEST, manifests.DOCKER_LIST)
)


def _challenge(core: Core, scope: str = "") -> dict[str, str]:
    value = f'Bearer realm="{core.settings.ext_endpoint}/service/token",service="harbor-registry"'
    return {"Www-Authenticate": value + (f',scope="{scope}"' if scope else "")}


def _may(core: Core, who: Identity, project: Row | None, name: str, action: str) -> bool:
    if who.granted is not None:
        return any(a.kind == "repository" and a.name == name and action in a.actions for a in who.granted)
    return action in allowed_actions(core, who, project)


def _admit(core: Core, request: Request, name: str, action: str) -> tuple[Identity, Row]:
    """Who asks and the project. Raises Refused: 401 with the challenge, 404, 403 while read-only."""
    scope = f"repository:{name}:{'pull,push' if action == 'push' else action}"
    try:
        who = identify(core, request)
    except Refused as refusal:
        raise Refused(401, refusal.code, refusal.message, _challenge(core, scope)) from refusal
    if action != "pull":
        config.refuse_when_read_only(core)
    with core.database.session() as session:
        project = records.find_project(session, records.split_name(name)[0])
    if not _may(core, who, project, name, action):
        message = f"unauthorized to access repository: {name}, action: {action}"
        raise Refused(401, "UNAUTHORIZED", message, _challenge(core, scope))
    if project is None:
        raise Refused(404, "NOT_FOUND", f"project {records.split_name(name)[0]} not found")
    return who, project


def _upstream(core: Core, request: Request, target: str, body: bool = False, method: str = "") -> Answer:
    """Ask the registry with core's own credential, as the client would have asked."""
    headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
    headers["Authorization"] = basic(core.settings.registry_user, core.settings.registry_password)
    # Without Accept the registry falls back to schema 1, which nobody has had for years.
    headers.setdefault("Accept", ACCEPT_ALL)
    headers["Host"] = request.headers.get("Host", "registry:5000")
    chunked = body and request.body.chunked
    if not body:
        headers.pop("Content-Length", None)
    elif chunked:
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers["Content-Length"] = str(request.body.length)
    return call(
        core.settings.registry_url,
        method or request.method,
        target,
        headers=headers,
        body=iter(request.body) if body else None,
        chunked=chunked,
        timeout=300,
    )


def _pass_on(answer: Answer, extra: Mapping[str, str] | None = None) -> Response:
    headers = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
    # A 401 here is the registry's own: its htpasswd was rewritten under a running core. It goes out as it is.
    headers |= dict(extra or {})
    return Response(answer.status, answer.stream(), headers)


def _target(request: Request) -> str:
    return request.path + (f"?{request.raw_query}" if request.raw_query else "")


def version_check(core: Core, request: Request) -> Response:
    """GET /v2/: 401 with the token realm for strangers, 200 for those who are known."""
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    try:
        who = identify(core, request)
    except Refused as refusal:
        raise Refused(401, refusal.code, refusal.message, headers | _challenge(core)) from refusal
    if not who.name:
        raise Refused(401, "UNAUTHORIZED", "unauthorized: unauthorized", headers | _challenge(core))
    return Response.of({}, headers=headers)


def catalog(core: Core, request: Request) -> Response:
    """All repositories, for administrators."""
    who = identify(core, request)
    if not who.admin and Access("registry", "catalog", ("*",)) not in (who.granted or ()):
        raise Refused(401, "UNAUTHORIZED", "unauthorized", _challenge(core, "registry:catalog:*"))
    with core.database.session() as session:
        rows = session.rows("SELECT name FROM repository ORDER BY name")
    return Response.of({"repositories": [row["name"] for row in rows]})


def list_tags(core: Core, request: Request, name: str) -> Response:
    """Tags of a repository, from the database."""
    _admit(core, request, name, "pull")
    with core.database.session() as session:
        rows = session.rows(
            "SELECT t.name FROM tag t JOIN repository r USING (repository_id) WHERE r.name = %s"
            " ORDER BY t.name",
            (name,),
        )
    return Response.of({"name": name, "tags": [row["name"] for row in rows]})


def start_upload(core: Core, request: Request, name: str) -> Response:
    """POST uploads: begin, mount from another repository, or the whole blob at once."""
    _, project = _admit(core, request, name, "push")
    source = request.query.get("from", "")
    if "mount" in request.query and source:
        _admit(core, request, source, "pull")
    answer = _upstream(core, request, _target(request), body=True)
    digest = request.query.get("mount") or request.query.get("digest")
    if answer.status == 201 and digest:
        _blob_arrived(core, request, name, project, digest)
    return _pass_on(answer)


def continue_upload(core: Core, request: Request, name: str, upload: str) -> Response:
    """PATCH, GET, DELETE of an upload."""
    _admit(core, request, name, "push")
    return _pass_on(_upstream(core, request, _target(request), body=request.method == "PATCH"))


def finish_upload(core: Core, request: Request, name: str, upload: str) -> Response:
    """PUT of an upload with its digest: storage first, the row after."""
    _, project = _admit(core, request, name, "push")
    answer = _upstream(core, request, _target(request), body=True)
    if answer.status == 201:
        _blob_arrived(core, request, name, project, request.query["digest"])
    return _pass_on(answer)


def _blob_arrived(core: Core, request: Request, name: str, project: Row, digest: str) -> None:
    probe = _upstream(core, request, f"/v2/{name}/blobs/{quote(digest)}", method="HEAD")
    probe.read()
    size = int(probe.headers.get("Content-Length", 0))
    with core.database.session() as session:
        records.record_blob(session, project["project_id"], digest, size, "application/octet-stream")


def blob(core: Core, request: Request, name: str, digest: str) -> Response:
    """GET or HEAD of a blob. HEAD asks the database first, and writes: it touches the row, so that GC leaves it alone.

    A blob without a row is not there, whatever the storage holds: a client that is told so sends it again, and has a
    row. As Harbor does; without it nobody could push into a database that is younger than its storage.
    """
    _, project = _admit(core, request, name, "pull")
    if request.method == "HEAD":
        with core.database.session() as session:
            touched = session.run(
                "UPDATE blob SET update_time = now(), version = version + 1 WHERE digest = %s AND EXISTS"
                " (SELECT 1 FROM project_blob p WHERE p.blob_id = blob.id AND p.project_id = %s)",
                (digest, project["project_id"]),
            )
        if not touched:
            raise Refused(404, "BLOB_UNKNOWN", f"blob {digest} not found")
    return _pass_on(_upstream(core, request, _target(request)))


def put_manifest(core: Core, request: Request, name: str, reference: str) -> Response:
    """PUT of a manifest: checked, stored by the registry, then recorded in one transaction."""
    who, project = _admit(core, request, name, "push")
    content_type = request.headers.get("Content-Type", manifests.OCI_MANIFEST)
    body = request.body.read(manifests.MAX_SIZE)
    try:
        parsed = manifests.parse(body, content_type)
    except manifests.BadManifest as error:
        raise Refused(400, "MANIFEST_INVALID", str(error)) from error
    if ":" in reference and reference != parsed.digest:
        raise Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
    with core.database.session() as session:
        missing = records.missing_parts(session, project["project_id"], name, parsed)
    if missing:
        raise Refused(404, "MANIFEST_BLOB_UNKNOWN", f"blobs unknown to the project: {', '.join(missing)}")
    headers = {
        "Authorization": basic(core.settings.registry_user, core.settings.registry_password),
        "Content-Type": content_type,
        "Host": request.headers.get("Host", "registry:5000"),
    }
    answer = call(core.settings.registry_url, "PUT", _target(request), headers=headers, body=body)
    if answer.status == 201:
        records.record_manifest(
            core, project["project_id"], name, reference, parsed, len(body), who.name or "anonymous"
        )
    return _pass_on(answer)


def _count_pull(core: Core, artifact: Row, reference: str) -> None:
    """A pull leaves its time; when the database cannot write, the pull succeeds and the log says so."""
    try:
        with core.database.session() as session:
            session.run("UPDATE artifact SET pull_time = now() WHERE id = %s", (artifact["id"],))
            session.run("UPDATE tag SET pull_time = now() WHERE artifact_id = %s AND name = %s",
                        (artifact["id"], reference))  # fmt: skip
            session.run("UPDATE repository SET pull_count = pull_count + 1 WHERE repository_id = %s",
                        (artifact["repository_id"],))  # fmt: skip
    except psycopg2.Error as error:
        log.error("pull time of %s: %s", artifact["digest"], error)


def get_manifest(core: Core, request: Request, name: str, reference: str) -> Response:
    """GET or HEAD of a manifest: tag to digest by the database, the bytes from the registry."""
    _admit(core, request, name, "pull")
    with core.database.session() as session:
        artifact = records.find_artifact(session, name, reference)
    if artifact is None:
        raise Refused(404, "NOT_FOUND", f"artifact {name}:{reference} not found")
    answer = _upstream(core, request, f"/v2/{name}/manifests/{artifact['digest']}")
    counted = request.headers.get("User-Agent", "") != "harbor-registry-client"
    if request.method == "GET" and answer.status == 200 and counted:
        _count_pull(core, artifact, reference)
    return _pass_on(answer)


def delete_manifest(core: Core, request: Request, name: str, reference: str) -> Response:
    """DELETE of a manifest: rows only."""
    who, _ = _admit(core, request, name, "delete")
    with core.database.session() as session:
        artifact = records.find_artifact(session, name, reference)
    if artifact is None:
        raise Refused(404, "NOT_FOUND", f"artifact {name}@{reference} not found")
    records.delete_artifact(core, artifact, who.name)
    return Response(202)


def register(routes: Routes) -> None:
    """Add the routes of the registry protocol."""
    upload = rf"/v2/{NAME}/blobs/uploads/(?P<upload>[0-9a-f-]+)/?"
    reference = r"(?P<reference>[\w.:-]+)"
    routes.add("GET", "/v2/?", version_check)
    routes.add("GET", "/v2/_catalog", catalog)
    routes.add("GET", rf"/v2/{NAME}/tags/list", list_tags)
    routes.add("POST", rf"/v2/{NAME}/blobs/uploads/?", start_upload)
    routes.add("PUT", upload, finish_upload)
    for method in ("PATCH", "GET", "DELETE"):
        routes.add(method, upload, continue_upload)
    for method in ("GET", "HEAD"):
        routes.add(method, rf"/v2/{NAME}/blobs/{DIGEST}", blob)
        routes.add(method, rf"/v2/{NAME}/manifests/{reference}", get_manifest)
    routes.add("PUT", rf"/v2/{NAME}/manifests/{reference}", put_manifest)
    routes.add("DELETE", rf"/v2/{NAME}/manifests/{reference}", delete_manifest)
