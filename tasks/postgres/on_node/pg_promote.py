"""Runs on the standby: promote it, and prove it with a timeline and a write; one session for all of it.

The session prints a line after each part, so that a time-out tells which part hung.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, Optional

from tasks.on_node.accepted_here import accept_promoted
from tasks.on_node.authority import authorized, moment
from tasks.on_node.pg_disk import ENGLISH, control, write_durably
from tasks.on_node.pg_run import Failed, psql, psql_argv, standby_timeline
from tasks.on_node.pg_sync import set_sync
from tasks.on_node.pg_told import say_told
from tasks.on_node.shared_copy import keep_shared
from tasks.postgres.on_node.pg_heartbeat import HEARTBEAT

_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
_ROLE = "SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() THEN %s END" % _TIMELINE

# A standby's vote against calling its primary dead; fresh as in `tasks.postgres.facts`.
_HEARS = """
SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'
  AND clock_timestamp() - last_msg_receipt_time
    < coalesce(0.8 * nullif(current_setting('wal_receiver_timeout')::interval, '0'), '8 s'))
"""

PORT_S = 0.5
# A NAS that answers takes milliseconds; on one that hangs nobody will read it either.
NAS_S = 0.3

# pg_promote(false) and our own look every 10 ms: the waiting form looks every 100 ms.
_PROMOTE = """
SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused();
SELECT 'asked ' || pg_promote(false) WHERE pg_is_in_recovery();
"""
_WAIT = (
    """
DO $$ BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT 'promoted ' || %s;
"""
    % _TIMELINE
)
# The write that must succeed is a commit: a synchronous standby that is not there, a full disk and
# default_transaction_read_only all let the promotion pass and stop the first one.
_FIRST_COMMIT = HEARTBEAT + "SELECT 'wrote ' || pg_current_wal_lsn();\n"


def promote(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return `promoted` (now or before), `late`, `wrong`, `heard` or `no write`, with what is known."""
    recovering, timeline = psql(p, _ROLE, 5).split("|")
    if recovering == "f" and int(timeline) <= p["from_timeline"]:
        return {"state": "wrong", "why": "it is a primary on timeline %s and was never promoted" % timeline}
    if recovering == "t" and standby_timeline(p) != p["from_timeline"]:
        return {"state": "wrong", "why": "it follows timeline %d" % standby_timeline(p)}
    alive = sign_of_life(p) if recovering == "t" and p.get("unheard") else None
    if alive:
        return {"state": "heard", "why": alive}
    if recovering == "t":
        note_request(p)
    # The only standby that a commit could wait for is the primary that is gone; the first one would hang. Where that
    # is promised, it waits from the first moment on, and only the write that proves the promotion does not.
    wait_for = p.get("wait_for") or ""
    set_sync(p, wait_for)
    script = ["\\set operation '%s'" % p["operation"]]
    # A request that is on disk is being worked on; asking again would be the second promotion.
    if recovering == "t" and not os.path.exists(p["data"] + "/promote"):
        script.append(_PROMOTE)
    script += [_WAIT, "SET statement_timeout = 5000;"]
    if wait_for:
        script.append("SET synchronous_commit = local;")
    script.append(_FIRST_COMMIT)
    said = session(p, "\n".join(script))
    return judge(p, said, recovering == "t")


def sign_of_life(p: Dict[str, Any]) -> Optional[str]:
    """Say what this standby has of a primary that was taken for fenced; None when it has nothing.

    A machine may boot between the orchestrator's last look and this program. Its server is in crash recovery then, and
    nothing streams from it yet.
    """
    if psql(p, _HEARS, 5) == "t":
        return "it receives from a primary that was taken for fenced"
    address, port = p["unheard"]
    if opens(address, int(port)):
        return "port %s of %s is open, which was taken for fenced" % (port, address)
    return None


