"""Make this node's Harbor use another database: first its files, then the containers that read them."""

import glob
import re
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Match, Optional

from tasks.harbor.on_node.clone import HASH_LABEL, stage, start_next, switch
from tasks.harbor.on_node.containers import (
    STARTED,
    address_of,
    compose,
    containers,
    core_answers,
    environment_of,
    forget_address,
    inspect,
    reload_proxy,
    require_nas,
)
from tasks.harbor.on_node.core_hash import foresee
from tasks.harbor.on_node.engine import EngineRefused, described
from tasks.harbor.on_node.next_core import CORE, NEXT, drop_next_core, note_cores, now_stamp
from tasks.harbor.on_node.prepare import PREPARED, prepare_inputs
from tasks.harbor.on_node.start import all_run, need_log, start_inputs, start_stopped
from tasks.on_node.jobservice import TWO_CORES, older_than_core
from tasks.on_node.lib import alone, payload, poll, read, record, reply, state, write

# Fixed by Harbor's docker-compose.yml.
PROXY = "nginx"
# What else reads the database's address from files; jobservice asks core for it when it starts.
READERS = ("exporter", "notary-server", "notary-signer")
# What is started when core answers.
LATER = ("core", "jobservice")

# The lines of external_database: to the next key at the margin.
SECTION = re.compile(r"(?m)^\ufeff?([\"']?)external_database\1[ \t]*:[^\n]*(?:\n(?![^\s#}\]])[^\n]*)*")
# What stands in them. A remark and a quoted text are passed over whole, so that nothing in them is taken for a key;
# a value may be on the line below its key, but the next key is no value.
TOKEN = re.compile(
    r"""(?mx)
    (?:^|(?<=\s)) \#[^\n]*
    | (?P<key> (?:^|(?<=[\s{,])) (?P<quote>["']?) host (?P=quote) [ \t]* : (?=[\s"'&*!]|$)
        [ \t]* (?:\r?\n[ \t]+(?=\S)(?![^\s:]+[ \t]*:(?:\s|$)))? (?:[&!]\S*[ \t]+)* )
      (?: "[^"\n]*" | '[^'\n]*' | [^\s,}\#]* )
    | (?<=[\s{,\[:]) (?: "(?:\\.|[^"\\\n])*" | '(?:\'\'|[^'\n])*' )
    """
)


def with_host(text: str, host: str) -> str:
    """Set every `host` under `external_database` of a harbor.yml, whatever its style; nothing else in it changes."""

    def value(found: "Match[str]") -> str:
        key = found.group("key")
        if key is None:
            return found.group(0)
        return key + ("" if key[-1].isspace() else " ") + host

    return SECTION.sub(lambda section: TOKEN.sub(value, section.group(0)), text)


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
            # Bytes in an operator's remark that are no UTF-8 are kept: no failover may end at one.
            text = data.decode("utf-8", "surrogateescape")
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
        write(path, text.encode("utf-8", "surrogateescape"), 0o600, like=path)
    if was_prepared:
        record(PREPARED, dict(prepared, inputs=prepare_inputs(home, prepared.get("flags", []))))
    if was_started:
        record(STARTED, dict(started, inputs=start_inputs(home)))
    return sorted(wanted)


def core_there() -> Optional[Dict[str, Any]]:
    """Read core's description over the engine's socket, as clients wait for it; None when there is none to be read."""
    try:
        return described(CORE)
    except EngineRefused:
        return None


def connected_host() -> Optional[str]:
    """Read which database the running core was started for; None when it does not run."""
    core = core_there()
    if core is None or not core["State"]["Running"]:
        return None
    return environment_of(core).get("POSTGRESQL_HOST")


def stage_core(home: str, host: str) -> bool:
    """Make the next core beside the running one; False when compose has to do it."""
    try:
        return stage(home, CORE, {"POSTGRESQL_HOST": host})
    except EngineRefused:
        return False


def replace_core(home: str, host: str, timeout: float) -> str:
    """Put a core with the new address in the place of the old one; `restart` would keep the old environment.

    The old one is of no use to anybody by then. A next one that runs and does not answer yet is not waited for here:
    it does while the old one is removed and the proxy is told; one that has died for its read-only database starts.
    """
    if stage_core(home, host):
        try:
            core = str((described(CORE + NEXT) or {}).get("Id"))
            note_cores(core, told=False)
            switch(CORE)
            note_cores(core, told=False, until=now_stamp())
            return "staged"
        except EngineRefused:
            pass
    # Core does not listen to SIGTERM and has nothing to finish: its database is gone or read-only.
    compose(home, ["up", "-d", "--no-deps", "--timeout", "1", "core"], timeout)
    return "compose"


def start_core(home: str, host: str, answer_s: float) -> str:
    """Start the next core, for the new database, beside the one that serves; nothing of that one is touched.

    Clients wait for core's start; this one is over it when its database becomes the primary. Until then no client
    reaches it, and it could not write either. What cannot be done here `recreate` does.

    Args:
        answer_s: how long to wait for its answer, in seconds.

    Returns:
        what it does; "" when it did so before, or could not be made.
    """
    try:
        if not stage_core(home, host):
            return ""
        started = start_next(CORE)
        if answer_s:
            poll(lambda: next_core() != "starts", answer_s, 0.1)
        return next_core() if started else ""
    except EngineRefused:
        return ""


