"""The distribution of this machine and where its packages come from.

The lab's images install from the same places as the machine itself: nobody has to configure a mirror twice,
and a machine behind a company's mirror just works.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.shell import LabError, run

# The releases of Debian that nodes may run, whichever of them the machine itself runs.
RELEASES = {"bullseye": "11", "bookworm": "12", "trixie": "13"}
DEFAULT_RELEASE = "bookworm"

_HELPER = "/usr/lib/apt/apt-helper"

# Settings of apt that decide whether a download works at all; the rest is the machine's own business.
_SETTINGS = re.compile(r'^Acquire::(Check-\S+|http\S*|https\S*|Retries|ForceIPv4|Languages) ".*";$')


@dataclass(frozen=True)
class Distribution:
    """Debian or Ubuntu, by its release's code name (`bookworm`, `noble`)."""

    id: str
    codename: str
    version: str

    @property
    def keyring(self) -> str:
        """The keyring that the distribution's own package brings."""
        return f"/usr/share/keyrings/{self.id}-archive-keyring.gpg"


@dataclass(frozen=True)
class Source:
    """One place of packages, as one line of sources.list says it."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def deb822(self, keyring: str) -> str:
        """This source in the format of *.sources files."""
        lines = ("Types: deb", f"URIs: {self.uri}", f"Suites: {self.suite}")
        return "\n".join((*lines, f"Components: {' '.join(self.components)}", f"Signed-By: {keyring}", ""))


def this_distribution(os_release: Path = Path("/etc/os-release")) -> Distribution:
    """Read which distribution this machine runs.

    Raises:
        LabError: it is neither Debian nor Ubuntu.
    """
    text = os_release.read_text() if os_release.exists() else ""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    found = Distribution(
        values.get("ID", ""), values.get("VERSION_CODENAME", ""), values.get("VERSION_ID", "")
    )
    if found.id not in ("debian", "ubuntu") or not found.codename:
        raise LabError(
            f"This machine runs {values.get('PRETTY_NAME', 'an unknown system')}.",
            meaning="The lab builds its hosts from Debian's or Ubuntu's packages.",
            remedy="Run it on Debian or Ubuntu, e.g. in a virtual machine.",
        )
    return found


def own_sources(distribution: Distribution, etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """The machine's sources of its distribution itself, without those of other vendors.

    Raises:
        LabError: there are none.
    """
    files = [etc_apt / "sources.list", *sorted(etc_apt.glob("sources.list.d/*"))]
    wanted = {distribution.codename + pocket for pocket in ("", "-updates", "-security")}
    found = [
        source
        for file in files
        if file.is_file()
        for source in _parse(file)
        if source.suite in wanted and "main" in source.components and re.match(r"https?:", source.uri)
    ]
    if not any(source.suite == distribution.codename for source in found):
        raise LabError(
            f"No source of {distribution.codename}'s packages was found.",
            where=str(etc_apt),
            remedy="Add the distribution's own to sources.list, as `apt-get update` needs it too.",
        )
    return list(dict.fromkeys(found))


def chosen(release: str, own: Distribution) -> Distribution:
    """The distribution of a node.

    Args:
        release: the code name of its release.
        own: what the machine runs.

    Raises:
        LabError: the places of the machine's packages do not have that release.
    """
    if release == own.codename:
        return own
    known = list(RELEASES) if own.id == "debian" else [own.codename]
    if release not in known:
        raise LabError(
            f"Nodes cannot run {release!r}; on this machine they can run {', '.join(known)}.",
            remedy="Choose one of these.",
        )
    return Distribution(own.id, release, RELEASES[release])


def default_release(own: Distribution) -> str:
    """The release of nodes for which none is chosen: the same on every Debian, so that results compare."""
    return DEFAULT_RELEASE if own.codename in RELEASES else own.codename


def sources_of(wanted: Distribution, own: Distribution, etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """The sources of a release of the distribution, from the machine's own places.

    Raises:
        LabError: the machine has none itself.
    """
    found = own_sources(own, etc_apt)
    if wanted == own:
        return found
    # Not every release has each component: non-free-firmware came with Debian 12.
    return [
        Source(source.uri, source.suite.replace(own.codename, wanted.codename, 1), ("main",))
        for source in found
    ]


def is_served(wanted: Distribution, own: Distribution, etc_apt: Path = Path("/etc/apt")) -> bool:
    """Ask the machine's own places whether they still have a release; old ones move to an archive one day.

    Returns:
        False only when a place says that it does not have it. One that cannot be asked may have it: whoever needs
        it then fails with the true reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = str(Path(scratch) / "InRelease")
        for source in sources_of(wanted, own, etc_apt):
            address = f"{source.uri.rstrip('/')}/dists/{source.suite}/InRelease"
            # apt's own helper: behind the machine's proxy and with its certificates, as apt itself asks.
            asked = run([_HELPER, "download-file", address, target], timeout=60, check=False)
            if re.search(r"\b404\b", asked.stdout + asked.stderr):
                return False
    return True


def settings() -> str:
    """The machine's settings for downloads (proxy, dates, retries), as an apt.conf file."""
    dump = run(["apt-config", "dump"]).stdout
    return "".join(f"{line}\n" for line in dump.splitlines() if _SETTINGS.match(line))


def install(packages: Iterable[str], log: Path, *, where_known: Iterable[str] = ()) -> None:
    """Install packages on this machine.

    Args:
        packages: their names.
        log: what apt says is appended here.
        where_known: further packages that only some releases have; they are skipped where they do not exist.

    Raises:
        LabError: it is not possible; the remedy says what to install by hand.
    """
    names = sorted(packages)
    if os.geteuid() != 0:
        raise LabError(
            f"{', '.join(names)} must be installed, and this user cannot.",
            where="this machine",
            remedy=f"As root: apt-get install {' '.join(names)}",
        )
    # env(1) and not our own environment: dpkg's questions would wait for a terminal that nobody watches.
    apt_get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-oDPkg::Lock::Timeout=120"]
    run([*apt_get, "update"], timeout=300, log=log)
    known = [name for name in where_known if run(["apt-cache", "show", name], check=False).returncode == 0]
    run([*apt_get, "install", "--no-install-recommends", *names, *known], timeout=600, log=log)


def _parse(file: Path) -> Iterator[Source]:
    if file.suffix == ".sources":
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            yield from _parse_stanza(stanza)
    elif file.suffix == ".list":
        for line in file.read_text().splitlines():
            match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$", line.strip())
            if match:
                yield Source(match[1], match[2], tuple(match[3].split()))


def _parse_stanza(stanza: str) -> Iterator[Source]:
    kept = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
    fields = {
        key.lower(): value.split() for key, value in re.findall(r"^([\w-]+):[ \t]*(.*)$", kept, re.MULTILINE)
    }
    if fields.get("enabled", ["yes"]) == ["no"] or "deb" not in fields.get("types", []):
        return
    for uri in fields.get("uris", []):
        for suite in fields.get("suites", []):
            yield Source(uri, suite, tuple(fields.get("components", [])))
