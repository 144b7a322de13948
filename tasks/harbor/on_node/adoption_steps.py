"""Take the old Harbor of this node out of service so that it can be put back by one command.

What is done, and whether it may still be done, is decided here, under one lock with that command: a flow that had
stood still noted `moved` over `returned`, and took down a Harbor that its operator had put back an hour before.
"""

import contextlib
import glob
import os
import shlex
import sys
from typing import Any, Dict, Iterator, List, Optional, Sequence

from tasks.harbor.on_node.adoption_look import ask_harbor, read_only_of
from tasks.harbor.on_node.containers import LOG_PORT, containers, inspect
from tasks.harbor.on_node.harbor_found import ADOPTION, CORE, DATABASE, directory_of
from tasks.on_node.files import make_directories, move, new_directory, remove_tree
from tasks.on_node.lib import alone, compose_command, payload, poll, read, record, reply, run, state, write

KEPT_AT = "/var/lib/harbor-ha/adopted"
BACK = KEPT_AT + "/put-back"
# A lock of its own: taking a Harbor down takes minutes, in which a failover must be able to note what it does.
GUARD = ".adoption.lock"
GUARD_WAIT_S = 30.0
# From where a phase is come to; from itself where it only is asked whether it stands.
COMES_FROM = {"moving": ("moving",), "moved": ("moving", "moved"), "done": ("moved", "done")}
KEPT_FILES = ("harbor.yml", "docker-compose.yml", "docker-compose.override.yml", "common/config")

# An operator runs it at night, without the orchestrator. Each line may be repeated. What it does is noted before the
# old Harbor takes its first push, and that it is done when it is: cut off between, it is run again.
BACK_SCRIPT = """#!/bin/bash
# Puts the Harbor in {home} back to service as it was before it was adopted. May be run again.
set -eu
exec 9>> {guard}
flock -w 300 9 || {{ echo "A step of an adoption is at work on this node; run this again when it has ended."; exit 1; }}
sed -i -E 's/"phase": "(moving|moved|done)"/"phase": "returning", "was": "\\1"/' {record}
sync {record}
systemctl disable --now harbor-ha-harbor.service 2> /dev/null || true
new=$(docker ps --all --quiet --filter label=com.docker.compose.project.working_dir={new})
[ -z "$new" ] || docker rm --force $new
for net in $(docker network ls --quiet --filter label=com.docker.compose.network=harbor); do
  docker network rm $net > /dev/null 2>&1 || true
done
{units}
cd {home}
{compose} up -d log
await() {{ n=0; until "$@" > /dev/null 2>&1; do n=$((n+1)); [ $n -lt 120 ] || exit 1; sleep 1; done; }}
await bash -c ': < /dev/tcp/127.0.0.1/{log}'
{database}
{compose} up -d
sed -i -E 's/"phase": "returning"/"phase": "returned"/' {record}
echo "The old Harbor in {home} is back. What was pushed since it was adopted is only in the new one."
[ -z "${{left:-}}" ] || {{ echo "It is still read-only; end that in its portal."; exit 1; }}
"""
# Before core starts: it reads this once.
WRITABLE = "UPDATE properties SET v = 'false' WHERE k = 'read_only'"
BUNDLED = """{compose} up -d postgresql
await docker exec {database} psql -U postgres -qc ''
docker exec {database} psql -U postgres -d registry -qc "{writable}\""""
# The one row that making it read-only had changed there. Whatever the server says, Harbor is started.
EXTERNAL = """PGSERVICEFILE={kept}/database.service timeout 60 {psql} -wqX -d service=harbor-old \\
  -c "{writable}" || left=1"""


class Elsewhere(Exception):
    """The adoption is not where this step belongs."""


@contextlib.contextmanager
def standing_at(*phases: str) -> Iterator[Dict[str, Any]]:
    """Keep out all others that take this Harbor down or put it back; raises Elsewhere unless it has come to a phase.

    Asked before the lock too: whoever puts it back has it for minutes.
    """
    require_phase(phases)
    with alone(GUARD, GUARD_WAIT_S):
        require_phase(phases)
        yield state(ADOPTION)


def require_phase(phases: Sequence[str]) -> None:
    """Raise Elsewhere unless the adoption has come to one of these phases."""
    if phase() not in phases:
        raise Elsewhere(phases[0])


def phase() -> str:
    """Say how far the adoption has come; empty before the first."""
    return str(state(ADOPTION).get("phase") or "")


def begin(given: Dict[str, Any]) -> Dict[str, Any]:
    """Note where the old Harbor lies, copy its configuration aside, and write the command that puts it back."""
    with standing_at(given["planned"]) as known:
        first = known.get("phase") not in ("copying", "moving", "moved")
        if first:
            keep_configuration(given["found"]["directory"])
            known = {key: given[key] for key in ("found", "project", "database")}
            known.update(phase="copying", units=[unit for unit in given["units"] if enabled(unit)])
            record(ADOPTION, known)
        for name, text in given["access"].items():
            write(KEPT_AT + "/" + name, text.encode("utf-8"), 0o600)
        write(BACK, script(given, known).encode(), 0o700)
        return {"first": first}


def enabled(unit: str) -> bool:
    """Tell whether a unit is started at boot; one that a timer starts is not."""
    return run(["systemctl", "is-enabled", unit], 20)[1].strip() == "enabled"


