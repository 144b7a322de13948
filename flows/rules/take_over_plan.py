"""What becomes of each part of a Harbor that is adopted, and how long that takes."""

from dataclasses import dataclass

from blocks import HarborSite
from blocks.flaw import shown
from flows.rules.take_over import view_of_old
from flows.rules.take_over_external import external_lines, external_view_of
from tasks.harbor.adoption import OldHarbor

# Rates of the forecast: measured on one slow core with a local disk, as docs/adopt.md tells, and a third of that
# for the bytes, since a NAS is no local disk. The copy while Harbor serves shows the real ones before anything stops.
COPY_BYTES_S = 100e6
COPY_FILES_S = 650.0
LOOK_FILES_S = 8_500.0
# docs/benchmarks.md, "the load of a dump": 155 MB in 0.58 s; a tenth of it, for indexes and a real disk's syncs.
DATABASE_BYTES_S = 27e6
# From the end of the copy to a Harbor that takes pushes: prepare, the start of all containers, the schema.
START_S = 120.0


@dataclass(frozen=True)
class Forecast:
    """How long it takes, in seconds.

    Attributes:
        serving: the copy of the images, while the old Harbor serves.
        read_only: no pushes; pulls go on.
        down: neither.
    """

    serving: float
    read_only: float
    down: float


def forecast(old: OldHarbor) -> Forecast:
    """Estimate from sizes and the rates above; all files are looked at while it serves, is read-only, and is down."""
    one_pass = (old.found.blobs + old.links) / LOOK_FILES_S
    load = (old.database_bytes or 0) / DATABASE_BYTES_S
    return Forecast(
        serving=old.found.blob_bytes / COPY_BYTES_S + (old.found.blobs + old.links) / COPY_FILES_S,
        read_only=one_pass,
        down=one_pass + load + START_S,
    )


def what_becomes_of(site: HarborSite, old: OldHarbor) -> list[str]:
    """Tell what was found and what becomes of each part, for the report of a dry run too."""
    found, view = old.found, view_of_old(site, old, ())
    at_least = "" if found.blobs_whole else "at least "
    size = f"{at_least}{found.blobs:,} blobs of {size_of(found.blob_bytes)}"
    images = (
        f"images: {size} lie in {view.nas_images} already"
        if view.images_shared
        else f"images: {size} from {view.images_at} to {view.nas_images}, each blob proven by its digest; those in "
        f"{view.images_at} stay"
    )
    lines = [
        f"found: Harbor {found.version} in {found.directory} on {old.node} ({', '.join(found.services)})",
        *_database_lines(site, old),
        images,
        f"secretkey and token keys: copied from {view.data_volume}/secret to {view.site_volume}/secret on every node",
        f"settings: harbor.yml and the override of {found.directory} go on in {view.install_dir}; version "
        f"{view.site_version}",
        f"clients are told {shown(found.external_url) or 'nothing'} today, and will be told "
        f"https://{site.harbor.hostname}",
        "stays: "
        + " and ".join(sorted({found.directory, view.data_volume}))
        + ", as they are; the containers go, "
        "and come back with the command that puts it back",
    ]
    if found.adoption == "returned":
        lines.append(
            f"the adoption before this one: the site's Harbor is stopped on all nodes, the pair's database "
            f"{site.postgres.database} is renamed to {site.postgres.database}_aside_... and stays; what was pushed to "
            "it is not in the new copy"
        )
    if found.units:
        lines.append(f"at boot: {', '.join(found.units)} is disabled, or it would start the old Harbor again")
    return lines


def _database_lines(site: HarborSite, old: OldHarbor) -> list[str]:
    external = external_view_of(site, old)
    size = size_of(old.database_bytes or 0)
    if external is not None:
        first, *more = external_lines(external)
        return [f"{first}; {size}", *more]
    if old.found.database_host:
        return [f"database: of {old.found.database_host}; its rows are in the pair already"]
    return [
        f"database: {size} of PostgreSQL {old.database_major or '?'} out of harbor-db into the pair, with the rows of "
        "every table counted on both sides"
    ]


def how_long(old: OldHarbor) -> list[str]:
    """Tell the forecast in minutes, with where its rates come from."""
    seen = forecast(old)
    least = "" if old.found.blobs_whole else " at the least, since not everything could be counted in time"
    return [
        f"copying while it serves: {minutes(seen.serving)}{least}",
        f"read-only (pulls go on): {minutes(seen.read_only)}{least}",
        f"down: {minutes(seen.down)}{least}",
        f"by {COPY_BYTES_S / 1e6:.0f} MB/s and {COPY_FILES_S:,.0f} files/s copied and read back, {LOOK_FILES_S:,.0f} "
        f"files/s looked at, "
        f"{DATABASE_BYTES_S / 1e6:.0f} MB/s of database, {START_S:.0f} s for the start: rates of our own test machine "
        "(docs/adopt.md), and this NAS may be slower",
    ]


def size_of(count: int) -> str:
    """Write a number of bytes: below a tenth of a gigabyte in megabytes."""
    return f"{count / 1e6:,.0f} MB" if count < 1e8 else f"{count / 1e9:,.1f} GB"


def minutes(seconds: float) -> str:
    """Write a time so that it promises no more than it knows."""
    return "less than a minute" if seconds < 60 else f"{seconds / 60:.0f} min"
