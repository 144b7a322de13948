"""Progress of long steps in the Prefect UI, which may fail or be slow without harm."""

import logging
import threading
import time
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from blocks import HarborSite
from flows.machinery.around import run_logger, with_prefect
from tasks.backup.night.images import copy_images
from tasks.backup.night.nightly import dump
from tasks.backup.restore.recovery import restore_images
from tasks.hosts.connection import Host
from tasks.outcome import Outcome
from tasks.pitr import images as pitr_images

_LOG = logging.getLogger(__name__)
_EVERY_S = 3.0
# Without Prefect it is a line in the log.
_TOLD_EVERY_S = 30.0


class Progress:
    """A bar in the UI, moved by a thread of its own: the server may be slow, or gone.

    Args:
        key: of the artifact: lower-case letters, digits and dashes.
        what: its description.
    """

    def __init__(self, key: str, what: str) -> None:
        self._key, self._what = key, what
        self._share, self._text = 0.0, what
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # The bar is not worth waiting for: without its server, one call takes over a minute.
        self._thread.join(2 * _EVERY_S)

    def at(self, done: int, total: int, size: int, of: int) -> None:
        """Say how far it is: blobs and bytes, done and to be done; cheap."""
        self._share = share(done, total, size, of)
        self._text = f"{self._what}: {how_far(done, total, size, of, time.monotonic() - self._begun)}"

    def stream(self, size: int, expected: int) -> None:
        """Say how much of a stream has come, whose length is only guessed, 0 where even that cannot be; cheap."""
        self._share = min(99.0, 100.0 * size / expected) if expected else 0.0
        self._text = f"{self._what}: {how_far_in_stream(size, expected, time.monotonic() - self._begun)}"

    def _run(self) -> None:
        if not with_prefect():
            while not self._stop.wait(_TOLD_EVERY_S):
                run_logger().info("%s", self._text)
            return
        artifact: Any = None
        while not self._stop.wait(_EVERY_S):
            try:
                if artifact is None:
                    artifact = create_progress_artifact(self._share, key=self._key, description=self._text)
                else:
                    update_progress_artifact(artifact, self._share, self._text)
            except Exception as error:
                _LOG.debug("No progress is shown: %s", error)
                time.sleep(_EVERY_S)


def share(done: int, total: int, size: int, of: int) -> float:
    """Per cent, by bytes where these are known: of 1 TB, the small half of the blobs is nothing."""
    if size <= of and of:
        return 100.0 * size / of
    return 100.0 * done / total if total else 100.0


def how_far(done: int, total: int, size: int, of: int, seconds: float) -> str:
    """Say how far it is and how long the rest takes at this pace.

    Args:
        done, total: blobs.
        size, of: bytes; `of` is zero or too small where not all sizes are known.
        seconds: that it took so far.
    """
    text = f"{done:,} of {total:,} blobs, {_bytes(size)}"
    left = (of - size) / size if size and of > size else (total - done) / done if done else 0.0
    if of > size:
        text += f" of about {_bytes(of)}"
    if seconds < 1 or not size:
        return text
    text += f", {_bytes(size / seconds)}/s"
    return f"{text}, {_duration(left * seconds)} left at this pace" if done < total else text


def how_far_in_stream(size: int, expected: int, seconds: float) -> str:
    """Say how much came and how long the rest takes at this pace, if it becomes as long as was expected.

    Args:
        size, expected: bytes; zero where nothing is expected.
        seconds: that it took so far.
    """
    text = _bytes(size)
    if expected > size:
        text += f" of about {_bytes(expected)}, as much as the last time"
    if seconds < 1 or not size:
        return text
    text += f", {_bytes(size / seconds)}/s"
    if expected > size:
        return f"{text}, {_duration((expected - size) / size * seconds)} left at this pace"
    return f"{text}; {f'the last one had {_bytes(expected)}' if expected else 'there is no earlier one to go by'}"


def _bytes(size: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" or size >= 100 else f"{size:.1f} {units[0]}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def dump_with_progress(
    site: HarborSite, host: Host, *, backup: str, work: str, reason: str, expected: int = 0
) -> Outcome:
    """Dump the databases, with a bar in the UI; see `tasks.backup.night.nightly.dump`.

    Args:
        expected: bytes, those of the last backup; 0 when there is none.
    """
    with Progress(f"dump-{site.name}", f"Databases of {site.name} into the bucket") as bar:
        return dump(
            site,
            host,
            backup=backup,
            work=work,
            reason=reason,
            progress=lambda size: bar.stream(size, expected),
        )


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
