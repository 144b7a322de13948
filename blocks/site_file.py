"""The site file: one YAML file that describes a site, read into the Blocks with every mistake at once."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks.keys import normal_host_key
from blocks.problems import Problem, SiteFileInvalid
from blocks.references import References
from blocks.schema_reader import Reading, read_model
from blocks.site import HarborSite
from blocks.site_rules import problems_of
from blocks.yaml_source import YamlSource, read_yaml

logger = logging.getLogger("harbor_ha.site")


def read_site_file(
    path: str | Path, *, environ: Mapping[str, str] | None = None, now: datetime | None = None
) -> HarborSite:
    """Read a site file. What works but deserves attention is logged as a warning.

    Args:
        path: the YAML file; relative paths in it start at its directory.
        environ: where `{env: NAME}` looks; the process's environment unless given.
        now: the time that certificates are judged by, with a time zone; the clock unless given.

    Raises:
        SiteFileInvalid: with every mistake of the file; nothing was changed.
    """
    site, warnings = inspect_site_file(path, environ=environ, now=now)
    for warning in warnings:
        logger.warning("%s", warning)
    return site


def inspect_site_file(
    path: str | Path, *, environ: Mapping[str, str] | None = None, now: datetime | None = None
) -> tuple[HarborSite, list[Problem]]:
    """Do what `read_site_file` does, and return the warnings instead of logging them."""
    file = Path(path).expanduser().absolute()
    source = read_yaml(file)
    if not isinstance(source.data, dict):
        raise SiteFileInvalid(
            str(path), [Problem("the file", "holds no keys", "start from docs/site.example.yml")]
        )
    reading = Reading(References(file.parent, os.environ if environ is None else environ))
    tree = read_model(HarborSite, source.data, "", reading)
    _normalise(tree, reading)
    found = [*source.problems, *reading.problems, *problems_of(reading.values, now or datetime.now(UTC))]
    found += _exposed(file, reading)
    placed = sorted((_placed(problem, source) for problem in found), key=lambda problem: problem.line)
    errors = [problem for problem in placed if not problem.warning]
    if errors:
        raise SiteFileInvalid(str(path), errors)
    return HarborSite.model_validate(tree), [problem for problem in placed if problem.warning]


def _normalise(tree: dict[str, Any], reading: Reading) -> None:
    """Bring what can be written in several ways into one form, in the tree and in the values to be judged."""
    for node in tree.get("nodes", ()):
        if "host_key" in node:
            node["host_key"] = normal_host_key(node["host_key"])
            reading.values[f"nodes.{node['name']}.host_key"] = node["host_key"]
    harbor = tree.get("harbor", {})
    installer = harbor.get("installer")
    if installer is None or installer.startswith(("https://", "http://")):
        return
    file = reading.references.path(installer)
    harbor["installer"] = reading.values["harbor.installer"] = str(file)
    if not (file.is_file() and os.access(file, os.R_OK)):
        reading.problem(
            "harbor.installer", f"cannot read {file}", "a file on the orchestrator, or an https:// address"
        )


def _exposed(file: Path, reading: Reading) -> list[Problem]:
    mode = file.stat().st_mode
    if not reading.inline_secrets or not mode & 0o077:
        return []
    what = f"is open to other users (mode {mode & 0o777:04o}) and holds {', '.join(reading.inline_secrets)}"
    return [
        Problem("the file", what, f"chmod 600 {file.name}, or {{file: PATH}} for the secrets", warning=True)
    ]


def _placed(problem: Problem, source: YamlSource) -> Problem:
    """Give a problem its line: that of its key, or of the nearest key above it."""
    path = problem.path
    while not problem.line and path:
        if path in source.lines:
            return replace(problem, line=source.lines[path])
        path = path.rpartition(".")[0]
    return problem
