"""May a Harbor that stands on a node be adopted?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from blocks import HarborSite
from flows.rules.adoption import numbers
from flows.rules.table import Check, Weight, evidence, fill, violations
from flows.rules.take_over_external import EXTERNAL_CHECKS, ExternalView
from tasks.harbor.adoption import PUT_BACK, OldHarbor
from tasks.harbor.versions import OLDEST
from tasks.hosts.preflight import NodeSeen

# Phases in which the old Harbor must still serve, and in which its database is still to be copied.
_FRESH = ("", "returned")
_SERVING = (*_FRESH, "copying")
_TO_COPY = (*_SERVING, "moving")
# Compose services of Harbor's optional parts; what they hold is not moved, so they are not taken over.
_NOT_MOVED = ("notary-server", "notary-signer", "chartmuseum")
_TRIVY = "trivy-adapter"


@dataclass(frozen=True)
class TakeOverView:
    """An old Harbor beside the site that it is to become.

    Attributes:
        old: what was found.
        install_dir, site_volume, site_version, nas_images, components, addresses, postgres_major: of the site file.
        first_time: no node of the site holds a database yet.
        other_keys: nodes with a secretkey of the site's own already.
        set_aside: whoever runs this says that what was pushed to the pair is not wanted.
    """

    old: OldHarbor
    install_dir: str
    site_volume: str
    site_version: str
    nas_images: str
    components: tuple[str, ...]
    addresses: tuple[str, ...]
    postgres_major: int
    first_time: bool
    other_keys: tuple[str, ...]
    set_aside: bool = False

    @property
    def node(self) -> str:
        """The node that it stands on."""
        return self.old.node

    @property
    def phase(self) -> str:
        """How far its adoption has come."""
        return self.old.found.adoption

    @property
    def directory(self) -> str:
        """Where compose was called."""
        return self.old.found.directory

    @property
    def data_volume(self) -> str:
        """Its data_volume; "" where it cannot be told."""
        return (self.old.found.data_volume or "").rstrip("/")

    @property
    def images_at(self) -> str:
        """Where its images lie; "" where it cannot be told."""
        return (self.old.found.images_at or "").rstrip("/")

    @property
    def version(self) -> str:
        """Its version."""
        return self.old.found.version

    @property
    def database_host(self) -> str:
        """The external server that it uses; "" for the bundled one."""
        return self.old.found.database_host

    @property
    def storage(self) -> str:
        """Its driver for images."""
        return self.old.found.storage

    @property
    def serving(self) -> bool:
        """Whether it must still serve at this point of the adoption."""
        return self.phase in _SERVING

    @property
    def pair_served(self) -> bool:
        """Whether the site's Harbor may have served before the old one was put back: it started after `moved`."""
        return self.phase == "returned" and self.old.found.adoption_was != "moving"

    @property
    def put_back(self) -> str:
        """The command that puts it back."""
        return PUT_BACK

    @property
    def images_shared(self) -> bool:
        """Whether its images lie in the site's directory on the NAS already."""
        return self.images_at == self.nas_images

    @property
    def not_moved(self) -> str:
        """Its optional parts that cannot be taken over."""
        return ", ".join(name for name in self.old.found.services if name in _NOT_MOVED)

    @property
    def without_trivy(self) -> bool:
        """Whether it scans with Trivy and the site file does not name that."""
        return _TRIVY in self.old.found.services and "trivy" not in self.components

    @property
    def missing_secrets(self) -> str:
        """Its secret files that are not there."""
        return ", ".join(name for name, seen in dict(self.old.secrets).items() if seen is None)

    @property
    def too_old(self) -> bool:
        """Whether it is from before the first version that is supported, or cannot be told."""
        known = numbers(self.version)
        return known is None or known < OLDEST

    @property
    def newer(self) -> bool:
        """Whether the site file names an older version."""
        known, wanted = numbers(self.version), numbers(self.site_version)
        return known is not None and wanted is not None and known > wanted

    @property
    def database_major(self) -> str:
        """The major version of its database server."""
        return str(self.old.database_major or "")

    @property
    def gigabytes(self) -> str:
        """Size of its images, and what is free on the NAS."""
        free = self.old.nas_free
        left = "an unknown number of" if free is None else f"{free / 1e9:,.1f}"
        return f"{self.old.found.blob_bytes / 1e9:,.1f} GB of images, {left} GB free on the NAS"

    @property
    def nas_full(self) -> bool:
        """Whether the images do not fit on the NAS."""
        free = self.old.nas_free
        return free is not None and self.old.found.blob_bytes > free

    @property
    def others(self) -> str:
        """Nodes that have a secretkey already."""
        return ", ".join(self.other_keys)


