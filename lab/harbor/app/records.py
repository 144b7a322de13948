"""The rows of a push and of a delete: storage first, rows after, and only rows on a delete."""

import json
from typing import Any

from .context import Core, audit
from .database import Row, Session
from .manifests import Manifest
from .web import Refused


def split_name(repository: str) -> tuple[str, str]:
    """Project and the rest of a repository's name. Raises Refused (400) without a project."""
    project, slash, rest = repository.partition("/")
    if not slash or not rest:
        raise Refused(400, "NAME_INVALID", f"invalid repository name: {repository}")
    return project, rest


def find_project(session: Session, name_or_id: str) -> Row | None:
    """A project by name, or by number."""
    row = session.row("SELECT * FROM project WHERE name = %s AND NOT deleted", (name_or_id,))
    if row is None and name_or_id.isdigit():
        row = session.row("SELECT * FROM project WHERE project_id = %s AND NOT deleted", (int(name_or_id),))
    return row


def find_artifact(session: Session, repository: str, reference: str) -> Row | None:
    """An artifact by tag or digest, from the database alone."""
    if ":" in reference:
        return session.row(
            "SELECT * FROM artifact WHERE repository_name = %s AND digest = %s", (repository, reference)
        )
    return session.row(
        "SELECT a.* FROM artifact a JOIN tag t ON t.artifact_id = a.id"
        " WHERE a.repository_name = %s AND t.name = %s",
        (repository, reference),
    )


def record_blob(session: Session, project_id: int, digest: str, size: int, media_type: str) -> None:
    """A blob exists in storage and belongs to a project; a known one is touched against GC."""
    blob_id = session.value(
        "INSERT INTO blob (digest, content_type, size) VALUES (%s, %s, %s) ON CONFLICT (digest) DO UPDATE"
        " SET update_time = now(), version = blob.version + 1, status = 'none',"
        " content_type = CASE WHEN EXCLUDED.content_type LIKE 'application/octet%%' THEN blob.content_type"
        " ELSE EXCLUDED.content_type END RETURNING id",
        (digest, media_type, size),
    )
    session.run(
        "INSERT INTO project_blob (project_id, blob_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (project_id, blob_id),
    )


def missing_parts(session: Session, project_id: int, repository: str, manifest: Manifest) -> list[str]:
    """Digests that a manifest names and that the database does not know."""
    digests = [blob.digest for blob in manifest.blobs]
    known = session.rows(
        "SELECT b.digest FROM blob b JOIN project_blob p ON p.blob_id = b.id"
        " WHERE p.project_id = %s AND b.digest = ANY(%s)",
        (project_id, digests),
    )
    have = {row["digest"] for row in known}
    missing = [b.digest for b in manifest.blobs if b.digest not in have and "foreign" not in b.media_type]
    return missing + [c.digest for c in manifest.children if not find_artifact(session, repository, c.digest)]


def _repository(session: Session, project_id: int, name: str) -> int:
    session.run(
        "INSERT INTO repository (name, project_id) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
        (name, project_id),
    )
    return int(session.value("SELECT repository_id FROM repository WHERE name = %s", (name,)))


def _artifact(session: Session, project_id: int, repository_id: int, repository: str, m: Manifest) -> int:
    kind = "IMAGE" if "image" in m.config_type or "manifest" in m.config_type else "UNKNOWN"
    return int(
        session.value(
            "INSERT INTO artifact (type, media_type, manifest_media_type, artifact_type, project_id,"
            " repository_id, repository_name, digest, size, extra_attrs, annotations)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (repository_id, digest) DO UPDATE SET push_time = now() RETURNING id",
            (kind, m.config_type, m.media_type, m.config_type, project_id, repository_id, repository,
             m.digest, m.size, "{}", json.dumps(m.annotations)),
        )
    )  # fmt: skip


def _links(session: Session, artifact_id: int, repository: str, manifest: Manifest) -> None:
    for digest in {manifest.digest, *(blob.digest for blob in manifest.blobs)}:
        session.run(
            "INSERT INTO artifact_blob (digest_af, digest_blob) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (manifest.digest, digest),
        )
    for child in manifest.children:
        row = find_artifact(session, repository, child.digest)
        if row is not None:
            session.run(
                "INSERT INTO artifact_reference (parent_id, child_id, child_digest, platform)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (artifact_id, row["id"], child.digest, child.platform),
            )


def record_manifest(
    core: Core, project_id: int, repository: str, reference: str, manifest: Manifest, length: int, user: str
) -> None:
    """All rows of an accepted manifest in one transaction: repository, artifact, blobs, links, tag."""
    with core.database.session() as session:
        repository_id = _repository(session, project_id, repository)
        artifact_id = _artifact(session, project_id, repository_id, repository, manifest)
        record_blob(session, project_id, manifest.digest, length, manifest.media_type)
        for blob in manifest.blobs:
            record_blob(session, project_id, blob.digest, blob.size, blob.media_type)
        _links(session, artifact_id, repository, manifest)
        session.run(
            "DELETE FROM artifact_trash WHERE repository_name = %s AND digest = %s",
            (repository, manifest.digest),
        )
        if ":" not in reference:
            session.run(
                "INSERT INTO tag (repository_id, artifact_id, name) VALUES (%s, %s, %s)"
                " ON CONFLICT (repository_id, name) DO UPDATE"
                " SET artifact_id = EXCLUDED.artifact_id, push_time = now()",
                (repository_id, artifact_id, reference),
            )
        separator = "@" if ":" in reference else ":"
        audit(session, project_id, "create", "artifact", f"{repository}{separator}{reference}", user)
        refresh_quota(session, project_id)


def delete_artifact(core: Core, artifact: Row, user: str) -> None:
    """Remove an artifact's rows; its blobs stay in storage until GC looks for them."""
    with core.database.session() as session:
        parent = session.value(
            "SELECT count(*) FROM artifact_reference WHERE child_id = %s", (artifact["id"],)
        )
        if parent:
            raise Refused(412, "PRECONDITION", "the artifact is referenced by an index, delete that first")
        session.run("DELETE FROM tag WHERE artifact_id = %s", (artifact["id"],))
        session.run("DELETE FROM artifact_reference WHERE parent_id = %s", (artifact["id"],))
        session.run("DELETE FROM label_reference WHERE artifact_id = %s", (artifact["id"],))
        session.run("DELETE FROM artifact WHERE id = %s", (artifact["id"],))
        left = session.value("SELECT count(*) FROM artifact WHERE digest = %s", (artifact["digest"],))
        if not left:
            session.run("DELETE FROM artifact_blob WHERE digest_af = %s", (artifact["digest"],))
        session.run(
            "INSERT INTO artifact_trash (media_type, manifest_media_type, repository_name, digest)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                artifact["media_type"],
                artifact["manifest_media_type"],
                artifact["repository_name"],
                artifact["digest"],
            ),
        )
        name = f"{artifact['repository_name']}@{artifact['digest']}"
        audit(session, artifact["project_id"], "delete", "artifact", name, user)
        refresh_quota(session, artifact["project_id"])


def refresh_quota(session: Session, project_id: int) -> None:
    """What a project uses: the bytes of its blobs."""
    used: Any = session.value(
        "SELECT coalesce(sum(b.size), 0)::bigint FROM blob b JOIN project_blob p ON p.blob_id = b.id"
        " WHERE p.project_id = %s",
        (project_id,),
    )
    session.run(
        "UPDATE quota_usage SET used = %s, update_time = now()"
        " WHERE reference = 'project' AND reference_id = %s",
        (json.dumps({"storage": int(used)}), str(project_id)),
    )
