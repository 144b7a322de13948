"""Make this node's Harbor use another database: first its files, then the containers that read them."""

import glob
import re
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from tasks.harbor.on_node.clone import NEXT, EngineRefused, stage, switch
from tasks.harbor.on_node.containers import (
    STARTED,
    address_of,
    compose,
    containers,
    core_answers,
    environment_of,
    inspect,
    reload_proxy,
    require_nas,
)
from tasks.harbor.on_node.prepare import PREPARED, prepare_inputs
from tasks.harbor.on_node.start import start_inputs
from tasks.on_node.lib import payload, poll, read, record, reply, run, state, write

# Fixed by Harbor's docker-compose.yml.
CORE, PROXY = "harbor-core", "nginx"
# What else reads the database's address from files; jobservice asks core for it when it starts.
READERS = ("exporter", "notary-server", "notary-signer")


def with_host(text: str, host: str) -> str:
    """Set every `host` under `external_database` of a harbor.yml; nothing else in it changes."""
    lines = text.split("\n")
    inside = False
    for number, line in enumerate(lines):
        if re.match(r"[^\s#]", line):
            inside = line.startswith("external_database:")
        elif inside:
            found = re.match(r"(\s+host:\s*)(?:\"[^\"]*\"|'[^']*'|[^\s#]*)(.*)$", line)
            if found:
                lines[number] = found.group(1) + host + found.group(2)
    return "\n".join(lines)


def with_variable(text: str, name: str, value: str) -> str:
    """Set one variable of an env file."""
    return re.sub("(?m)^" + name + "=.*$", lambda _: name + "=" + value, text)


def edits(home: str, host: str) -> Dict[str, str]:
    """Work out the new text of each file that has the address and has another one now."""
    generated = home + "/common/config"
    rules: Dict[str, Callable[[str], str]] = {
        home + "/harbor.yml": lambda text: with_host(text, host),
        generated + "/core/env": lambda text: with_variable(text, "POSTGRESQL_HOST", host),
        generated + "/exporter/env": lambda text: with_variable(text, "HARBOR_DATABASE_HOST", host),
    }
    for path in glob.glob(generated + "/notary/*"):
        rules[path] = lambda text: re.sub(
            r"(postgres(?:ql)?://[^@\s]+@)[^:/\s]+", lambda m: m.group(1) + host, text
        )
    found = {}
    for path, rule in rules.items():
        data = read(path)
        if data is not None:
            text = data.decode("utf-8")
            if rule(text) != text:
                found[path] = rule(text)
    return found


def edit(home: str, host: str) -> List[str]:
    """Write the new address; the records of the last prepare and start stay true, as we know what changed."""
    wanted = edits(home, host)
    if not wanted:
        return []
    prepared, started = state(PREPARED), state(STARTED)
    was_prepared = prepared.get("inputs") == prepare_inputs(home, prepared.get("flags", []))
    was_started = started.get("inputs") == start_inputs(home)
    for path, text in wanted.items():
        write(path, text.encode("utf-8"), 0o600, like=path)
    if was_prepared:
        record(PREPARED, dict(prepared, inputs=prepare_inputs(home, prepared.get("flags", []))))
    if was_started:
        record(STARTED, dict(started, inputs=start_inputs(home)))
    return sorted(wanted)


def connected_host() -> Optional[str]:
    """Read which database the running core was started for; None when it does not run."""
    core = inspect(CORE)
    if core is None or not core["State"]["Running"]:
        return None
    return environment_of(core).get("POSTGRESQL_HOST")


def stage_core(home: str, host: str) -> bool:
    """Make the next core beside the running one; False when compose has to do it."""
    try:
        return stage(home, "core", CORE, {"POSTGRESQL_HOST": host})
    except EngineRefused:
        return False


def replace_core(home: str, host: str, timeout: float) -> str:
    """Put a core with the new address in the place of the old one; `restart` would keep the old environment."""
    if stage_core(home, host):
        try:
            switch(CORE)
            return "staged"
        except EngineRefused:
            pass
    # Whatever is left of the attempt: compose would take it for the service's container.
    run(["docker", "rm", "--force", CORE + NEXT], 30)
    # Core does not listen to SIGTERM and has nothing to finish: its database is gone or read-only.
    compose(home, ["up", "-d", "--no-deps", "--timeout", "1", "core"], timeout)
    return "compose"


def recreate_and_wait(home: str, host: str, timeout: float, seconds: Dict[str, float]) -> str:
    """Replace core, reload the proxy while it starts, and wait for its answer; how it was replaced."""
    deadline = time.monotonic() + timeout
    mark = time.monotonic()
    how = replace_core(home, host, timeout)
    seconds["recreate"] = time.monotonic() - mark
    mark = time.monotonic()
    core = inspect(CORE)
    reload_proxy(PROXY)
    seconds["proxy"] = time.monotonic() - mark
    mark = time.monotonic()
    address = address_of(core) if core else ""
    if not poll(lambda: core_answers(address), max(1.0, deadline - time.monotonic()), 0.03):
        sys.exit("Core does not answer after its start for the new database; see /var/log/harbor/core.log.")
    seconds["core"] = time.monotonic() - mark
    return how


def recreate_others(home: str, timeout: float) -> List[str]:
    """Let compose recreate the other readers whose environment is old; nobody pushes through them."""
    present = containers(home)
    others = [service for service in READERS if service in present]
    if others:
        before = {service: present[service].id for service in others}
        compose(home, ["up", "-d", "--no-deps", "--timeout", "1", *others], timeout)
        after = containers(home)
        return [service for service in others if after[service].id != before[service]]
    return []


def restart_jobs(home: str, core_started: str) -> bool:
    """Restart jobservice unless it is younger than core: it asks core for the database at its start only."""
    found = containers(home).get("jobservice")
    job = inspect(found.name) if found else None
    if found is None or job is None or (job["State"]["Running"] and job["State"]["StartedAt"] > core_started):
        return False
    subprocess.check_call(["docker", "restart", "-t", "1", found.name], stdout=subprocess.DEVNULL, timeout=60)
    return True


def repoint(given: Dict[str, Any]) -> Dict[str, Any]:
    """Do the parts that were asked for: `edit`, `stage`, `recreate`, `jobservice`. What is done is left alone."""
    home, host, parts = given["install_dir"], given["host"], given["parts"]
    seconds: Dict[str, float] = {}
    answer: Dict[str, Any] = {"edited": [], "recreated": [], "jobs": False}
    start = time.monotonic()
    if "edit" in parts:
        answer["edited"] = edit(home, host)
        seconds["edit"] = time.monotonic() - start
    old = connected_host()
    if "stage" in parts and old != host:
        stage_core(home, host)
    if "recreate" in parts and old != host:
        require_nas(given["nas"])
        how = recreate_and_wait(home, host, given["timeout"], seconds)
        answer["recreated"] = ["core" if how == "staged" else "core (by compose)"]
    if "jobservice" in parts:
        mark = time.monotonic()
        run(["docker", "rm", "--force", CORE + NEXT], 30)
        answer["recreated"] += recreate_others(home, given["timeout"])
        core = inspect(CORE)
        answer["jobs"] = restart_jobs(home, core["State"]["StartedAt"] if core else "")
        seconds["jobservice"] = time.monotonic() - mark
    seconds["total"] = time.monotonic() - start
    answer["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    answer["connected"] = connected_host()
    return answer


if __name__ == "__main__":
    reply(repoint(payload()))
