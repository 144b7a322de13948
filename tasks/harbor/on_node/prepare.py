"""Run Harbor's `./prepare` so that its failure leaves a running Harbor with the files that it had."""

import glob
import os
import re
import sys
from typing import Any, Dict, List, Optional, Set, Tuple

from tasks.on_node.files import make_directories, move, new_directory, remove_tree
from tasks.on_node.lib import (
    compose_command,
    fingerprint,
    last_words,
    payload,
    read,
    record,
    reply,
    run,
    state,
    write,
)

PREPARED = "harbor_prepared.json"
COMPOSE_FILE = "docker-compose.yml"
OVERRIDE = "docker-compose.override.yml"
SAVED = (("common/config", "config"), (COMPOSE_FILE, COMPOSE_FILE), (OVERRIDE, OVERRIDE))
# Compose before 1.27 (Debian 11 and Ubuntu 20.04 have 1.25) takes a file without `version` for one of 2014, where
# the services stand at the top; Harbor writes none from 2.12 on. 2.3 is what Harbor itself wrote until then.
ASKS_FOR_VERSION = (1, 27)
VERSION_LINE = "version: '2.3'\n"


def prepare_inputs(install_dir: str, flags: List[str]) -> str:
    """Hash everything that prepare's result depends on: harbor.yml, flags, certificate files."""
    text = read(install_dir + "/harbor.yml") or b""
    # In any style and indentation; one too many, such as in a remark, does no harm.
    files = re.findall(rb"(?:certificate|private_key)[\"']?[ \t]*:\s*[\"']?([^\s\"',}]+)", text)
    return fingerprint(text, " ".join(flags).encode(), *[read(os.fsdecode(path)) for path in sorted(files)])


def complete(install_dir: str) -> bool:
    """Tell whether the files that compose needs are there; a killed prepare leaves less."""
    wanted = ("docker-compose.yml", "common/config/core/env", "common/config/jobservice/env")
    return all(os.path.exists(install_dir + "/" + name) for name in wanted)


def put_aside(install_dir: str, aside: str) -> None:
    """Copy what prepare deletes. A copy that is there already is from a run that was killed: keep it."""
    if os.path.isdir(aside) or not complete(install_dir):
        return
    fresh = aside + ".new"
    remove_tree(fresh)
    new_directory(fresh, 0o700)
    # cp -a keeps owners, which the containers' users need; copytree does not.
    for name, saved in SAVED:
        if name == OVERRIDE and not os.path.exists(install_dir + "/" + name):
            continue
        if run(["cp", "-a", install_dir + "/" + name, fresh + "/" + saved], 60)[0] != 0:
            sys.exit("The configuration could not be copied aside; is the disk full?")
    move(fresh, aside)


def put_back(install_dir: str, aside: str) -> None:
    """Restore what was put aside, in place: the directories are mounted into running containers."""
    if not os.path.isdir(aside):
        return
    for name, saved in SAVED:
        source, target = aside + "/" + saved, install_dir + "/" + name
        if name == OVERRIDE and not os.path.exists(source):
            continue
        if os.path.isdir(source):
            source, target = source + "/.", target + "/"
            make_directories(target.rstrip("/"), 0o755)
        # Without that option cp writes through a link that lies in the place of a file; containers can make one.
        if run(["cp", "-a", "--remove-destination", source, target], 60)[0] != 0:
            sys.exit("The configuration could not be restored from " + aside + "; copy it back by hand.")
    remove_tree(aside)


def align(install_dir: str, compose: List[str]) -> bool:
    """Make the generated file and its override such as the node's compose takes; whether that changed anything."""
    added = add_version(install_dir, compose)
    return align_override(install_dir) or added


def add_version(install_dir: str, compose: List[str]) -> bool:
    """Put the `version` line before docker-compose.yml where it has none and the node's compose needs it."""
    path = install_dir + "/" + COMPOSE_FILE
    text = (read(path) or b"").decode("utf-8", "surrogateescape")
    if version_of(text) is not None or compose_version(compose) >= ASKS_FOR_VERSION:
        return False
    return write(path, (VERSION_LINE + text).encode("utf-8", "surrogateescape"), 0o644, like=path)


