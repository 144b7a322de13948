"""The Harbor that a node has before bootstrap, as frozen facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from blocks import HarborSite
from tasks.harbor import config, external_database, override
from tasks.harbor.lint_sections import object_store
from tasks.harbor.on_node import harbor_found as program
from tasks.harbor.secrets import token_key_flaw
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.on_node.bundled_core import BUNDLED_NAMES

_PROGRAM = node_program(program)
_TIMEOUT_S = 120.0
_UNITS = ("/etc/systemd/system", "/lib/systemd/system")


@dataclass(frozen=True)
class HarborFound:
    """A Harbor on a node; see `on_node/harbor_found.py` for how each value is found.

    Attributes:
        directory: where compose was called: harbor.yml lies there.
        runs: core's container runs.
        version: of core's image; "" where it cannot be told.
        services: of its compose project, which tells its components.
        data_volume: None without containers.
        images_at, database_at: what of this machine is mounted into registry and harbor-db.
        database_host: the external server that core uses; "" for the bundled database, or where it is not known.
        core_database: how core reaches its database, by the names of its environment; no password.
        storage: Harbor's driver for images.
        external_url: what clients are told.
        blobs, blob_bytes, blobs_whole: counted at images_at; not whole where the time was over before.
        units: systemd units that name the directory.
        adoption: how far an adoption of it has come: "", copying, moving, moved, done, returning while it is put
            back to service, or returned.
        adoption_was: how far it had come before it was put back; "" where that was not noted.
        settings: why its harbor.yml, override or token key cannot be used for this site, each as a sentence.
    """

    directory: str
    runs: bool = False
    version: str = ""
    services: tuple[str, ...] = ()
    data_volume: str | None = None
    images_at: str | None = None
    database_at: str | None = None
    database_host: str = ""
    core_database: Mapping[str, str] = field(default_factory=dict)
    storage: str = "filesystem"
    external_url: str = ""
    blobs: int = 0
    blob_bytes: int = 0
    blobs_whole: bool = True
    units: tuple[str, ...] = ()
    adoption: str = ""
    adoption_was: str = ""
    settings: tuple[str, ...] = ()


def observe(site: HarborSite, host: Host) -> HarborFound | None:
    """Look at a node's Harbor, in one round trip; None when it has none."""
    given = {
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "data_volume": site.harbor.data_volume.rstrip("/"),
        "nas_images": site.nas.registry.rstrip("/"),
        "unit_directories": list(_UNITS),
    }
    seen: dict[str, Any] = host.python(_PROGRAM, given, timeout=_TIMEOUT_S)
    return from_answer(site, seen) if seen["found"] else None


def from_answer(site: HarborSite, seen: Mapping[str, Any]) -> HarborFound:
    """Make facts of a node's answer; of the operator's files nothing but what is wrong with them is kept."""
    core, blobs, text = seen.get("core") or {}, seen.get("blobs") or {}, seen["harbor_yml"]
    document = _document(text)
    in_file = external_database.section_of(text).get("host")
    host = str(core.get("POSTGRESQL_HOST") or in_file or "")
    return HarborFound(
        directory=seen["directory"],
        runs=seen["runs"],
        version=seen.get("version", ""),
        services=tuple(seen.get("services", ())),
        data_volume=seen.get("data_volume"),
        images_at=seen.get("images_at"),
        database_at=seen.get("database_at"),
        database_host="" if host in BUNDLED_NAMES else host,
        core_database={name: str(core[name]) for name in external_database.IN_CORE if name in core},
        storage=object_store(document) or str(core.get("REGISTRY_STORAGE_PROVIDER_NAME") or "filesystem"),
        external_url=str(core.get("EXT_ENDPOINT", "")),
        blobs=blobs.get("count", 0),
        blob_bytes=blobs.get("bytes", 0),
        blobs_whole=blobs.get("whole", True),
        units=tuple(seen["units"]),
        adoption=seen.get("adoption", ""),
        adoption_was=seen.get("adoption_was", ""),
        settings=tuple(_settings(site, seen, text)),
    )


def _settings(site: HarborSite, seen: Mapping[str, Any], text: str | None) -> list[str]:
    home = seen["directory"]
    found = [f"{home}/harbor.yml: {problem}" for problem in config.objections(text, site)]
    extra = override.objections(seen["override"], site)
    found += [f"{home}/docker-compose.override.yml: {problem}" for problem in extra]
    form = seen["token_key"]
    flaw = "" if form is None else token_key_flaw(form, seen["token_key_at"])
    return found + ([flaw] if flaw else [])


def _document(text: str | None) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(text or "")
    except Exception:  # what is wrong with it is told by `objections`
        return {}
    return document if isinstance(document, Mapping) else {}