_REFUSE = Weight.REFUSE
TAKE_OVER_CHECKS: tuple[Check[TakeOverView], ...] = (
    Check(
        "directory unknown",
        "its containers do not carry compose's label with their directory, or docker-compose.yml is not there",
        lambda view: (
            not view.directory or not view.old.compose_file or (view.serving and not view.old.labelled)
        ),
        _REFUSE,
        "it cannot be told how the Harbor on {node} is started: it could not be stopped as a whole, nor put back",
        "take it down and start it in its directory with a compose of 1.25 or newer, so that its containers carry the "
        "label",
    ),
    Check(
        "same directory",
        "it lies in harbor.install_dir",
        lambda view: view.directory == view.install_dir,
        _REFUSE,
        "the old Harbor lies in {directory}, where the site's is to be: it could not be put back",
        "set harbor.install_dir to another directory, such as {install_dir}-ha",
    ),
    Check(
        "same data volume",
        "its data_volume is harbor.data_volume, or cannot be told",
        lambda view: view.data_volume in ("", view.site_volume),
        _REFUSE,
        "the old Harbor has its data in {data_volume}, where the site's is to be: it could not be put back",
        "set harbor.data_volume to another directory, such as {site_volume}-ha",
    ),
    Check(
        "not running",
        "it does not run, and nothing of it was taken over yet",
        lambda view: view.serving and not view.old.found.runs,
        _REFUSE,
        "the Harbor in {directory} does not run",
        "start it, so that its database can be read",
    ),
    Check(
        "object store",
        "it keeps its images through a driver of its own",
        lambda view: view.storage != "filesystem",
        _REFUSE,
        "the Harbor in {directory} keeps its images through the driver {storage}, and only the file system is "
        "supported",
        "nothing of it was touched; copy the images to a file system first, as Harbor's documentation says",
    ),
    Check(
        "images unknown",
        "no directory of this machine is mounted into its registry",
        lambda view: view.storage == "filesystem" and not view.images_at,
        _REFUSE,
        "it cannot be told where the Harbor in {directory} keeps its images",
        "start all of its containers with compose, and run this again",
    ),
    Check(
        "too old",
        "it is older than 2.3, or its version cannot be told",
        lambda view: view.too_old,
        _REFUSE,
        "the Harbor in {directory} is of version '{version}', and nothing before 2.3 is taken over",
        "upgrade it step by step, as its own documentation says, and come back",
    ),
    Check(
        "newer",
        "it is newer than harbor.version",
        lambda view: view.newer,
        _REFUSE,
        "the Harbor in {directory} is {version}, and the site file names {site_version}: what a newer one has migrated "
        "an older one does not read",
        "name the installer of {version} or a newer one",
    ),
    Check(
        "parts not moved",
        "it runs Notary or ChartMuseum",
        lambda view: bool(view.not_moved),
        _REFUSE,
        "the Harbor in {directory} runs {not_moved}, whose data is not taken over",
        "take these parts out of it, as Harbor's documentation says for an upgrade to 2.9, and come back",
    ),
    Check(
        "without trivy",
        "it runs Trivy, and harbor.components does not name it",
        lambda view: view.without_trivy,
        _REFUSE,
        "the Harbor in {directory} scans with Trivy; started without it, core would delete the scanner",
        "add trivy to harbor.components",
    ),
    Check(
        "login",
        "the administrator cannot log in with harbor.admin_password",
        lambda view: view.serving and view.old.found.runs and view.old.login != 200,
        _REFUSE,
        "admin cannot log in to the Harbor in {directory} with harbor.admin_password: the one of its first start does "
        "not count any more, the users come along as they are",
        "set harbor.admin_password to the one that works, and look at `docker ps` on {node} if Harbor does not answer",
    ),
    Check(
        "read-only",
        "it is read-only before the adoption has begun",
        lambda view: view.phase in _FRESH and view.old.read_only,
        _REFUSE,
        "the Harbor in {directory} is read-only, and so the site would be: no push could prove it",
        "end its read-only mode, and let a garbage collection that needs it come to its end first",
    ),
    Check(
        "database silent",
        "the bundled database does not answer",
        lambda view: view.phase in _TO_COPY and not view.database_host and view.old.database_major is None,
        _REFUSE,
        "harbor-db on {node} does not answer",
        "start it (`docker start harbor-db`)",
    ),
    Check(
        "database newer",
        "the bundled database is of a newer major version than postgres.major",
        lambda view: not view.database_host and (view.old.database_major or 0) > view.postgres_major,
        _REFUSE,
        "harbor-db is PostgreSQL {database_major}, and the site's is {postgres_major}, which does not load its dumps",
        "set postgres.major to {database_major} or newer",
    ),
    Check(
        "secrets missing",
        "a secret file is not in its data volume",
        lambda view: bool(view.missing_secrets),
        _REFUSE,
        "{missing_secrets} is not below {data_volume}/secret: stored passwords, or logins, would be lost",
        "find out where the old Harbor has it, and put it there",
    ),
    Check(
        "other secretkey",
        "a node has a secretkey of the site's own before the adoption has begun",
        lambda view: not view.phase and bool(view.other_keys),
        _REFUSE,
        "{others} has a secretkey in {site_volume} already, and the old Harbor's is to come there",
        "move it away if no Harbor of that node is needed any more",
    ),
    Check(
        "site has data",
        "a node holds a database of the site before the adoption has begun",
        lambda view: not view.phase and not view.first_time,
        _REFUSE,
        "the site has a database already, which the old Harbor's would have to replace",
        "give the old Harbor a site of its own",
    ),
    Check(
        "NAS has images",
        "the NAS has images of another Harbor",
        lambda view: not view.phase and view.old.nas_images and not view.images_shared,
        _REFUSE,
        "{nas_images} holds images that are not this Harbor's",
        "move them away, or give the site another directory on the NAS",
    ),
    Check(
        "NAS full",
        "the images do not fit on the NAS",
        lambda view: not view.phase and view.nas_full and not view.images_shared,
        _REFUSE,
        "{gigabytes}",
        "make room on the NAS, or run Harbor's garbage collection first",
    ),
    Check(
        "being put back",
        "the command that puts it back is at work, or was cut off",
        lambda view: view.phase == "returning",
        _REFUSE,
        "the old Harbor is being put back, or that was cut off",
        "let {put_back} on {node} come to its end, or run it again",
    ),
    Check(
        "put back",
        "it was put back to service after an adoption whose Harbor has served, and nobody said set_aside",
        lambda view: view.pair_served and not view.set_aside,
        _REFUSE,
        "the old Harbor was put back after an adoption; the pair has served, and has what was pushed to it since",
        "if that is not wanted any more, run `adopt` with set_aside, first with dry_run: the pair's database is "
        "renamed and not removed, and the old Harbor's is copied anew; its images on the NAS stay",
    ),
)