def opens(address: str, port: int) -> bool:
    """Tell whether a TCP connection is accepted; clients wait for the answer, which a machine nearby gives at once."""
    try:
        socket.create_connection((address, port), timeout=PORT_S).close()
        return True
    except OSError:
        return False


def session(p: Dict[str, Any], script: str) -> Dict[str, str]:
    """Run a script and return the lines that it printed by their first word, `error` with what went wrong."""
    process = subprocess.Popen(
        psql_argv(p),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(ENGLISH, PGCONNECT_TIMEOUT="3", PGOPTIONS="-c statement_timeout=0"),
    )
    late = False
    try:
        out, err = process.communicate(script.encode(), timeout=p["limit_s"])
    except subprocess.TimeoutExpired:
        # statement_timeout does not end the wait for a synchronous standby; only this does.
        process.terminate()
        late = True
        out, err = process.communicate(timeout=5)
    said = dict(line.split(" ", 1) for line in out.decode("utf-8", "replace").splitlines() if " " in line)
    if late or process.returncode:
        said["error"] = "late" if late else err.decode("utf-8", "replace").strip()[-500:]
    return said


def judge(p: Dict[str, Any], said: Dict[str, str], was_standby: bool) -> Dict[str, Any]:
    """Turn what the session said into a result; what it did not say is asked again."""
    if "promoted" not in said:
        try:
            recovering, said["promoted"] = psql(p, _ROLE, 5).split("|")
        except Failed as error:
            return {"state": "late", "why": "it does not answer any more: %s" % error}
        if recovering == "t":
            return {"state": "late", "why": "it is still in recovery; %s" % said.get("error", "")}
    timeline = int(said["promoted"])
    accept_here(p, timeline)
    answer = {"timeline": timeline, "changed": was_standby}
    problems: List[str] = []
    if timeline <= p["from_timeline"]:
        problems.append("it is on timeline %d" % timeline)
    if not gone(p["data"] + "/standby.signal"):
        problems.append("standby.signal is still there")
    if problems:
        return dict(answer, state="wrong", why="; ".join(problems))
    if "wrote" not in said:
        return dict(answer, state="no write", why=said.get("error", "no answer"))
    return dict(answer, state="promoted", lsn=said["wrote"])


def note_request(p: Dict[str, Any]) -> None:
    """Write down, and tell who asks, that this server is told to promote itself, before it is: pg_hold, pg_told.

    Also on the NAS, for an old primary that is switched on meanwhile and cannot ask this server. That is not waited
    for longer than the rest takes and a moment: the NAS is a witness, never a condition.
    """
    note = dict(moment(), operation=p["operation"], from_timeline=p["from_timeline"])
    if p.get("authority"):
        # With these the guard accepts what comes true when nobody waits for it any more: see guard_promoted.
        note.update(node=p["node"], term=p["authority"]["term"], system_identifier=sysid_of(p))
    text = json.dumps(note, sort_keys=True) + "\n"
    shared = threading.Thread(target=lambda: keep_shared(p, "promotion", text), daemon=True)
    shared.start()
    write_durably(p["state_dir"] + "/promotion.json", text)
    say_told(p)
    shared.join(NAS_S)


def accept_here(p: Dict[str, Any], timeline: int) -> None:
    """Keep here and on the NAS that this node is the primary, as soon as that is so and before any client can know.

    The orchestrator may die right after it; a power cut later, the old primary has nobody else to ask.
    """
    given = p.get("authority")
    if given is None or timeline <= p["from_timeline"]:
        return
    accept_promoted(p, timeline, given["term"], sysid_of(p))


def sysid_of(p: Dict[str, Any]) -> str:
    """Return the system identifier of this node's database."""
    return control(p).get("Database system identifier", "")


def gone(path: str) -> bool:
    """Wait a moment for a file to be removed: the server does it at the end of recovery."""
    deadline = time.monotonic() + 2
    while os.path.exists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    json.dump(authorized(json.load(sys.stdin), promote), sys.stdout)
