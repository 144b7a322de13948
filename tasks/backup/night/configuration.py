"""What a restored database is worthless without: secretkey, token keys, certificates, configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from blocks import HarborSite
from tasks.backup.format.layout import CONFIGURATION
from tasks.backup.format.manifest import Artifact
from tasks.backup.night.stored import Destination, store_output
from tasks.backup.server import server_of
from tasks.backup.tools import find_tools, pipeline
from tasks.errors import HarborHaError, Refused
from tasks.harbor.lint_sections import object_store
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, unchanged
from tasks.postgres.layout import layout_of

# Keys of harbor.yml whose value is a file that `prepare` copies from; it fails where one is missing.
_FILES_IN_HARBOR_YML = (
    ("https", "certificate"),
    ("https", "private_key"),
    ("internal_tls", "dir"),
    ("external_redis", "tlsOptions", "rootCA"),
    ("storage_service", "ca_bundle"),
    ("uaa", "ca_file"),
)
_SECRETKEY_BYTES = 16

_LOOK = """
import hashlib, json, os, sys
p = json.load(sys.stdin)
found = [path for path in p["paths"] if os.path.lexists(path)]
try:
    with open(p["secretkey"], "rb") as source:
        key = source.read()
except OSError:
    key = None
print(json.dumps({
    "paths": found,
    "secretkey_bytes": None if key is None else len(key),
    "secretkey_sha256": None if key is None else hashlib.sha256(key).hexdigest(),
}))
"""


class ConfigurationIncomplete(HarborHaError):
    """A node lacks a file that no restore can do without."""


@dataclass(frozen=True)
class SavedConfiguration:
    """The configuration archive of a backup.

    Attributes:
        secretkey_sha256: fingerprint, for the manifest; the key has 16 random characters.
        paths: what was found and packed.
    """

    artifact: Artifact
    secretkey_sha256: str
    paths: tuple[str, ...]


def save_configuration(
    site: HarborSite, host: Host, to: Destination, *, timeout: float = 300.0
) -> SavedConfiguration:
    """Pack a node's Harbor and PostgreSQL configuration, encrypted.

    Args:
        site: whose configuration.
        host: a node that runs Harbor; with PostgreSQL on it, its configuration is packed too.
        to: the backup. Its recipients were checked when they were parsed: there is no unencrypted way.
        timeout: seconds.

    Raises:
        ConfigurationIncomplete: harbor.yml or secretkey are missing or cannot be read.
    """
    harbor_yml = read_harbor_yml(site, host)
    secretkey = f"{site.harbor.data_volume}/secret/keys/secretkey"
    wanted = configuration_paths(site, harbor_yml)
    seen = host.python(_LOOK, {"paths": wanted, "secretkey": secretkey})
    if seen["secretkey_bytes"] != _SECRETKEY_BYTES:
        raise ConfigurationIncomplete(
            f"{secretkey} is missing or has not {_SECRETKEY_BYTES} bytes.",
            where=host.name,
            meaning="A backup without it loses every stored password of a registry, LDAP, OIDC or robot.",
            remedy="Copy it from the other node.",
        )
    archive = ["tar", "-C", "/", "--numeric-owner", "--null", "-T", "-", "-c", "-f", "-"]
    produced = store_output(
        host,
        pipeline(archive, find_tools(host, server_of(layout_of(site)))),
        to,
        CONFIGURATION,
        role="configuration",
        stdin="\0".join(path.lstrip("/") for path in seen["paths"]).encode(),
        timeout=timeout,
    )
    return SavedConfiguration(produced.artifact, seen["secretkey_sha256"], tuple(seen["paths"]))


def read_harbor_yml(site: HarborSite, host: Host) -> Mapping[str, Any]:
    """Read a node's harbor.yml; it holds passwords, so nothing of it is quoted.

    Raises:
        ConfigurationIncomplete: there is none, or it is no mapping in YAML.
    """
    path = f"{site.harbor.install_dir}/harbor.yml"
    content = host.read(path)
    if content is None:
        raise ConfigurationIncomplete(
            f"There is no {path}.",
            where=host.name,
            remedy="Run bootstrap, or correct harbor.install_dir.",
        )
    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError):
        found = []
    if not isinstance(found, Mapping):
        raise ConfigurationIncomplete(
            f"{path} is not a mapping in YAML.", where=host.name, remedy="Copy it from the other node."
        )
    return found


def require_filesystem(site: HarborSite, host: Host) -> Outcome:
    """Make sure that Harbor keeps its images on the NAS, where a backup looks for them.

    Through a driver of its own for an object store they are nowhere on the NAS, and a backup would have none of them.

    Raises:
        Refused: they lie in an object store.
        ConfigurationIncomplete: harbor.yml does not say.
    """
    section = read_harbor_yml(site, host).get("storage_service") or {}
    if not isinstance(section, Mapping):
        raise ConfigurationIncomplete(
            f"storage_service in {site.harbor.install_dir}/harbor.yml is not a mapping.", where=host.name
        )
    driver = object_store({"storage_service": section})
    if driver:
        raise Refused(
            f"The images of {site.name} cannot be backed up.",
            [
                f"storage_service.{driver} in harbor.yml on {host.name} keeps them in an object store of Harbor's "
                "own; only the file system is supported. Protect that store by its own versions and copies, and run "
                "nightly_backup with images=false for databases and configuration."
            ],
        )
    return unchanged("Harbor keeps its images in the file system")


def configuration_paths(site: HarborSite, harbor_yml: Mapping[str, Any]) -> list[str]:
    """Every path that belongs into the archive, whether a node has it or not.

    Args:
        site: where things are.
        harbor_yml: its parsed content, which names certificates anywhere on the machine.
    """
    harbor, layout = site.harbor, layout_of(site)
    named = named_files(harbor_yml)
    paths = [
        f"{harbor.install_dir}/harbor.yml",
        f"{harbor.install_dir}/docker-compose.yml",
        f"{harbor.install_dir}/docker-compose.override.yml",
        f"{harbor.install_dir}/common/config",
        f"{harbor.data_volume}/secret",
        f"{harbor.data_volume}/ca_download",
        layout.conf,
        "/etc/docker/daemon.json",
        *(path for path in named if path.startswith("/")),
    ]
    return list(dict.fromkeys(paths))


def named_files(harbor_yml: Mapping[str, Any]) -> list[str]:
    """List the files that a harbor.yml names, wherever on the machine; "" for what it does not name."""
    return [_value(harbor_yml, keys) for keys in _FILES_IN_HARBOR_YML]


def _value(tree: Any, keys: tuple[str, ...]) -> str:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, str) else ""
