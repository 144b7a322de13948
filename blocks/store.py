"""Where sites are kept: as Blocks in Prefect, and as a local copy for when Prefect is down."""

import json
import logging
import os
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from prefect.settings import get_current_settings
from pydantic import BaseModel, SecretStr, ValidationError

from blocks.problems import SiteUnknown
from blocks.site import HarborSite

logger = logging.getLogger("harbor_ha.site")

LOAD_TIMEOUT_S = 3.0
"""A failover waits at most this long for Prefect before it takes the copy."""

_PARTS = ("postgres", "harbor", "redis", "nas", "balancer", "oss", "docker", "failover", "backup")

_sites: dict[str, HarborSite] = {}
_lock = threading.Lock()


def save_site(site: HarborSite) -> None:
    """Save a site as Blocks and as a local copy; what was saved under its name before is replaced.

    Parts are Blocks of their own (`<site>-postgres`, …) that the site refers to, so an edit in the UI takes
    effect. The nodes are saved inside the site: Prefect keeps references in single fields only, and a node
    Block that nobody reads would be a trap.

    Raises what Prefect's client raises when the server does not answer.
    """
    # Without this, the parts' references to documents of an earlier save would be kept.
    fresh = HarborSite.model_validate(site_as_data(site))
    for part in _PARTS:
        block = getattr(fresh, part)
        if block is not None:
            block.save(f"{site.name}-{part}", overwrite=True)
    fresh.save(site.name, overwrite=True)
    write_copy(site)
    remember(site)


def load_site(name: str) -> HarborSite:
    """Return a saved site: from this process's memory, from Prefect, or from the local copy, in this order.

    Prefect is asked once and for at most three seconds, so that a failover works without it.

    Raises:
        SiteUnknown: Prefect answers that there is no such site, or does not answer and there is no copy.
    """
    with _lock:
        if name not in _sites:
            _sites[name] = _fetch(name)
        return _sites[name]


def remember(site: HarborSite) -> None:
    """Make `load_site` return this site for the rest of the process."""
    with _lock:
        _sites[site.name] = site


def forget(name: str | None = None) -> None:
    """Make `load_site` read a site, or all of them, anew."""
    with _lock:
        if name is None:
            _sites.clear()
        else:
            _sites.pop(name, None)


def copy_path(name: str) -> Path:
    """Return where the local copy of a site lies: `${HARBOR_HA_HOME:-~/.harbor-ha}/sites/<name>.json`."""
    home = os.environ.get("HARBOR_HA_HOME") or "~/.harbor-ha"
    return Path(home).expanduser() / "sites" / f"{name}.json"


def write_copy(site: HarborSite) -> Path:
    """Write the local copy of a site, with its secrets, readable by its owner only; return its path."""
    path = copy_path(site.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp gives 0600 from the first byte; the rename leaves the old copy or the new one, never half of it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{site.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(site_as_data(site), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read_copy(name: str) -> HarborSite:
    """Read the local copy of a site. Raise SiteUnknown when there is none that can be read."""
    path = copy_path(name)
    try:
        return HarborSite.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        # A ValidationError quotes its input, which holds secrets: neither text nor cause goes further.
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
    raise SiteUnknown(
        f"The local copy of site {name} cannot be read ({path}: {reason}): harbor-ha apply SITE.yml"
    )


def site_as_data(site: BaseModel) -> dict[str, Any]:
    """Return a site as plain data with its secrets in clear: for files with mode 0600 only."""
    return {name: _plain(getattr(site, name)) for name in type(site).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return site_as_data(value)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _fetch(name: str) -> HarborSite:
    try:
        found = _read_block(name)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        reason = type(error).__name__ if isinstance(error, ValidationError | KeyError) else str(error)
        logger.warning("Prefect did not give the site %s (%s): using the local copy", name, reason)
        return read_copy(name)
    if found is None:
        raise SiteUnknown(f"Prefect knows no site {name}: harbor-ha apply SITE.yml saves one")
    return found


def _read_block(name: str) -> HarborSite | None:
    """Ask the API itself: Block.load tries six times with back-off, minutes that a failover does not have."""
    settings = get_current_settings()
    if not settings.api.url:
        raise ValueError("PREFECT_API_URL is not set")
    headers, auth = {}, None
    if settings.api.auth_string is not None:
        user, _, password = settings.api.auth_string.get_secret_value().partition(":")
        auth = httpx.BasicAuth(user, password)
    elif settings.api.key is not None:
        headers["Authorization"] = f"Bearer {settings.api.key.get_secret_value()}"
    slug = HarborSite.get_block_type_slug()
    response = httpx.get(
        f"{settings.api.url}/block_types/slug/{slug}/block_documents/name/{quote(name, safe='')}",
        params={"include_secrets": True},
        headers=headers,
        auth=auth,
        verify=_trusted(),
        timeout=LOAD_TIMEOUT_S,
    )
    if response.status_code == 404:
        return None
    response.raise_for_status()
    return HarborSite.model_validate(response.json()["data"])


def _trusted() -> Any:
    api = get_current_settings().api
    if api.tls_insecure_skip_verify:
        return False
    return ssl.create_default_context(cafile=api.ssl_cert_file) if api.ssl_cert_file else True
