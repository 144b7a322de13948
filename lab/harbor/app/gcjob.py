"""Garbage collection: what no artifact names goes, first from storage, then its rows."""

import logging
from collections.abc import Mapping
from typing import Any

from .client import call
from .database import Database, Row

log = logging.getLogger("gc")


class Collector:
    """One run. Parameters: `dry_run`, `delete_untagged`, `time_window` (hours that a young blob is safe)."""

    def __init__(self, database: Database, registryctl: str, parameters: Mapping[str, Any]) -> None:
        self._database = database
        self._registryctl = registryctl
        self._dry_run = bool(parameters.get("dry_run"))
        self._window = float(parameters.get("time_window", 2))

    def _refuse_when_read_only(self) -> None:
        with self._database.session() as session:
            if session.value("SELECT v FROM properties WHERE k = 'read_only'") == "true":
                raise RuntimeError("the system is in read only mode, the sweep is given up")

    def candidates(self) -> list[Row]:
        """Blobs that no artifact names and that are older than the window."""
        with self._database.session() as session:
            return session.rows(
                "SELECT id, digest, size FROM blob b WHERE NOT EXISTS"
                " (SELECT 1 FROM artifact_blob a WHERE a.digest_blob = b.digest)"
                " AND NOT EXISTS (SELECT 1 FROM artifact f WHERE f.digest = b.digest)"
                " AND update_time <= now() - make_interval(secs => %s) ORDER BY id",
                (self._window * 3600,),
            )

    def _ask(self, target: str) -> None:
        answer = call(self._registryctl, "DELETE", target, timeout=60)
        answer.read()
        if answer.status not in (200, 404):
            raise RuntimeError(f"registryctl: DELETE {target}: {answer.status}")

    def _sweep_manifests(self) -> None:
        with self._database.session() as session:
            trash = session.rows("SELECT * FROM artifact_trash ORDER BY id")
        for item in trash:
            self._ask(f"/api/registry/{item['repository_name']}/manifests/{item['digest']}")
            with self._database.session() as session:
                session.run("DELETE FROM artifact_trash WHERE id = %s", (item["id"],))

    def run(self) -> int:
        """Sweep; the number of blobs deleted. Raises RuntimeError, OSError or psycopg2.Error."""
        found = self.candidates()
        if self._dry_run:
            return 0
        self._refuse_when_read_only()
        self._sweep_manifests()
        for blob in found:
            self._refuse_when_read_only()
            self._ask(f"/api/registry/blob/{blob['digest']}")
            with self._database.session() as session:
                session.run("DELETE FROM project_blob WHERE blob_id = %s", (blob["id"],))
                session.run("DELETE FROM blob WHERE id = %s", (blob["id"],))
            log.info("deleted blob %s, %d bytes", blob["digest"], blob["size"])
        return len(found)