def keep_configuration(home: str) -> None:
    """Copy the configuration aside, whole or not at all; owners are kept."""
    fresh, place = KEPT_AT + "/configuration.new", KEPT_AT + "/configuration"
    make_directories(KEPT_AT, 0o700)
    remove_tree(fresh)
    new_directory(fresh, 0o700)
    for name in KEPT_FILES:
        if not os.path.exists(home + "/" + name):
            continue
        if run(["cp", "-a", home + "/" + name, fresh + "/" + os.path.basename(name)], 120)[0] != 0:
            sys.exit("The configuration in " + home + " could not be copied aside; is the disk full?")
    # One of an adoption before is kept as well.
    if os.path.isdir(place):
        move(place, "%s.%d" % (place, len(glob.glob(place + ".*")) + 1))
    move(fresh, place)


def script(given: Dict[str, Any], known: Dict[str, Any]) -> str:
    """Write the script that puts the old Harbor back."""
    compose = [*compose_command(), *(["-p", known["project"]] if known["project"] else [])]
    units = [shlex.quote(unit) for unit in known["units"]]
    words = " ".join(shlex.quote(word) for word in compose)
    if given["psql"]:
        database = EXTERNAL.format(kept=KEPT_AT, psql=given["psql"], writable=WRITABLE)
    else:
        database = BUNDLED.format(compose=words, database=DATABASE, writable=WRITABLE)
    return BACK_SCRIPT.format(
        home=shlex.quote(known["found"]["directory"]),
        new=shlex.quote(given["install_dir"]),
        units="systemctl enable " + " ".join(units) if units else ":",
        compose=words,
        database=database,
        log=LOG_PORT,
        guard=shlex.quote(os.path.dirname(KEPT_AT) + "/" + GUARD),
        record=shlex.quote(os.path.dirname(KEPT_AT) + "/" + ADOPTION),
    )


def refuse_writes(given: Dict[str, Any]) -> Dict[str, Any]:
    """Make the old Harbor read-only, and see that it is; noted before, so that it is taken back by whoever goes on."""
    with standing_at("copying", "moving") as known:
        record(ADOPTION, dict(known, phase="moving"))
        core = inspect(CORE)
        if core is None or not core["State"]["Running"]:
            return {"changed": False}
        if read_only_of(given["admin_password"]) == (200, True):
            return {"changed": False}
        ask_harbor(given["admin_password"], "PUT", "/configurations", {"read_only": True})
        if not poll(lambda: read_only_of(given["admin_password"]) == (200, True), 30, 0.2):
            sys.exit("The old Harbor does not become read-only.")
        return {"changed": True}


def take_down(given: Dict[str, Any]) -> Dict[str, Any]:
    """Remove the old Harbor's containers, whose names the new ones need; all data of theirs lies in directories.

    Only once the pair has its rows, and while nobody puts it back.
    """
    with standing_at("moved") as known:
        core, home = inspect(CORE), given["directory"]
        for unit in known.get("units") or []:
            # At the next boot, or when it sees its containers go, it would start the old Harbor on the new one's ports.
            if run(["systemctl", "disable", "--now", unit], 300)[0] != 0:
                sys.exit(unit + " could not be disabled; at the next boot it would start the old Harbor.")
        if core is not None and directory_of(core) != home:
            return {"changed": False}
        names = [found.name for found in containers(home).values()]
        if not names:
            return {"changed": False}
        remove_containers(home, known.get("project"))
        return {"changed": True, "removed": len(names)}


def remove_containers(home: str, project: Optional[str]) -> None:
    """Remove the containers of a compose project; ends the program when some are left."""
    argv = [*compose_command(), *(["-p", project] if project else []), "down"]
    status, _, _ = run(argv, 300, home)
    left = [found.name for found in containers(home).values()]
    if status != 0 or left:
        sys.exit("The old Harbor could not be taken down; left are: %s." % (", ".join(left) or "none"))


def set_phase(given: Dict[str, Any]) -> Dict[str, Any]:
    """Note how far it has come; only from where that is come to."""
    with standing_at(*COMES_FROM[given["phase"]]) as known:
        changed = known["phase"] != given["phase"]
        if changed:
            record(ADOPTION, dict(known, phase=given["phase"]))
        return {"changed": changed}


def noted(_: Dict[str, Any]) -> Dict[str, Any]:
    """Tell what was found before anything was changed."""
    return {"found": state(ADOPTION).get("found") or {}}


def put_back(_: Dict[str, Any]) -> Dict[str, Any]:
    """Run the command that puts the old Harbor back, when the site has none of its rows: it can be adopted again."""
    # Before, and not after: the command notes what it puts back as one whose rows the site may have.
    with standing_at("moving", "copying") as known:
        record(ADOPTION, dict(known, phase="copying"))
    # It takes the same lock.
    status, out, err = run([BACK], 600)
    if status != 0:
        said: List[str] = (out + err).strip().splitlines()
        sys.exit("%s ended with status %d: %s" % (BACK, status, " ".join(said[-3:])))
    return {"changed": True}


def old_files(given: Dict[str, Any]) -> Dict[str, Any]:
    """Give the new directory the old harbor.yml and override to begin with; what it has already stays."""
    done = []
    for name in ("harbor.yml", "docker-compose.override.yml"):
        data, place = read(given["directory"] + "/" + name), given["install_dir"] + "/" + name
        if data is not None and read(place) is None:
            write(place, data, 0o600)
            done.append(name)
    return {"changed": bool(done), "done": done}


OPERATIONS = {
    "begin": begin,
    "files": old_files,
    "read-only": refuse_writes,
    "down": take_down,
    "phase": set_phase,
    "noted": noted,
    "back": put_back,
}


def act(asked: Dict[str, Any]) -> Dict[str, Any]:
    """Do what is asked for, or say where the adoption stands and where that belongs."""
    try:
        return OPERATIONS[asked["do"]](asked)
    except Elsewhere as error:
        return {"stands_at": phase(), "step_of": str(error)}


if __name__ == "__main__":
    reply(act(payload()))
