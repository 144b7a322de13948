"""A Harbor that a node has already: what of it bootstrap would go on from, and what it refuses to touch."""

from collections.abc import Iterator
from dataclasses import dataclass

from blocks import HarborSite
from blocks.flaw import shown
from flows.rules.table import Check, Weight, evidence, fill, violations
from tasks.harbor.found import HarborFound
from tasks.harbor.versions import OLDEST, Version
from tasks.hosts.preflight import NodeSeen


@dataclass(frozen=True)
class FoundView:
    """A Harbor on a node beside what the site file says.

    Attributes:
        directory, version, storage, database_host, data_volume, images_at: of the Harbor that was found.
        installed_here: this software has unpacked an installer on the node.
        runs: its core runs.
        install_dir, site_volume, site_version, nas_images: of the site file.
        addresses: the site's nodes.
        on_the_sites: the port and the name of its database are those of the site's, as far as they are known.
    """

    directory: str
    version: str
    storage: str
    database_host: str
    data_volume: str
    images_at: str
    installed_here: bool
    runs: bool
    install_dir: str
    site_volume: str
    site_version: str
    nas_images: str
    addresses: tuple[str, ...]
    on_the_sites: bool = True

    @property
    def named(self) -> str:
        """Call it by its version, where that is known."""
        return f"Harbor {self.version}" if self.version else "Harbor"

    @property
    def place(self) -> str:
        """Name its directory."""
        return self.directory or "a directory that cannot be told"

    @property
    def elsewhere(self) -> bool:
        """Whether it lies in another directory than the site's; its containers have the same names as the site's."""
        return self.directory != self.install_dir

    @property
    def on_foreign_database(self) -> bool:
        """Whether its data is on a server that is none of the site's."""
        # A node may run a server of somebody else's beside the site's.
        named = self.database_host in self.addresses and self.on_the_sites
        return bool(self.database_host) and not named

    @property
    def volume_elsewhere(self) -> bool:
        """Whether its secrets and its bundled database lie elsewhere than the site's."""
        return bool(self.data_volume) and self.data_volume != self.site_volume

    @property
    def images_elsewhere(self) -> bool:
        """Whether its images lie neither in its own data volume nor on the site's NAS."""
        return bool(self.images_at) and self.images_at not in (
            self.nas_images,
            f"{self.data_volume}/registry",
        )

    @property
    def too_old(self) -> bool:
        """Whether it is from before the first version that is supported."""
        known = numbers(self.version)
        return known is not None and known < OLDEST

    @property
    def newer(self) -> bool:
        """Whether the site file names an older version: a database that was migrated does not go back."""
        known, wanted = numbers(self.version), numbers(self.site_version)
        return known is not None and wanted is not None and known > wanted


_STAYS = (
    "nothing of it was touched; take the node out of the site file, or take that Harbor down if it may go"
)

ADOPTION_CHECKS: tuple[Check[FoundView], ...] = (
    Check(
        "another directory",
        "its compose project lies in another directory than harbor.install_dir",
        lambda view: view.elsewhere,
        Weight.REFUSE,
        "a {named} is installed in {place}, and the site file says {install_dir}",
        "if it is to become this site, run `adopt`, first with dry_run, which says what it would do; nothing of it was "
        "touched",
    ),
    Check(
        "external database",
        "this software did not install it, and its database is on a server that is none of the site's",
        lambda view: not view.installed_here and view.on_foreign_database,
        Weight.REFUSE,
        "the Harbor in {directory} has its data on the external server {database_host}, and would be switched to an "
        "empty pair",
        "to take it over set harbor.install_dir and harbor.data_volume to other directories than its own, and run "
        "`adopt`, first with dry_run; nothing of it was touched",
    ),
    Check(
        "another data volume",
        "this software did not install it, and its data volume is another one than harbor.data_volume",
        lambda view: not view.elsewhere and not view.installed_here and view.volume_elsewhere,
        Weight.REFUSE,
        "the Harbor in {directory} has its secrets and its data in {data_volume}, and the site file says "
        "{site_volume}: it would start without both",
        "set harbor.data_volume to {data_volume}, or stop that Harbor, move the directory to {site_volume}, correct "
        "its harbor.yml, and run its ./prepare and start it",
    ),
    Check(
        "images elsewhere",
        "this software did not install it, and its images lie neither in its data volume nor on the NAS",
        lambda view: not view.elsewhere and not view.installed_here and view.images_elsewhere,
        Weight.REFUSE,
        "the Harbor in {directory} has its images in {images_at}, which is neither {data_volume}/registry nor the NAS",
        "copy them to {nas_images} with Harbor stopped, and mount that instead",
    ),
    Check(
        "object store",
        "Harbor keeps its images through a driver of its own",
        lambda view: view.storage != "filesystem",
        Weight.REFUSE,
        "the Harbor in {directory} keeps its images through the driver {storage}, and only the file system is "
        "supported",
        _STAYS,
    ),
    Check(
        "too old",
        "it is older than 2.3",
        lambda view: view.too_old,
        Weight.REFUSE,
        "the Harbor in {directory} is {version}, and nothing before 2.3 is taken over",
        "upgrade it step by step, as its own documentation says, and come back",
    ),
    Check(
        "newer",
        "it is newer than harbor.version",
        lambda view: view.newer,
        Weight.REFUSE,
        "the Harbor in {directory} is {version}, and the site file names {site_version}: what a newer one has migrated "
        "an older one does not read",
        "name the installer of {version} or a newer one",
    ),
)


