"""Looks of `scripts/install-orchestrator` that a shell cannot take. One line for each thing that is missing; the
standard library only, since it also looks at a venv in which nothing is installed yet.

    look.py venv CODE          the venv whose Python runs this has what CODE/requirements.lock names, and CODE itself
    look.py api ENVIRONMENT    Prefect's server answers with the password of the file, and to nobody without it
    look.py flows ENVIRONMENT  a runner has registered the flows
"""

import base64
import importlib.metadata
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LIMIT_S = 10.0
# One of ours that each version has.
FLOW = "bootstrap"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


def missing_packages(
    lock: str, applies: Callable[[str], bool], installed: Mapping[str, str]
) -> Iterator[str]:
    """Compare a lock with what is installed.

    Args:
        lock: text of requirements.lock.
        applies: whether an environment marker holds here.
        installed: normalized name to version.
    """
    for name, version, marker in _PIN.findall(lock):
        if marker and not applies(marker):
            continue
        there = installed.get(normalized(name))
        if there != version:
            yield f"{name} {version} is not installed" + (f", but {there}" if there else "")


def normalized(name: str) -> str:
    """Write a package's name in the one form that means it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def look_at_venv(code: Path) -> list[str]:
    """Say what the venv that runs this lacks."""
    from pip._vendor.packaging.markers import Marker

    installed = {
        normalized(found.metadata["Name"]): found.version
        for found in importlib.metadata.distributions()
        if found.metadata["Name"]
    }
    lock = (code / "requirements.lock").read_text(encoding="utf-8")
    lacking = list(missing_packages(lock, lambda text: bool(Marker(text).evaluate()), installed))
    try:
        origin = importlib.metadata.distribution("harbor-ha").read_text("direct_url.json") or "{}"
    except importlib.metadata.PackageNotFoundError:
        origin = "{}"
    if json.loads(origin).get("url") != code.as_uri():
        lacking.append(f"{code} is not installed in it")
    return lacking


def read_environment(text: str) -> dict[str, str]:
    """Read NAME=VALUE lines as systemd does, as far as ours go."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and line[0] not in "#;")
    return {name: value.strip().strip("\"'") for name, _, value in lines}


def look_at_api(settings: Mapping[str, str]) -> list[str]:
    """Say what is wrong with the answers of Prefect's server."""
    try:
        ask(settings, "admin/version")
    except urllib.error.HTTPError as error:
        return [f"Prefect's server answers {error.code} to the password of the environment file"]
    except OSError as error:
        return [f"Prefect's server does not answer: {error}"]
    try:
        ask({**settings, "PREFECT_API_AUTH_STRING": ""}, "admin/version")
    except urllib.error.HTTPError:
        return []
    return ["Prefect's server answers without a password: PREFECT_SERVER_API_AUTH_STRING is not set for it"]


def look_at_flows(settings: Mapping[str, str]) -> list[str]:
    """Say whether a runner serves the flows."""
    try:
        found = ask(settings, "deployments/filter", {"deployments": {"name": {"any_": [FLOW]}}})
    except OSError as error:
        return [f"Prefect's server does not say which flows are served: {error}"]
    if any(deployment["status"] == "READY" for deployment in found):
        return []
    return ["no runner serves the flows: journalctl -u harbor-ha-runner"]


def ask(settings: Mapping[str, str], path: str, body: Any = None) -> Any:
    """Ask Prefect's API; raises OSError, of which HTTPError is one."""
    url = f"{settings.get('PREFECT_API_URL', '').rstrip('/')}/{path}"
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise OSError("PREFECT_API_URL is not set")
    headers = {"Content-Type": "application/json"}
    if login := settings.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    # No proxy: it is this machine that is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers), timeout=LIMIT_S) as answer:
        return json.load(answer)


def main(words: Sequence[str]) -> int:
    """Take a look; print what is missing and return 1 when anything is."""
    what, path = words
    if what == "venv":
        lacking = look_at_venv(Path(path))
    else:
        settings = read_environment(Path(path).read_text(encoding="utf-8"))
        lacking = (look_at_api if what == "api" else look_at_flows)(settings)
    for line in lacking[:5]:
        print(line)
    if len(lacking) > 5:
        print(f"and {len(lacking) - 5} more")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
