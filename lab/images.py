"""The images of the lab: a base of the machine's own distribution, hosts, and services.

An image is tagged with a hash of its recipe: what stands is used again at once, what changed is built anew.
"""

import hashlib
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lab import apt
from lab.shell import LabError, alone, docker, run, step
from lab.topology import STATE

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

# Which PostgreSQL the distribution ships; asked at build time, while apt's lists are there.
_POSTGRES_NOTE = "/etc/postgresql-major"

_APT = "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends"

_BASE_RECIPE = """COPY authorities/ /etc/ssl/certs/
RUN rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
COPY lab.sources /etc/apt/sources.list.d/lab.sources
COPY 90lab /etc/apt/apt.conf.d/90lab
"""

_NODE_RECIPE = f"""
RUN {_APT} {_NODE_PACKAGES} \\
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /usr/sbin/policy-rc.d \\
 && : >/etc/machine-id \\
 && systemctl mask {_MASKED} && systemctl enable ssh.service \\
 && mkdir -p /var/log/journal /root/.ssh && chmod 700 /root/.ssh
ENV container=docker
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
"""

_SERVICES_RECIPE = f"""
RUN {_APT} {_SERVICE_PACKAGES} \\
 && apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\\([0-9]*\\)$/\\1/p' >{_POSTGRES_NOTE} \\
 && rm -rf /var/lib/apt/lists/*
"""


@dataclass(frozen=True)
class Images:
    """The images that the containers of a lab are made of."""

    node: str
    services: str


def ensure_images() -> Images:
    """Build the images that are missing.

    Raises:
        LabError: a build failed; the error shows the end of its output.
    """
    base = ensure_base()
    return Images(
        node=_ensure("node", base, _NODE_RECIPE), services=_ensure("services", base, _SERVICES_RECIPE)
    )


def ensure_base() -> str:
    """The image of the bare distribution with its package sources, built when it is missing.

    Returns:
        its tag. It has what apt needs and little more, and installs from the same places as this machine.
    """
    distribution = apt.this_distribution()
    tag = _tag("base", f"{distribution} {apt.settings()} {apt.own_sources(distribution)} {_BASE_RECIPE}")
    with _one_builder():
        if not _exists(tag):
            _build_base(tag, distribution)
    return tag


def postgres_major(images: Images) -> int:
    """The major version of PostgreSQL that the distribution of the nodes ships."""
    argv = ["run", "--rm", "--network", "none", images.services, "cat", _POSTGRES_NOTE]
    return int(docker(*argv).strip())


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


def _build_base(tag: str, distribution: apt.Distribution) -> None:
    raw = f"{tag}-raw"
    pulled = f"{distribution.id}:{distribution.codename}"
    with step(f"Ask a registry for {pulled}"):
        answered = _pull(pulled)
    if answered:
        docker("tag", pulled, raw)
    else:
        with step(f"No registry answers: build {pulled} from its packages"):
            _bootstrap(raw, distribution)
    keyring = distribution.keyring
    with tempfile.TemporaryDirectory() as context:
        sources = "\n".join(source.deb822(keyring) for source in apt.own_sources(distribution))
        (Path(context) / "lab.sources").write_text(sources)
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


def _bootstrap(tag: str, distribution: apt.Distribution) -> None:
    log = STATE / "images.log"
    if shutil.which("mmdebstrap") is None:
        apt.install(["mmdebstrap"], log)
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "host.sources"
        sources.write_text("\n".join(s.deb822(distribution.keyring) for s in apt.own_sources(distribution)))
        settings = Path(scratch) / "apt.conf"
        settings.write_text(apt.settings())
        tree = Path(scratch) / "tree.tar"
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--aptopt={settings}"]
        # ca-certificates belongs to the base: behind an https mirror nothing else could be installed later.
        argv += ["--include=ca-certificates", distribution.codename, str(tree), str(sources)]
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