def adoption_objections(site: HarborSite, node: NodeSeen) -> Iterator[str]:
    """List what speaks against building on the Harbor that a node has, each with what to do about it."""
    if node.harbor is None:
        return
    view = view_of(site, node.harbor, installed_here=node.harbor_sha256 is not None)
    for check in violations(ADOPTION_CHECKS, view):
        seen = evidence(view)
        yield f"{fill(check.reason, seen)} -> {fill(check.remedy, seen)}"
    for sentence in node.harbor.settings:
        yield sentence if "->" in sentence else f"{sentence} -> correct it; nothing was changed"


def view_of(site: HarborSite, found: HarborFound, *, installed_here: bool) -> FoundView:
    """Put a Harbor that was found beside the site file."""
    return FoundView(
        directory=found.directory,
        version=found.version,
        storage=found.storage,
        database_host=found.database_host,
        data_volume=(found.data_volume or "").rstrip("/"),
        images_at=(found.images_at or "").rstrip("/"),
        installed_here=installed_here,
        runs=found.runs,
        install_dir=site.harbor.install_dir.rstrip("/"),
        site_volume=site.harbor.data_volume.rstrip("/"),
        site_version=site.harbor.version.removeprefix("v"),
        nas_images=site.nas.registry.rstrip("/"),
        addresses=tuple(node.address for node in site.nodes),
        on_the_sites=_names_the_sites(site, found),
    )


def _names_the_sites(site: HarborSite, found: HarborFound) -> bool:
    wanted = {"POSTGRESQL_PORT": str(site.postgres.port), "POSTGRESQL_DATABASE": site.postgres.database}
    return all(found.core_database.get(name, value) == value for name, value in wanted.items())


def would_take_over(site: HarborSite, node: NodeSeen) -> list[str]:
    """Tell what was found of a Harbor, and what becomes of each part; for the report, in a dry run too."""
    found = node.harbor
    if found is None or node.harbor_sha256 is not None:
        return []
    view = view_of(site, found, installed_here=False)
    database = f"on the server {found.database_host}" if found.database_host else "in its own container"
    counted = "" if found.blobs_whole else "at least "
    lines = [
        f"{node.name}: Harbor {found.version or 'of an unknown version'} in {found.directory}, "
        f"{'running' if found.runs else 'not running'}: {', '.join(found.services) or 'no containers'}",
        f"{node.name}: its database is {database}"
        + (f", in {found.database_at}: it is copied into the pair" if found.database_at else ""),
        f"{node.name}: clients are told {shown(found.external_url) or 'nothing'}",
        f"{node.name}: data volume {view.data_volume or 'unknown'}, whose secretkey and token keys are kept and given "
        "to the other nodes",
    ]
    if found.images_at:
        size = f"{counted}{found.blobs:,} blobs of {found.blob_bytes / 1e9:,.1f} GB"
        lines.append(f"{node.name}: images in {found.images_at}, {size}, through {found.storage}")
    if found.units:
        lines.append(f"{node.name}: started at boot by {', '.join(found.units)}, which stays as it is")
    return lines


def numbers(version: str) -> Version | None:
    """Read a version; None for one that cannot be compared."""
    parts = version.removeprefix("v").split("-")[0].split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return None
    return Version(*map(int, parts))