def view_of_old(
    site: HarborSite, old: OldHarbor, nodes: Sequence[NodeSeen], *, set_aside: bool = False
) -> TakeOverView:
    """Put an old Harbor beside the site file and what the nodes have."""
    return TakeOverView(
        old=old,
        install_dir=site.harbor.install_dir.rstrip("/"),
        site_volume=site.harbor.data_volume.rstrip("/"),
        site_version=site.harbor.version.removeprefix("v"),
        nas_images=site.nas.registry.rstrip("/"),
        components=tuple(site.harbor.components),
        addresses=tuple(node.address for node in site.nodes),
        postgres_major=site.postgres.major,
        first_time=not any(node.database is not None and node.database.sysid for node in nodes),
        other_keys=tuple(node.name for node in nodes if node.secretkey is not None),
        set_aside=set_aside,
    )


def take_over_objections(view: TakeOverView, external: ExternalView | None = None) -> Iterator[str]:
    """List what speaks against the adoption, each with what to do about it.

    Args:
        view: the old Harbor beside the site.
        external: its external database, if it has one that is still to be copied.
    """
    yield from _objections(TAKE_OVER_CHECKS, view, view.node)
    if external is not None:
        yield from _objections(EXTERNAL_CHECKS, external, view.node)
    for sentence in view.old.found.settings:
        yield f"{view.node}: " + (sentence if "->" in sentence else f"{sentence} -> correct it")


_View = TypeVar("_View")


def _objections(checks: tuple[Check[_View], ...], view: _View, node: str) -> Iterator[str]:
    seen = evidence(view)
    for check in violations(checks, view):
        yield f"{node}: {fill(check.reason, seen)} -> {fill(check.remedy, seen)}"