def next_core() -> str:
    """Say what the next core does: it `answers`, `starts`, or `does not run`."""
    ready = described(CORE + NEXT)
    if ready is None or not ready["State"]["Running"]:
        return "does not run"
    return "answers" if core_answers(address_of(ready)) else "starts"


def foresee_core(home: str, host: str) -> bool:
    """Work out what compose would say of core with another database, as long as nobody waits; whether it is new."""
    core = core_there()
    labels = (core["Config"].get("Labels") or {}) if core is not None else {}
    return foresee(home, str(labels.get(HASH_LABEL)), edits(home, host))


def untold() -> bool:
    """Tell whether the proxy was not told of the core that is there."""
    core, known = core_there(), state(TWO_CORES)
    return core is not None and known.get("core") == core["Id"] and known.get("told") is False


def start_rest(home: str) -> None:
    """Start what stands still but jobservice, which asks core first of all; what cannot be done here compose does."""
    start_stopped(home, containers(home), later=LATER)


def recreate_and_wait(
    home: str, host: str, timeout: float, seconds: Dict[str, float], *, rest: bool = False
) -> str:
    """Replace core, reload the proxy while it starts, and wait for its answer; how it was replaced.

    Args:
        rest: start what stands still, too. Core looks at the others when it has started and every ten seconds, so they
            have its start for theirs.
    """
    deadline = time.monotonic() + timeout
    mark = time.monotonic()
    old = address_of(core_there() or {})
    how = replace_core(home, host, timeout)
    forget_address(PROXY, old)
    seconds["recreate"] = time.monotonic() - mark
    if rest:
        mark = time.monotonic()
        start_rest(home)
        seconds["rest"] = time.monotonic() - mark
    open_core(deadline, seconds)
    return how


def open_core(deadline: float, seconds: Dict[str, float]) -> None:
    """Tell the proxy of core while that starts, and wait for its answer."""
    mark = time.monotonic()
    core = core_there()
    reload_proxy(PROXY)
    seconds["proxy"] = time.monotonic() - mark
    mark = time.monotonic()
    address = address_of(core) if core else ""
    if not poll(lambda: core_answers(address), max(1.0, deadline - time.monotonic()), 0.03):
        sys.exit("Core does not answer after its start for the new database; see /var/log/harbor/core.log.")
    seconds["core"] = time.monotonic() - mark
    if untold():
        record(TWO_CORES, dict(state(TWO_CORES), told=True))


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


def restart_jobs(home: str) -> bool:
    """Restart jobservice unless it has asked the core that is there: it asks for the database at its start only."""
    found = containers(home).get("jobservice")
    job = inspect(found.name) if found else None
    if found is None or job is None:
        return False
    if job["State"]["Running"] and not older_than_core(core_there(), job, state(TWO_CORES)):
        return False
    subprocess.check_call(["docker", "restart", "-t", "1", found.name], stdout=subprocess.DEVNULL, timeout=60)
    return True


def repoint(given: Dict[str, Any]) -> Dict[str, Any]:
    """Do the parts that were asked for: `edit`, `stage`, `start`, `rest`, `recreate`, `jobservice`, `foresee`.

    What is done is left alone. One after the other on a node: a core is started beside the work on the database, and
    whoever wants it next waits for it.
    """
    with alone(".harbor.lock", given["timeout"]):
        seconds: Dict[str, float] = {}
        start = time.monotonic()
        nothing = {"edited": [], "next": "", "recreated": [], "jobs": False, "foreseen": [], "all_run": False}
        answer = dict(nothing, **do_parts(given, seconds))
        seconds["total"] = time.monotonic() - start
        answer["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
        answer["connected"] = connected_host()
        return answer


def do_parts(given: Dict[str, Any], seconds: Dict[str, float]) -> Dict[str, Any]:
    """Do the parts; what was done, and in `seconds` how long each took."""
    home, host, parts = given["install_dir"], given["host"], given["parts"]
    answer: Dict[str, Any] = {}
    start = time.monotonic()
    if "edit" in parts:
        answer["edited"] = edit(home, host)
        seconds["edit"] = time.monotonic() - start
    other, rest = connected_host() != host, "rest" in parts
    if rest:
        require_nas(given["nas"])
        need_log(containers(home))
    if "stage" in parts and other:
        stage_core(home, host)
    if "start" in parts and other:
        require_nas(given["nas"])
        answer["next"] = start_core(home, host, given["answer_s"])
    if "recreate" in parts and other:
        require_nas(given["nas"])
        how = recreate_and_wait(home, host, given["timeout"], seconds, rest=rest)
        answer["recreated"] = ["core" if how == "staged" else "core (by compose)"]
    elif "recreate" in parts:
        if rest:
            start_rest(home)
        answer["next"] = "removed" if drop_next_core() else ""
        if untold():
            open_core(time.monotonic() + given["timeout"], seconds)
            answer["recreated"] = ["core, which was started before"]
    if rest:
        answer["all_run"] = all_run(home, containers(home), later=LATER)
    if "jobservice" in parts:
        mark = time.monotonic()
        drop_next_core()
        answer["recreated"] = answer.get("recreated", []) + recreate_others(home, given["timeout"])
        answer["jobs"] = restart_jobs(home)
        seconds["jobservice"] = time.monotonic() - mark
    if "foresee" in parts:
        answer["foreseen"] = [other for other in given["others"] if foresee_core(home, other)]
    return answer


if __name__ == "__main__":
    reply(repoint(payload()))