def align_override(install_dir: str) -> bool:
    """Give the override the `version` line of docker-compose.yml; compose 1 refuses a difference."""
    override = install_dir + "/" + OVERRIDE
    text, base = (
        (read(path) or b"").decode("utf-8", "surrogateescape")
        for path in (override, install_dir + "/" + COMPOSE_FILE)
    )
    if not text:
        return False
    line = re.search(r"(?m)^version:.*\n", base)
    without = re.sub(r"(?m)^version:.*\n", "", text)
    wanted = without + line.group(0) if line else without
    if version_of(wanted) == version_of(text):
        return False
    return write(override, wanted.encode("utf-8", "surrogateescape"), 0o600, like=override)


def compose_version(compose: List[str]) -> Tuple[int, ...]:
    """Ask compose for its version: major and minor; one that does not say it in numbers is taken for a new one."""
    found = re.search(r"(\d+)\.(\d+)", run([*compose, "version", "--short"], 20)[1])
    return (int(found.group(1)), int(found.group(2))) if found else ASKS_FOR_VERSION


def refused_by(compose: List[str], install_dir: str) -> str:
    """Ask compose whether it takes the files; "" when it does, else what it says, without what may be secret."""
    status, out, err = run([*compose, "config", "-q"], 60, install_dir)
    if status == 0:
        return ""
    version = run([*compose, "version", "--short"], 20)[1].strip()
    said = without_values(last_words(out + err), install_dir)
    return "{} {} does not take {}: {}".format(" ".join(compose), version, COMPOSE_FILE, said)


def secrets_of(harbor_yml: str) -> Set[str]:
    """Find the values of harbor.yml that are secrets by their key, in whatever style they are written."""
    keys = r"\w*(?:password|secret|token|accesskeyid|accesskey|accountkey|credentials)\w*"
    return set(re.findall("(?i)" + keys + r"[\"']?\s*:\s*[\"']?([^\s\"',}]{4,})", harbor_yml))


def without_values(said: str, install_dir: str) -> str:
    """Take out of a text what the containers' environments and harbor.yml hold: compose and prepare quote it."""
    for secret in secrets_of((read(install_dir + "/harbor.yml") or b"").decode("utf-8", "replace")):
        said = said.replace(secret, "...")
    text = (read(install_dir + "/" + OVERRIDE) or b"").decode("utf-8", "replace")
    values = set(re.findall(r"[A-Z][A-Z0-9_]*\s*[:=]\s*[\"']?([^\s\"',}\]]+)", text))
    for path in glob.glob(install_dir + "/common/config/*/env"):
        lines = (read(path) or b"").decode("utf-8", "replace").splitlines()
        values.update(line.partition("=")[2].strip() for line in lines)
    for value in sorted(values, key=len, reverse=True):
        # Shorter ones are words and numbers, no secrets; without them nobody could read the rest.
        said = said.replace(value, "...") if len(value) >= 8 else said
    return said


def version_of(text: str) -> Optional[str]:
    """Read the `version` line of a compose file."""
    found = re.search(r"(?m)^version:\s*['\"]?([\d.]+)", text)
    return found.group(1) if found else None


def prepare(given: Dict[str, Any]) -> Dict[str, Any]:
    """Run prepare if its inputs changed or its result is incomplete.

    The answer's `state`: unchanged, aligned (only made to fit compose), done, failed.
    """
    home, flags = given["install_dir"], given["flags"]
    aside = home + "/.harbor-ha-before-prepare"
    wanted = prepare_inputs(home, flags)
    killed = os.path.isdir(aside)
    compose = compose_command()
    if not given["force"] and not killed and complete(home) and state(PREPARED).get("inputs") == wanted:
        # An operator's own ./prepare, or another compose than yesterday's.
        return {"state": "aligned" if align(home, compose) else "unchanged"}
    put_aside(home, aside)
    status, out, err = run(["./prepare", *flags], given["timeout"], home)
    # It cleans its copy of harbor.yml, passwords and all, only when it succeeds.
    remove_tree(home + "/input")
    if status != 0 or not complete(home):
        put_back(home, aside)
        said = without_values((out + err)[-3000:].strip(), home)
        why = "./prepare ended with status {}: {}".format(status, said)
        return {"state": "failed", "why": why}
    align(home, compose)
    refusal = refused_by(compose, home)
    if refusal:
        put_back(home, aside)
        return {"state": "failed", "why": refusal}
    record(PREPARED, {"inputs": wanted, "flags": flags})
    remove_tree(aside)
    return {"state": "done"}


if __name__ == "__main__":
    reply(prepare(payload()))
