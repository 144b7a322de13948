"""daemon.json: what the site needs is added to what the operator has."""

import json
from collections.abc import Sequence
from typing import Any

from blocks import HarborSite, docker_rules
from tasks.docker.on_node import daemon_apply
from tasks.errors import Refused
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_DAEMON_APPLY = node_program(daemon_apply)

PATH = "/etc/docker/daemon.json"


def merged(existing: str | None, mirrors: Sequence[str], insecure: Sequence[str]) -> str:
    """Add registry mirrors and insecure registries to a daemon.json.

    Args:
        existing: the file's content; None when there is none.
        mirrors: registry mirrors, `https://…`.
        insecure: registries that may be used without TLS, `host:port`.

    Returns:
        The new content; the same text when nothing is missing. Nothing is ever removed.

    Raises:
        Refused: the existing file is not a JSON object with lists at these keys, or a mirror is no address.
    """
    flaw = docker_rules.mirrors(list(mirrors))
    problems = [f"docker.registry_mirrors: {flaw.what} -> {flaw.right}"] if flaw else []
    document = _parse(existing, problems)
    before = json.dumps(document)
    # Docker stores a mirror with a slash at its end; it is the same mirror.
    _add(document, "registry-mirrors", mirrors, lambda text: text.rstrip("/"), problems)
    _add(document, "insecure-registries", insecure, daemon_apply.normal, problems)
    if problems:
        raise Refused(f"{PATH} was left as it is.", problems)
    if json.dumps(document) == before:
        return existing or ""
    return json.dumps(document, indent=2) + "\n"


def configure(site: HarborSite, host: Host) -> Outcome:
    """Merge the site's Docker options into daemon.json and have the engine take it over; else the old one stays.

    Raises:
        Refused: see `merged`.
        RemoteCommandFailed: the engine does not take the new file; the one from before was put back.
    """
    mirrors, insecure = site.docker.registry_mirrors, site.docker.insecure_registries
    if not mirrors and not insecure:
        return unchanged("the site has no Docker options")
    found = host.read(PATH)
    try:
        existing = None if found is None else found.decode("utf-8")
        wanted = merged(existing, mirrors, insecure)
    except UnicodeDecodeError:
        raise Refused(
            f"{host.name}: {PATH} was left as it is.", ["It is not UTF-8: save it as UTF-8."]
        ) from None
    except Refused as refused:
        raise Refused(f"{host.name}: {refused.what}", refused.reasons) from None
    given = {
        "path": PATH,
        "wanted": None if wanted == (existing or "") else wanted,
        "registry_mirrors": mirrors,
        "insecure_registries": insecure,
    }
    # Asked also when the file is right: the run that wrote it may have been killed before the reload.
    how = host.python(_DAEMON_APPLY, given, timeout=300)["how"]
    if not how:
        return unchanged(f"{PATH} has the mirrors and insecure registries")
    return changed(f"{PATH} merged, Docker {how}")


def _parse(existing: str | None, problems: list[str]) -> dict[str, Any]:
    if existing is None or not existing.strip():
        return {}
    try:
        document = json.loads(existing)
    except ValueError as error:
        problems.append(f"It is not valid JSON ({error}); correct it or move it away.")
        return {}
    if not isinstance(document, dict):
        problems.append("It is not a JSON object; correct it or move it away.")
        return {}
    return document


def _add(document: dict[str, Any], key: str, wanted: Sequence[str], same: Any, problems: list[str]) -> None:
    present = document.get(key, [])
    if not isinstance(present, list):
        problems.append(f"{key} is not a list; correct it.")
        return
    known = {same(str(item)) for item in present}
    missing = [item for item in dict.fromkeys(wanted) if same(item) not in known]
    if missing:
        document[key] = [*present, *missing]
