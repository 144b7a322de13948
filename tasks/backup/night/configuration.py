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
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
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
        ConfigurationIncomplete: harbor.yml or secretkey are missing, or the key is not one.
    """
    harbor_yml = f"{site.harbor.install_dir}/harbor.yml"
    content = host.read(harbor_yml)
    if content is None:
        raise ConfigurationIncomplete(
            f"There is no {harbor_yml}.",
            where=host.name,
            remedy="Run bootstrap, or correct harbor.install_dir.",
        )
    secretkey = f"{site.harbor.data_volume}/secret/keys/secretkey"
    wanted = configuration_paths(site, yaml.safe_load(content) or {})
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


def configuration_paths(site: HarborSite, harbor_yml: Mapping[str, Any]) -> list[str]:
    """Every path that belongs into the archive, whether a node has it or not.

    Args:
        site: where things are.
        harbor_yml: its parsed content, which names certificates anywhere on the machine.
    """
    harbor, layout = site.harbor, layout_of(site)
    named = [_value(harbor_yml, keys) for keys in _FILES_IN_HARBOR_YML]
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


def _value(tree: Any, keys: tuple[str, ...]) -> str:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, str) else ""
