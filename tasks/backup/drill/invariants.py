"""What must be true of every database of Harbor, whatever its version."""

from dataclasses import dataclass

from tasks.backup.server import Server, query
from tasks.hosts.connection import Host

_COLUMNS = """
SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public';
"""


@dataclass(frozen=True)
class Invariant:
    """A statement about the data, as a query that counts what breaks it.

    Attributes:
        name: the statement.
        needs: `table.column` that this version of Harbor must have for it.
        violations: SQL that gives one number.
    """

    name: str
    needs: tuple[str, ...]
    violations: str


INVARIANTS = (
    Invariant(
        "the schema is not in the middle of a migration",
        ("schema_migrations.dirty",),
        "SELECT count(*) FROM schema_migrations WHERE dirty",
    ),
    Invariant(
        "every artifact belongs to a repository",
        ("artifact.repository_id", "repository.repository_id"),
        "SELECT count(*) FROM artifact a LEFT JOIN repository r USING (repository_id) WHERE r.repository_id IS NULL",
    ),
    Invariant(
        "every repository belongs to a project",
        ("repository.project_id", "project.project_id"),
        "SELECT count(*) FROM repository r LEFT JOIN project p USING (project_id) WHERE p.project_id IS NULL",
    ),
    Invariant(
        "every tag names an artifact",
        ("tag.artifact_id", "artifact.id"),
        "SELECT count(*) FROM tag t LEFT JOIN artifact a ON a.id = t.artifact_id WHERE a.id IS NULL",
    ),
    Invariant(
        "every artifact's manifest is a known blob",
        ("artifact.digest", "blob.digest"),
        "SELECT count(*) FROM artifact a LEFT JOIN blob b USING (digest) WHERE b.digest IS NULL",
    ),
    Invariant(
        "every layer that an artifact names is a known blob",
        ("artifact_blob.digest_blob", "artifact_blob.digest_af", "blob.digest"),
        "SELECT count(*) FROM artifact_blob ab JOIN artifact a ON a.digest = ab.digest_af "
        "LEFT JOIN blob b ON b.digest = ab.digest_blob WHERE b.digest IS NULL",
    ),
    Invariant(
        "no blob has a negative size",
        ("blob.size",),
        "SELECT count(*) FROM blob WHERE size < 0",
    ),
)


def broken_invariants(host: Host, server: Server, database: str) -> list[str]:
    """Check all invariants that this version's tables allow; returns the broken ones, each with its count."""
    columns = {row[0] for row in query(host, server, database, _COLUMNS)}
    broken = []
    for invariant in INVARIANTS:
        if not set(invariant.needs) <= columns:
            continue
        count = int(query(host, server, database, invariant.violations + ";", timeout=1800)[0][0])
        if count:
            broken.append(f"not true: {invariant.name} ({count} times)")
    return broken
