"""docker-compose.override.yml: what must survive every `./prepare`, ours and the operator's.

prepare draws new random secrets at each run and writes them into the env files; it never touches the
override, and `environment` there beats `env_file`.
"""

import io
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from blocks import HarborSite
from blocks.yaml_fault import yaml_fault
from tasks.errors import Refused
from tasks.harbor.secrets import SecretsDiffer, random_text
from tasks.harbor.versions import habits, parse_version
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged

# Length of each shared secret, as prepare makes it; CSRF_KEY must have exactly 32 characters.
PINNED = {"CORE_SECRET": 16, "JOBSERVICE_SECRET": 16, "CSRF_KEY": 32}
_USERS = {
    "core": ("CORE_SECRET", "JOBSERVICE_SECRET", "CSRF_KEY"),
    "jobservice": ("CORE_SECRET", "JOBSERVICE_SECRET"),
    "registryctl": ("CORE_SECRET", "JOBSERVICE_SECRET"),
}
_HEADER = "Shared by all nodes; prepare does not touch this file. Entries of your own are kept.\n"


def path(site: HarborSite) -> str:
    """Name the override file on a node."""
    return f"{site.harbor.install_dir.rstrip('/')}/docker-compose.override.yml"


def pinned(text: str | None) -> dict[str, str]:
    """Read the shared secrets that an override file has."""
    document = _load(text)
    environment = _at(document, "services", "core", "environment") or {}
    if isinstance(environment, list):
        environment = _pairs(environment)
    if not isinstance(environment, Mapping):
        return {}
    return {name: str(environment[name]) for name in PINNED if environment.get(name)}


def objections(text: str | None, site: HarborSite) -> list[str]:
    """List what `merged` would refuse, before anything is changed."""
    try:
        merged(text, site, dict.fromkeys(PINNED, ""), None)
    except Refused as refused:
        return list(refused.reasons)
    return []


def merged(text: str | None, site: HarborSite, secrets: Mapping[str, str], base_version: str | None) -> str:
    """Put what the site needs into an override file.

    Args:
        text: the file as it is; None when there is none.
        site: its network, NAS and data volume.
        secrets: the values of PINNED.
        base_version: the `version` line of docker-compose.yml; compose 1 refuses files that differ in it.

    Returns:
        The new text; the same text when it has everything.

    Raises:
        Refused: the existing file cannot be read, or something stands where the site's entries belong.
    """
    document = _load(text)
    before = _plain(document)
    _refuse_strange(document)
    if base_version is None:
        document.pop("version", None)
    else:
        document["version"] = base_version
    for service, names in _USERS.items():
        _merge(document, {"services": {service: {"environment": {name: secrets[name] for name in names}}}})
    # Core is process 1 of its container and does not listen to SIGTERM: compose would wait ten seconds for
    # it, on the critical path of a failover. It has nothing to finish that a client would not repeat.
    _merge(document, {"services": {"core": {"stop_grace_period": "1s"}}})
    # The NAS itself, not <data_volume>/registry: a bind by this form fails when the source is missing, so a
    # node that boots before its NAS is mounted does not collect pushes on its own disk.
    for service in ("registry", "registryctl"):
        _merge(document, {"services": {service: {}}})
        _set_volume(document["services"][service], site.nas.registry, "/storage")
    # pg_hba.conf admits Harbor's containers by their subnet, so compose must not choose another one.
    subnet = {"ipam": {"config": [{"subnet": site.harbor.network}]}}
    _merge(document, {"networks": {"harbor": subnet}})
    return text if text is not None and _plain(document) == before else _dump(document, new=text is None)


def share(site: HarborSite, *hosts: Host) -> Outcome:
    """Write the override on all nodes, with the same secrets; before the first start.

    Raises:
        SecretsDiffer: nodes have different pinned secrets.
        Refused: a node's override file cannot be read.
    """
    where = path(site)
    generated = f"{site.harbor.install_dir.rstrip('/')}/docker-compose.yml"

    def read(host: Host) -> tuple[str | None, str | None]:
        override, compose = host.read(where), host.read(generated)
        return _text(override), _base_version(site, _text(compose))

    with ThreadPoolExecutor(len(hosts)) as pool:
        found = dict(zip((host.name for host in hosts), pool.map(read, hosts), strict=True))
    secrets = agreed({node: pinned(text) for node, (text, _) in found.items()})
    written = []
    for host in hosts:
        existing, base = found[host.name]
        text = merged(existing, site, secrets, base)
        if text != existing and host.put(where, text, mode=0o600):
            written.append(host.name)
    if not written:
        return unchanged("the override is equal on all nodes")
    return changed(f"wrote the override on {', '.join(written)}")


