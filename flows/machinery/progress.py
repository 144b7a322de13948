"""Progress of long steps in the Prefect UI, which may fail or be slow without harm."""

import logging
import threading
import time
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from blocks import HarborSite
from tasks.backup.night.images import copy_images
from tasks.backup.restore.recovery import restore_images
from tasks.hosts.connection import Host
from tasks.outcome import Outcome
from tasks.pitr import images as pitr_images

_LOG = logging.getLogger(__name__)
_EVERY_S = 3.0


class Progress:
    """A bar in the UI, moved by a thread of its own: the server may be slow, or gone.

    Args:
        key: of the artifact: lower-case letters, digits and dashes.
        what: its description.
    """

    def __init__(self, key: str, what: str) -> None:
        self._key, self._what = key, what
        self._share = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # The bar is not worth waiting for: without its server, one call takes over a minute.
        self._thread.join(2 * _EVERY_S)

    def at(self, done: int, total: int, size: int) -> None:
        """Say how far it is; cheap."""
        self._share = 100.0 * done / total if total else 100.0

    def _run(self) -> None:
        artifact: Any = None
        while not self._stop.wait(_EVERY_S):
            try:
                if artifact is None:
                    artifact = create_progress_artifact(self._share, key=self._key, description=self._what)
                else:
                    update_progress_artifact(artifact, self._share)
            except Exception as error:
                _LOG.debug("No progress is shown: %s", error)
                time.sleep(_EVERY_S)


def copy_images_with_progress(
    site: HarborSite, host: Host, *, work: str, again: list[str] | None = None
) -> Outcome:
    """Copy images, with a bar in the UI; see `tasks.backup.night.images.copy_images`."""
    with Progress(f"images-{site.name}", f"Images of {site.name} into the bucket") as bar:
        return copy_images(site, host, work=work, again=again, progress=bar.at)


def restore_images_with_progress(
    site: HarborSite,
    host: Host,
    *,
    backup: str,
    identity_file: str | None = None,
    accept_unsigned: bool = False,
) -> Outcome:
    """Restore images, with a bar in the UI; see `tasks.backup.restore.recovery.restore_images`."""
    with Progress(f"restore-{site.name}", f"Images of {site.name} from the bucket") as bar:
        return restore_images(
            site,
            host,
            backup=backup,
            identity_file=identity_file,
            accept_unsigned=accept_unsigned,
            progress=bar.at,
        )


def restore_needed_images_with_progress(site: HarborSite, host: Host) -> Outcome:
    """Restore what the database refers to, with a bar in the UI; see `tasks.pitr.images.restore_images`."""
    with Progress(f"restore-{site.name}", f"Images of {site.name} from the bucket") as bar:
        return pitr_images.restore_images(site, host, progress=bar.at)
