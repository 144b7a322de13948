"""A night in which nothing changed: the image part of a backup, its seconds and its memory."""

import tempfile
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.meter import measured, peak_mb, prefect_alone_mb
from benchmarks.site import ETAG, digits_of, fill_bucket, fill_nas, in_child, oss_process
from blocks import HarborSite
from tasks.backup.format.blobs import BlobFile, IndexedBlob, NeededBlob, indexed_line, needed_line
from tasks.backup.night.images import NEEDED, UPLOADED
from tests.unit.local_host import local_host
from tests.unit.one_night import Night, new_night

BOUNDS = {100_000: 15.0, 1_000_000: 90.0}
BOUND_MB = 200.0


def run(blobs: int) -> list[str]:
    """Measure a night with so many blobs; returns lines for a reader."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        directory = Path(work)
        names = sorted(digits_of(number) for number in range(blobs))
        fill_bucket(directory / "server", "example", names)
        with oss_process(directory / "server") as oss:
            site_directory = directory / "site"
            site_directory.mkdir()
            night = new_night(site_directory, oss.endpoint)
            night.registry.rmdir()
            fill_nas(night.registry, names)
            given = {"site_file": str(night.site_file), "oss_pid": oss.pid}
            # The night before uploaded them, and left their checksums in its index.
            before = _lists(directory / "before", names, uploaded=True)
            in_child("benchmarks.night:image_part", **given, work=before, first=True)
            tonight = _lists(directory / "tonight", names, uploaded=False)
            told = in_child("benchmarks.night:image_part", **given, work=tonight, first=False)
    return _lines(blobs, told)


def _lists(directory: Path, names: list[str], *, uploaded: bool) -> str:
    """What a dump leaves for the image part: the blobs that the database needs."""
    directory.mkdir()
    digests = [f"sha256:{name}" for name in names]
    needed = (NeededBlob(digest, 0, pulled=number) for number, digest in enumerate(digests))
    BlobFile(directory / NEEDED).write(map(needed_line, needed))
    if uploaded:
        known = (IndexedBlob(digest, 0, 0, ETAG, "present", 0) for digest in digests)
        BlobFile(directory / UPLOADED).write(map(indexed_line, known))
    return str(directory)


def _lines(blobs: int, told: dict[str, Any]) -> list[str]:
    steps: dict[str, dict[str, float]] = told["steps"]
    seconds = sum(step["wall"] for step in steps.values())
    server = sum(step["oss"] for step in steps.values())
    more = told["peak_mb"] - prefect_alone_mb()
    bound = BOUNDS.get(blobs)
    ratio = f", {seconds / bound:.2f} of the bound of {bound:.0f} s" if bound else ""
    lines = [
        f"{blobs:,} blobs, nothing changed: {seconds:.1f} s{ratio}; {server:.1f} s of them "
        f"were CPU of the OSS server on this machine",
        *(
            f"    {name}: {step['wall']:.1f} s (CPU: ours {step['here']:.1f}, node {step['node']:.1f}, "
            f"OSS {step['oss']:.1f})"
            for name, step in steps.items()
        ),
        f"    memory above Prefect itself: {more:.0f} MB, {more / BOUND_MB:.2f} of the bound of {BOUND_MB:.0f} MB",
    ]
    assert told["copied"] == 0, "something was copied: this was no unchanged night"
    return lines


def image_part(site_file: str, work: str, oss_pid: int, first: bool) -> dict[str, Any]:
    """Run links, copy and closure as the flow does; called in a process of its own."""
    import prefect  # noqa: F401 - part of what is measured

    from flows.machinery.closure_check import check_closure
    from tasks.backup.format.layout import new_backup_id
    from tasks.backup.night.images import copy_images
    from tasks.backup.night.nightly import links

    night, host = Night(Path(site_file), None), local_host()
    # Backups are ordered by the second of their names.
    begun = datetime.now(UTC) - timedelta(days=1 if first else 0)
    site, backup = night.site, str(new_backup_id(begun))
    done: dict[str, Any] = {}
    steps = {
        "links": measured(lambda: done.update(links=links(site, host, backup=backup)), oss_pid),
        "copy": measured(lambda: done.update(copy=copy_images(site, host, work=work)), oss_pid),
        "closure": measured(
            lambda: done.update(closure=check_closure(site, host, backup=backup, work=work)), oss_pid
        ),
    }
    assert done["closure"].data["ok"], (done["copy"].detail, done["closure"].detail)
    if first:
        _publish(site, backup, done["closure"].data["artifact"])
    return {
        "steps": {name: asdict(spent) for name, spent in steps.items()},
        "peak_mb": peak_mb(),
        "copied": done["copy"].data["copied"],
    }


def _publish(site: HarborSite, backup: str, index: dict[str, Any]) -> None:
    """The next night finds this one's index."""
    from tasks.backup.format.catalogue import publish
    from tasks.backup.format.manifest import Artifact, Harbor, Manifest, Source
    from tasks.backup.settings import store_of, trust_of

    source = Source("", "primary", 0, "", "", 1, "")
    artifacts = (Artifact(**index),)
    moment = datetime.now(UTC).isoformat()
    manifest = Manifest(backup, "", moment, moment, "", source, Harbor("", "", ""), (), artifacts)
    publish(store_of(site), manifest, trust_of(site))
