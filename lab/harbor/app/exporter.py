"""Harbor's exporter: metrics from its own database session; its own copy of the database's address."""

import os

import psycopg2

from .database import Database
from .settings import DatabaseSettings
from .web import Refused, Request, Response, Server, heed_sigterm, setup_logging

QUERIES = {
    "harbor_project_total": "SELECT count(*) FROM project WHERE NOT deleted",
    "harbor_repo_total": "SELECT count(*) FROM repository",
    "harbor_artifact_total": "SELECT count(*) FROM artifact",
    "harbor_statistics_total_storage_consumption": "SELECT coalesce(sum(size), 0)::bigint FROM blob",
}


def settings() -> DatabaseSettings:
    """Read HARBOR_DATABASE_* as POSTGRESQL_*."""
    names = {"HOST": "HOST", "PORT": "PORT", "USERNAME": "USERNAME", "PASSWORD": "PASSWORD",
             "DBNAME": "DATABASE", "SSLMODE": "SSLMODE"}  # fmt: skip
    return DatabaseSettings.from_env(
        {
            f"POSTGRESQL_{ours}": os.environ.get(f"HARBOR_DATABASE_{theirs}", "")
            for theirs, ours in names.items()
        }
    )


def metrics(database: Database) -> str:
    """The page in Prometheus' text form."""
    lines = []
    try:
        with database.session() as session:
            lines = [f"{name} {session.value(sql)}" for name, sql in QUERIES.items()]
        lines.append("harbor_up 1")
    except psycopg2.Error:
        lines.append("harbor_up 0")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Serve for ever."""
    setup_logging()
    heed_sigterm()
    database = Database(settings())
    path = os.environ.get("HARBOR_EXPORTER_METRICS_PATH") or "/metrics"

    def answer(request: Request) -> Response:
        if request.path != path:
            raise Refused(404, "NOT_FOUND", "not found")
        return Response(
            body=metrics(database).encode(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    Server(int(os.environ.get("HARBOR_EXPORTER_PORT") or 8080), answer).serve_forever()


if __name__ == "__main__":
    main()
