"""The images of the lab: a base of each release that is wanted, hosts, and services of the machine's own release.

An image is tagged with a hash of its recipe: what stands is used again at once, what changed is built anew.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lab import apt
from lab.shell import LabError, alone, docker, run, step
from lab.topology import NODES, STATE

REPOSITORY_PREFIX = "harbor-ha-lab"

# Where no registry answers, the packet filter may also swallow the attempt; then waiting is pointless.
_PULL_LIMIT_S = 15.0
_BUILD_LIMIT_S = 600.0

# What a cloud's Debian or Ubuntu image has and a container's has not. No PostgreSQL, no Docker.
_NODE_PACKAGES = (
    "systemd systemd-sysv dbus openssh-server sudo iproute2 iptables iputils-ping python3 ca-certificates"
    " procps curl gnupg openssl xz-utils less"
)
_SERVICE_PACKAGES = "redis-server haproxy python3 iptables iproute2 procps curl"

# Units that would act on the machine that carries the lab (kernel settings, consoles, devices) or only wait.
_MASKED = (
    "systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service systemd-udevd.service"
    " systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket"
    " systemd-remount-fs.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount"
    " dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount getty.target console-getty.service"
    " systemd-logind.service systemd-networkd.service systemd-resolved.service systemd-timesyncd.service"
    " apt-daily.timer apt-daily-upgrade.timer"
)

# Which PostgreSQL the release ships; asked at build time, while apt's lists are there.
_POSTGRES_NOTE = "/usr/share/lab-postgresql-major"

# From version 26 on the engine writes below /proc/sys to switch IPv6 off in a container's network, and starts no
# container where it cannot; in a node that is not privileged that place is read-only.
_DOCKER_DROP_IN = "/etc/systemd/system/docker.service.d"

_APT = "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends"

_BASE_RECIPE = """COPY authorities/ /etc/ssl/certs/
RUN rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
COPY lab.sources /etc/apt/sources.list.d/lab.sources
COPY 90lab /etc/apt/apt.conf.d/90lab
"""

_NODE_RECIPE = f"""
RUN {_APT} {_NODE_PACKAGES} \\
 && apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\\([0-9]*\\)$/\\1/p' >{_POSTGRES_NOTE} \\
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /usr/sbin/policy-rc.d \\
 && : >/etc/machine-id \\
 && systemctl mask {_MASKED} && systemctl enable ssh.service \\
 && mkdir -p /var/log/journal /root/.ssh {_DOCKER_DROP_IN} && chmod 700 /root/.ssh \\
 && printf '[Service]\\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1\\n' >{_DOCKER_DROP_IN}/lab.conf
