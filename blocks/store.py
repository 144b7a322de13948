"""Where sites are kept: as Blocks in Prefect, and as a local copy for when Prefect is down."""

import json
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from prefect.blocks.core import Block
from pydantic import BaseModel, SecretStr, ValidationError

from blocks.prefect_api import prefect_api
from blocks.problems import SiteUnknown
from blocks.site import HarborSite
from blocks.ssh_host import SshHost

logger = logging.getLogger("harbor_ha.site")

LOAD_TIMEOUT_S = 3.0
"""A failover waits at most this long for Prefect's two answers before it takes the copy."""

SAVE_TIMEOUT_S = 30.0

_KEPT_APART = "kept in the node's own Block"

_PARTS = ("postgres", "harbor", "redis", "nas", "balancer", "oss", "aliyun", "docker", "failover", "backup")

_sites: dict[str, HarborSite] = {}
_lock = threading.Lock()


def save_site(site: HarborSite) -> None:
    """Save a site as Blocks and as a local copy; what was saved under its name before is replaced.

    Parts are Blocks of their own (`<site>-postgres`, …) that the site refers to, and nodes are Blocks that
    the site names (`<site>-<node>`), so an edit of any of them in the UI takes effect. The Block of a node that
    the site had and has no more, with its private key, is removed.

    Raises httpx.HTTPError when the server does not answer.
    """
    HarborSite.register_type_and_schema()  # registers the parts too
    data = site_as_data(site)
    with prefect_api(SAVE_TIMEOUT_S) as api:
        gone = _saved_nodes(api, site.name) - {node.name for node in site.nodes}
        for part in _PARTS:
            block = getattr(site, part)
            if block is not None:
                saved = _put(api, type(block), f"{site.name}-{part}", data[part])
                data[part] = {"$ref": {"block_document_id": saved}}
        for node in data["nodes"]:
            _put(api, SshHost, _node_block(site.name, node["name"]), node)
        # Prefect keeps references in single fields only, and hides no secret inside of a list: API and UI would
        # show the SSH keys of nodes that are saved within the site.
        data["nodes"] = [node | {"private_key": _KEPT_APART} for node in data["nodes"]]
        _put(api, HarborSite, site.name, data)
        for name in sorted(gone):
            _remove(api, SshHost, _node_block(site.name, name))
    write_copy(site)
    remember(site)


def _put(api: httpx.Client, kind: type[Block], name: str, data: dict[str, Any]) -> str:
    """Save a document under a name, new or in place of the old one, and return its id.

    Block.save does the same with ten requests and a new client for each: half a minute for a site on a busy machine.
    """
    known = _known(api, kind, name)
    if known is None:
        new = {
            "name": name,
            "data": data,
            "block_type_id": str(kind._block_type_id),
            "block_schema_id": str(kind._block_schema_id),
        }
        return str(api.post("block_documents/", json=new).raise_for_status().json()["id"])
    changed = {"data": data, "block_schema_id": str(kind._block_schema_id), "merge_existing_data": False}
    api.patch(f"block_documents/{known['id']}", json=changed).raise_for_status()
    return str(known["id"])


def _remove(api: httpx.Client, kind: type[Block], name: str) -> None:
    known = _known(api, kind, name)
    if known is not None:
        api.delete(f"block_documents/{known['id']}").raise_for_status()


def _saved_nodes(api: httpx.Client, site: str) -> set[str]:
    """Name the nodes of the site as it is saved now."""
    known = _known(api, HarborSite, site)
    return set() if known is None else {str(node["name"]) for node in known["data"].get("nodes") or []}


def _known(api: httpx.Client, kind: type[Block], name: str) -> dict[str, Any] | None:
    """Ask for a document without its secrets; None when there is none."""
    slug = kind.get_block_type_slug()
    found = api.get(f"block_types/slug/{slug}/block_documents/name/{quote(name, safe='')}")
    if found.status_code == 404:
        return None
    document: dict[str, Any] = found.raise_for_status().json()
    return document