def agreed(by_node: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Take over the pinned secrets that a node has, and draw those that none has.

    Raises:
        SecretsDiffer: two nodes have different values; the message names nodes, never values.
    """
    result, problems = {}, []
    for name, length in PINNED.items():
        owners = [node for node, values in by_node.items() if name in values]
        values = {by_node[node][name] for node in owners}
        if len(values) > 1:
            problems.append(
                f"{', '.join(owners)} have different {name} in docker-compose.override.yml; make them equal."
            )
        result[name] = values.pop() if values else random_text(length)
    if problems:
        raise SecretsDiffer("The nodes have different pinned secrets.", problems)
    return result


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            "docker-compose.override.yml cannot be read.",
            [f"Byte {error.start + 1} is not UTF-8, which compose asks for: save the file as UTF-8."],
        ) from None


def _base_version(site: HarborSite, compose: str | None) -> str | None:
    # Before the first prepare there is no docker-compose.yml; what the version is known to write must do.
    if compose is None:
        return habits(parse_version(site.harbor.version)).compose_version
    line = re.search(r"(?m)^version:\s*['\"]?([\d.]+)", compose)
    return line[1] if line else None


def _set_volume(service: CommentedMap, source: str, target: str) -> None:
    wanted = {"type": "bind", "source": source, "target": target}
    volumes = service.get("volumes") or []
    others = [volume for volume in volumes if not _is_at(volume, target)]
    if len(others) == len(volumes) - 1 and wanted in [_plain(volume) for volume in volumes]:
        return
    service["volumes"] = [*others, wanted]


def _is_at(volume: Any, target: str) -> bool:
    if isinstance(volume, Mapping):
        return volume.get("target") == target
    return target in str(volume).split(":")[1:2]


def _at(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _pairs(environment: list[Any]) -> dict[str, str | None]:
    # A name alone is what compose takes from the shell that starts it; as an empty text it would be emptied.
    split = [str(item).partition("=") for item in environment]
    return {name: value if sign else None for name, sign, value in split}


def _refuse_strange(document: CommentedMap) -> None:
    services = {f"services.{name}": ("services", name) for name in (*_USERS, "registry")}
    sections = {"services": ("services",), **services, "networks": ("networks",)}
    sections |= {
        "networks.harbor": ("networks", "harbor"),
        "networks.harbor.ipam": ("networks", "harbor", "ipam"),
    }
    found = {name: _at(document, *keys) for name, keys in sections.items()}
    reasons = [
        f"{name} is not a section with keys."
        for name, at in found.items()
        if at and not isinstance(at, Mapping)
    ]
    for service in (*_USERS, "registry"):
        environment, volumes = (_at(document, "services", service, key) for key in ("environment", "volumes"))
        if environment and not isinstance(environment, Mapping | list):
            reasons.append(f"services.{service}.environment is neither a list nor a section with keys.")
        if volumes and not isinstance(volumes, list):
            reasons.append(f"services.{service}.volumes is not a list.")
    if _at(document, "networks", "harbor", "external"):
        reasons.append(
            "networks.harbor is external, and the site gives it the subnet of harbor.network, by which PostgreSQL "
            "admits Harbor's containers: remove `external`; a service may join another network beside it."
        )
    config = _at(document, "networks", "harbor", "ipam", "config")
    if config and not isinstance(config, list):
        reasons.append("networks.harbor.ipam.config is not a list.")
    if reasons:
        raise Refused("docker-compose.override.yml cannot be completed.", reasons)


def _merge(target: CommentedMap, wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if isinstance(value, Mapping):
            if not isinstance(target.get(key), Mapping):
                # An environment given as a list is the same thing; its entries must not be lost.
                listed = target.get(key)
                target[key] = CommentedMap(_pairs(listed) if isinstance(listed, list) else {})
            _merge(target[key], value)
        elif target.get(key) != value:
            target[key] = value


def _load(text: str | None) -> CommentedMap:
    if text is None or not text.strip():
        return CommentedMap()
    try:
        document = YAML().load(text)
    except Exception as error:  # besides YAMLError: ValueError for a 31st of February…
        raise Refused("docker-compose.override.yml cannot be read.", [yaml_fault(text, error)]) from None
    if not isinstance(document, CommentedMap):
        raise Refused("docker-compose.override.yml cannot be read.", ["It is not a mapping."])
    return document


def _dump(document: CommentedMap, *, new: bool) -> str:
    if new:
        document.yaml_set_start_comment(_HEADER)
    out = io.StringIO()
    yaml = YAML()
    yaml.width = 1 << 16
    yaml.dump(document, out)
    return out.getvalue()


def _plain(document: Any) -> Any:
    if isinstance(document, Mapping):
        return {str(key): _plain(value) for key, value in document.items()}
    return [_plain(value) for value in document] if isinstance(document, list) else document
