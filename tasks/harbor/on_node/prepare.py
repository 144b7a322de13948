"""Run Harbor's `./prepare` so that its failure leaves a running Harbor with the files that it had."""

import os
import re
import sys
from typing import Any, Dict, List, Optional

from tasks.on_node.files import make_directories, move, new_directory, remove_tree
from tasks.on_node.lib import fingerprint, payload, read, record, reply, run, state, write

PREPARED = "harbor_prepared.json"
SAVED = (("common/config", "config"), ("docker-compose.yml", "docker-compose.yml"))


def prepare_inputs(install_dir: str, flags: List[str]) -> str:
    """Hash everything that prepare's result depends on: harbor.yml, flags, certificate files."""
    text = read(install_dir + "/harbor.yml") or b""
    files = re.findall(rb"(?m)^  (?:certificate|private_key):\s*[\"']?([^\s\"']+)", text)
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
        if run(["cp", "-a", install_dir + "/" + name, fresh + "/" + saved], 60)[0] != 0:
            sys.exit("The configuration could not be copied aside; is the disk full?")
    move(fresh, aside)


def put_back(install_dir: str, aside: str) -> None:
    """Restore what was put aside, in place: the directories are mounted into running containers."""
    if not os.path.isdir(aside):
        return
    for name, saved in SAVED:
        source, target = aside + "/" + saved, install_dir + "/" + name
        if os.path.isdir(source):
            source, target = source + "/.", target + "/"
            make_directories(target.rstrip("/"), 0o755)
        # Without that option cp writes through a link that lies in the place of a file; containers can make one.
        if run(["cp", "-a", "--remove-destination", source, target], 60)[0] != 0:
            sys.exit("The configuration could not be restored from " + aside + "; copy it back by hand.")
    remove_tree(aside)


def align_override(install_dir: str) -> None:
    """Give the override the `version` line of docker-compose.yml; compose 1 refuses a difference."""
    override = install_dir + "/docker-compose.override.yml"
    text, base = (
        (read(path) or b"").decode("utf-8", "surrogateescape")
        for path in (override, install_dir + "/docker-compose.yml")
    )
    if not text:
        return
    line = re.search(r"(?m)^version:.*\n", base)
    without = re.sub(r"(?m)^version:.*\n", "", text)
    wanted = without + line.group(0) if line else without
    if version_of(wanted) != version_of(text):
        write(override, wanted.encode("utf-8", "surrogateescape"), 0o600, like=override)


def version_of(text: str) -> Optional[str]:
    """Read the `version` line of a compose file."""
    found = re.search(r"(?m)^version:\s*['\"]?([\d.]+)", text)
    return found.group(1) if found else None


def prepare(given: Dict[str, Any]) -> Dict[str, Any]:
    """Run prepare if its inputs changed or its result is incomplete."""
    home, flags = given["install_dir"], given["flags"]
    aside = home + "/.harbor-ha-before-prepare"
    wanted = prepare_inputs(home, flags)
    killed = os.path.isdir(aside)
    if not given["force"] and not killed and complete(home) and state(PREPARED).get("inputs") == wanted:
        return {"state": "unchanged"}
    put_aside(home, aside)
    status, out, err = run(["./prepare", *flags], given["timeout"], home)
    # It cleans its copy of harbor.yml, passwords and all, only when it succeeds.
    remove_tree(home + "/input")
    if status != 0 or not complete(home):
        put_back(home, aside)
        return {"state": "failed", "status": status, "output": (out + err)[-3000:]}
    align_override(home)
    record(PREPARED, {"inputs": wanted, "flags": flags})
    remove_tree(aside)
    return {"state": "done"}


if __name__ == "__main__":
    reply(prepare(payload()))