ENV container=docker
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
"""

_SERVICES_RECIPE = f"""
RUN {_APT} {_SERVICE_PACKAGES} \\
 && rm -rf /var/lib/apt/lists/*
"""


# Directories that are links in every Debian since 10 as its installer makes it, and are none in mmdebstrap's tree of
# Debian 11, whose own hook for that fails there. From Debian 12 on it makes them by itself.
_MERGED_USR = (
    'set -e; for part in bin sbin lib lib64; do mkdir -p "$1/usr/$part"; ln -s "usr/$part" "$1/$part"; done'
)
_NOT_MERGED = ("bullseye",)


@dataclass(frozen=True)
class Images:
    """The images that the containers of a lab are made of.

    Attributes:
        nodes: of each node, by its name.
        services: of the services, which run the machine's own release.
    """

    nodes: Mapping[str, str]
    services: str


def ensure_images(releases: Mapping[str, str]) -> Images:
    """Build the images that are missing.

    Args:
        releases: the release of each node; one that is not in it gets the usual one.

    Raises:
        LabError: a build failed; the error shows the end of its output. Or a release cannot be had.
    """
    usual = apt.default_release(apt.this_distribution())
    wanted = {node: releases.get(node, usual) for node in NODES}
    built = {
        release: _ensure("node", ensure_base(release), _NODE_RECIPE)
        for release in sorted(set(wanted.values()))
    }
    services = _ensure("services", ensure_base(), _SERVICES_RECIPE)
    return Images({node: built[release] for node, release in wanted.items()}, services)


def ensure_base(release: str | None = None) -> str:
    """The image of the bare distribution with its package sources, built when it is missing.

    Args:
        release: its code name; without one, the machine's own.

    Returns:
        its tag. It has what apt needs and little more, and installs from the same places as this machine.
    """
    own = apt.this_distribution()
    distribution = apt.chosen(release or own.codename, own)
    sources = apt.sources_of(distribution, own)
    merged = _MERGED_USR if distribution.codename in _NOT_MERGED else ""
    tag = _tag("base", f"{distribution} {apt.settings()} {sources} {_BASE_RECIPE}{merged}")
    with _one_builder():
        if not _exists(tag):
            _build_base(tag, distribution, sources)
    return tag


def postgres_majors(images: Images) -> dict[str, int]:
    """The major version of PostgreSQL that the release of each node ships."""
    argv = ["run", "--rm", "--network", "none"]
    found = {
        tag: int(docker(*argv, tag, "cat", _POSTGRES_NOTE)) for tag in sorted(set(images.nodes.values()))
    }
    return {node: found[tag] for node, tag in images.nodes.items()}


def remove_images() -> list[str]:
    """Remove every image of the lab; those that a container still uses stay.

    Returns:
        the tags that were removed.
    """
    listing = docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={REPOSITORY_PREFIX}/*"
    )
    removed = []
    for tag in listing.split():
        if run(["docker", "rmi", tag], check=False).returncode == 0:
            removed.append(tag)
    return removed


def _build_base(tag: str, distribution: apt.Distribution, sources: Sequence[apt.Source]) -> None:
    raw = f"{tag}-raw"
    pulled = f"{distribution.id}:{distribution.codename}"
    answered = False
    if distribution.codename not in _NOT_MERGED:
        with step(f"Ask a registry for {pulled}"):
            answered = _pull(pulled)
    if answered:
        docker("tag", pulled, raw)
    else:
        with step(f"Build {pulled} from its packages"):
            _bootstrap(raw, distribution, sources)
    keyring = distribution.keyring
    with tempfile.TemporaryDirectory() as context:
        text = "\n".join(source.deb822(keyring) for source in sources)
        (Path(context) / "lab.sources").write_text(text)
        (Path(context) / "90lab").write_text(apt.settings())
        # A pulled image trusts no certificate yet, and could not install those from a mirror behind https.
        authorities = Path("/etc/ssl/certs/ca-certificates.crt")
        (Path(context) / "authorities").mkdir()
        if authorities.exists():
            shutil.copy(authorities, Path(context) / "authorities")
        _build(tag, f"FROM {raw}\n{_BASE_RECIPE}", Path(context))
    docker("rmi", raw)


def _pull(image: str) -> bool:
    try:
        return run(["docker", "pull", "-q", image], timeout=_PULL_LIMIT_S, check=False).returncode == 0
    except LabError:
        return False


def _bootstrap(tag: str, distribution: apt.Distribution, sources: Sequence[apt.Source]) -> None:
    log = STATE / "images.log"
    if shutil.which("mmdebstrap") is None:
        apt.install(["mmdebstrap"], log)
    with tempfile.TemporaryDirectory() as scratch:
        places = Path(scratch) / "host.sources"
        places.write_text("\n".join(source.deb822(distribution.keyring) for source in sources))
        settings = Path(scratch) / "apt.conf"
        settings.write_text(apt.settings())
        tree = Path(scratch) / "tree.tar"
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--aptopt={settings}"]
        # ca-certificates belongs to the base: behind an https mirror nothing else could be installed later.
        argv += ["--include=ca-certificates"]
        if distribution.codename in _NOT_MERGED:
            argv += [f"--setup-hook={_MERGED_USR}"]
        argv += [distribution.codename, str(tree), str(places)]
        run(argv, timeout=_BUILD_LIMIT_S, log=log)
        run(["docker", "import", str(tree), tag], timeout=120)


def _ensure(role: str, base: str, recipe: str) -> str:
    recipe = f"FROM {base}{recipe}"
    tag = _tag(role, recipe)
    with _one_builder():
        if not _exists(tag):
            with step(f"Build the image of the {role}"), tempfile.TemporaryDirectory() as context:
                _build(tag, recipe, Path(context))
    return tag


def _build(tag: str, recipe: str, context: Path) -> None:
    (context / "Dockerfile").write_text(recipe)
    # The host's network: a mirror that only the machine itself can resolve works in a build, too.
    argv = ["docker", "build", "--network", "host", "--force-rm", "--tag", tag, str(context)]
    run(argv, timeout=_BUILD_LIMIT_S, log=STATE / "images.log")


def _exists(tag: str) -> bool:
    return run(["docker", "image", "inspect", tag], check=False).returncode == 0


def _tag(role: str, recipe: str) -> str:
    return f"{REPOSITORY_PREFIX}/{role}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _one_builder() -> AbstractContextManager[None]:
    # Two labs that come up at the same time must not build the same image twice.
    return alone(STATE / "images.lock")