def saved_sites() -> dict[str, list[str]]:
    """Name every saved site with its nodes, by what Prefect keeps.

    Raises httpx.HTTPError when the server does not answer.
    """
    asked = {"block_types": {"slug": {"any_": [HarborSite.get_block_type_slug()]}}}
    with prefect_api(SAVE_TIMEOUT_S) as api:
        found = api.post("block_documents/filter", json=asked).raise_for_status().json()
    return {
        str(document["name"]): [str(node["name"]) for node in document["data"].get("nodes") or []]
        for document in found
    }


def saved_copies() -> list[str]:
    """Name every site of which a local copy is here."""
    return sorted(path.stem for path in copy_path("any").parent.glob("*.json"))


def remove_site(name: str) -> list[str]:
    """Remove a saved site: its Blocks, with the private keys of its nodes, and the local copy; nothing on its nodes.

    Returns:
        what was removed; empty when there was nothing of that name.

    Raises:
        httpx.HTTPError: the server does not answer; what is left is removed by the next call.
    """
    site_type, node_type = HarborSite.get_block_type_slug(), SshHost.get_block_type_slug()
    removed = []
    with prefect_api(SAVE_TIMEOUT_S) as api:
        wanted: set[tuple[str | None, str]] = {
            (node_type, _node_block(name, node)) for node in _saved_nodes(api, name)
        }
        wanted |= {(None, f"{name}-{part}") for part in _PARTS}
        names = [name, *(block for _, block in wanted)]
        asked = {"block_documents": {"name": {"any_": names}}}
        found = api.post("block_documents/filter", json=asked).raise_for_status().json()
        ours = {}
        for document in found:
            slug, block = document["block_type"]["slug"], document["name"]
            part = None if slug not in (site_type, node_type) else slug
            if (slug == site_type and block == name) or (
                (part, block) in wanted and slug.startswith("harbor-ha")
            ):
                ours[document["id"]] = (slug == site_type, block)
        # The site last: a call that was cut off finds its nodes by it.
        for document_id, (_, block) in sorted(ours.items(), key=lambda item: item[1]):
            api.delete(f"block_documents/{document_id}").raise_for_status()
            removed.append(f"Block {block}")
    copy = copy_path(name)
    if copy.exists():
        copy.unlink()
        removed.append(str(copy))
    forget(name)
    return removed


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
        found = _read_blocks(name)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        # A ValidationError quotes its input, which holds secrets.
        reason = (
            type(error).__name__ if isinstance(error, ValidationError) else str(error) or type(error).__name__
        )
    else:
        if found is None:
            raise SiteUnknown(f"Prefect knows no site {name}: harbor-ha apply SITE.yml saves one")
        return found
    logger.warning("Prefect did not give the site %s (%s): using the local copy", name, reason)
    return read_copy(name)


def _read_blocks(name: str) -> HarborSite | None:
    """Ask the API itself: Block.load tries six times with back-off, minutes that a failover does not have."""
    with prefect_api(LOAD_TIMEOUT_S / 2) as api:
        slug = HarborSite.get_block_type_slug()
        answer = api.get(
            f"block_types/slug/{slug}/block_documents/name/{quote(name, safe='')}",
            params={"include_secrets": True},
        )
        if answer.status_code == 404:
            return None
        data = answer.raise_for_status().json()["data"]
        names = [_node_block(name, node["name"]) for node in data["nodes"]]
        answer = api.post(
            "block_documents/filter",
            json={
                "block_types": {"slug": {"any_": [SshHost.get_block_type_slug()]}},
                "block_documents": {"name": {"any_": names}},
                "include_secrets": True,
            },
        )
        kept_apart = {document["name"]: document["data"] for document in answer.raise_for_status().json()}
    data["nodes"] = [kept_apart.get(_node_block(name, node["name"]), node) for node in data["nodes"]]
    site = HarborSite.model_validate(data)
    for node in site.nodes:
        if node.private_key.get_secret_value() == _KEPT_APART:
            raise ValueError(f"the Block {_node_block(name, node.name)} is gone")
    return site


def _node_block(site: str, node: str) -> str:
    return f"{site}-{node}"
