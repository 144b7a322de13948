"""The bucket as a test sees it: what backups there are, and how to make OSS fail or lie."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.faults.stage import Stage
from tasks.backup.format.catalogue import Entry, list_backups, read_manifest
from tasks.backup.format.layout import BLOBS
from tasks.backup.format.manifest import Manifest
from tasks.backup.settings import store_of, trust_of
from tasks.storage.store import ObjectStore


class Bucket:
    """The site's bucket on the lab's OSS server."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.store: ObjectStore = store_of(stage.site)

    def complete(self) -> list[Entry]:
        """All complete backups, oldest first."""
        return [entry for entry in list_backups(self.store) if entry.complete]

    def newest(self) -> Manifest:
        """The manifest of the newest complete backup."""
        return read_manifest(self.store, self.complete()[-1].backup, trust_of(self._stage.site))

    def uploads(self) -> int:
        """How many multipart uploads were begun and neither completed nor aborted."""
        return len(self.store.bucket.list_multipart_uploads(prefix=self.store.base).upload_list)

    def blobs(self) -> list[str]:
        """The keys of all blobs."""
        return [found.key for found in self.store.list(BLOBS)]

    @contextmanager
    def failing(self, *rules: dict[str, Any]) -> Iterator[None]:
        """Make OSS fail by these rules; see lab/oss/faults.py."""
        self._ask("POST", list(rules))
        try:
            yield
        finally:
            self._ask("DELETE", None)

    def hits(self) -> int:
        """How many requests ran into a rule that is in force."""
        return sum(int(rule["hits"]) for rule in self._ask("GET", None))

    def _ask(self, method: str, body: Any) -> Any:
        oss = self._stage.site.oss
        assert oss is not None
        request = urllib.request.Request(
            f"{oss.endpoint}/_faults", method=method, data=None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())
