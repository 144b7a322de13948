"""Stop a primary: for a switchover with everything written, as a fence by all means; and take it back."""

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.on_node import pg_compensate, pg_fence, pg_stop, pg_wait_replay
from tasks.postgres.run_on_node import Authority, run_on_node

_PG_COMPENSATE = node_program(pg_compensate)
_PG_FENCE = node_program(pg_fence)
_PG_WAIT_REPLAY = node_program(pg_wait_replay)
_PG_STOP = node_program(pg_stop)

# A Harbor database shuts down in 0.1 s after a checkpoint; a standby that does not acknowledge costs up to
# wal_sender_timeout (10 s). What takes longer hangs on its storage.
STOP_LIMIT_S = 30.0
ARCHIVER_GRACE_S = 5.0
FENCE_GRACE_S = 15.0
# For a server that is started again: longer than a checkpoint of what a registry has in memory.
_FAST_S = 10.0
_IMMEDIATE_S = 5.0
_KILL_S = 5.0
_START_LIMIT_S = 60.0


class ShutdownFailed(HarborHaError):
    """The primary did not shut down cleanly; the switchover must not go on."""


class NotFenced(HarborHaError):
    """The node was reached, but its server could not be stopped for certain; nothing may be promoted."""


class NotTakenBack(HarborHaError):
    """The primary did not come back, after an abandoned switchover or a crash; the site has none."""


class NotReplayed(HarborHaError):
    """The standby does not hold the primary's shutdown checkpoint; it must not be promoted."""


def stop_for_switchover(
    site: HarborSite, host: Host, *, limit_s: float = STOP_LIMIT_S, authority: Authority | None = None
) -> Outcome:
    """Shut the primary down fast and see the shutdown checkpoint on its control file.

    From its return on nothing starts this node as a primary: standby.signal is there and start.conf says
    manual. `compensate` takes that back.

    Returns:
        data: `checkpoint` (where the shutdown checkpoint begins), `timeline`, `sysid`, `how`.

    Raises:
        ShutdownFailed: it is a standby, had crashed, or did not end in time; call `compensate` for the last two.
    """
    limit = limit_s + ARCHIVER_GRACE_S + 5
    answer = run_on_node(
        site,
        host,
        _PG_STOP,
        limit=limit,
        limit_s=limit_s,
        archiver_grace_s=ARCHIVER_GRACE_S,
        authority=authority,
    )
    state = answer["state"]
    if state != "stopped" or answer.get("running"):
        raise ShutdownFailed(_WHY_NOT[state].format(**answer, limit_s=limit_s), where=host.name, **_SO[state])
    said = changed if answer["changed"] else unchanged
    detail = (
        f"shut down ({answer['how']}), checkpoint {answer['checkpoint']} on timeline {answer['timeline']}"
    )
    return said(detail, **{key: answer[key] for key in ("checkpoint", "timeline", "sysid", "how")})


def prove_shutdown(
    site: HarborSite, standby: Host, *, checkpoint: str, timeline: int, sysid: str, limit_s: float = 10.0
) -> Outcome:
    """Wait until the standby has replayed beyond the primary's shutdown checkpoint, strictly.

    `>=` would pass without the record itself, and the old primary could not follow afterwards.

    Args:
        checkpoint, timeline, sysid: as `stop_for_switchover` returned them.

    Raises:
        NotReplayed: it is another database, another timeline, no standby, or late.
    """
    answer = run_on_node(
        site,
        standby,
        _PG_WAIT_REPLAY,
        limit=limit_s,
        checkpoint=checkpoint,
        timeline=timeline,
        sysid=sysid,
        limit_s=limit_s,
    )
    if answer["problem"]:
        raise NotReplayed(
            f"{answer['problem']} (shutdown checkpoint {checkpoint} on timeline {timeline}).",
            where=standby.name,
            meaning="A promotion would lose writes or fork the history.",
            remedy="The old primary is started again; find out why the standby lags.",
        )
    return unchanged(
        f"replayed {answer['replayed']}, beyond the shutdown checkpoint", replayed=answer["replayed"]
    )


def fence_by_ssh(
    site: HarborSite, host: Host, *, graceful_s: float = FENCE_GRACE_S, authority: Authority | None = None
) -> Outcome:
    """Stop the server (fast, then immediate, then SIGKILL) and keep it from starting as a primary.

    The fast stop comes first because it sends the last writes to the standby.

    Returns:
        data: `how` (`fast`, `immediate`, `killed`, `was down`), `clean` (the control file says `shut down`),
        `cluster_state`, `checkpoint`, `timeline`, `sysid`.

    Raises:
        NotFenced: a server process or an open port is left, or something could start it again.
    """
    answer = run_on_node(
        site,
        host,
        _PG_FENCE,
        limit=graceful_s + ARCHIVER_GRACE_S + _IMMEDIATE_S + _KILL_S,
        graceful_s=graceful_s,
        archiver_grace_s=ARCHIVER_GRACE_S,
        immediate_s=_IMMEDIATE_S,
        kill_s=_KILL_S,
        authority=authority,
    )
    if answer["against"]:
        raise NotFenced(
            f"It is not fenced: {'; '.join(answer['against'])}.",
            where=host.name,
            meaning="It may still accept writes, or come back as a primary.",
            remedy="Switch the machine off (the site's fence command), then run the flow again.",
        )
    said = changed if answer["changed"] else unchanged
    state = "cleanly shut down" if answer["clean"] else f"not cleanly: {answer['cluster_state']}"
    detail = f"stopped ({answer['how']}, {state}), standby.signal set, start.conf disabled, unit masked"
    return said(detail, **{key: answer[key] for key in answer if key not in ("against", "changed")})


def compensate(site: HarborSite, host: Host, *, timeline: int, authority: Authority | None = None) -> Outcome:
    """Start a stopped primary again as the primary. Only before the promotion; afterwards there would be two.

    Args:
        timeline: the one it was stopped on; it must come back on the same.

    Raises:
        NotTakenBack: it does not start, or its data is on another timeline or that of a standby.
    """
    return _start_as_primary(site, host, timeline, _START_LIMIT_S, authority, take_back=True)


def restart_primary(
    site: HarborSite,
    host: Host,
    *,
    timeline: int,
    limit_s: float,
    patience_s: float = 0.0,
    authority: Authority | None = None,
) -> Outcome:
    """Start a primary that crashed or hangs, on its own machine: no failover, no new timeline, nothing lost.

    A server in crash recovery is waited for, all of `limit_s`, and never killed. Another one that runs and does not
    answer in `patience_s` is stopped first: fast, then immediate, then killed; crash recovery loses nothing.

    Args:
        timeline: the one it was primary on.
        limit_s: seconds for waiting and recovery together; the site's restart budget. Stopping comes on top.
        patience_s: seconds of it in which a server that does not answer may yet do so.

    Raises:
        NotTakenBack: it does not start in time, or it has been made a standby.
    """
    return _start_as_primary(site, host, timeline, limit_s, authority, take_back=False, patience_s=patience_s)


def _start_as_primary(
    site: HarborSite,
    host: Host,
    timeline: int,
    limit_s: float,
    authority: Authority | None,
    *,
    take_back: bool,
    patience_s: float = 0.0,
) -> Outcome:
    answer = run_on_node(
        site,
        host,
        _PG_COMPENSATE,
        limit=limit_s + _FAST_S + _IMMEDIATE_S + _KILL_S + 10,
        timeline=timeline,
        limit_s=limit_s,
        patience_s=patience_s,
        fast_s=_FAST_S,
        immediate_s=_IMMEDIATE_S,
        kill_s=_KILL_S,
        take_back=take_back,
        authority=authority,
    )
    if "problem" in answer:
        raise NotTakenBack(
            f"It could not be started as the primary: {answer['problem']}.",
            where=host.name,
            **(_SO_TAKE_BACK if take_back else _SO_RESTART),
        )
    said = changed if answer["changed"] else unchanged
    left = f"; not started at boot ({'; '.join(answer['unwritten'])})" if answer["unwritten"] else ""
    return said(f"primary on timeline {timeline}{left}", timeline=timeline)


_SO_TAKE_BACK = {
    "meaning": "The site has no primary; nothing was promoted.",
    "remedy": "Read the message, repair, and run the switchover or a failover again.",
}
# Said within a failover, which goes on.
_SO_RESTART = {
    "meaning": "Its data is as it was.",
    "remedy": "Repair it before it is rejoined; a failover does not need it.",
}
_WHY_NOT = {
    "stopped": "Its shutdown checkpoint is written, but processes are left: {running}.",
    "unheld": "It was shut down, but {why}.",
    "standby": "It is a standby; there is nothing to switch over from.",
    "crashed": "It is not running and was not shut down cleanly ({cluster_state}).",
    "late": "It did not shut down within {limit_s:.0f} s ({cluster_state}).",
}
_SO = {
    "stopped": {
        "meaning": "Nothing was promoted.",
        "remedy": "Look at the processes; the storage may hang. Then take the primary back.",
    },
    "unheld": {
        "meaning": "Nothing was promoted; a boot could start it as the primary beside another one.",
        "remedy": "Free its disk or make it writable. It is started again.",
    },
    "standby": {"meaning": "Nothing was changed.", "remedy": "Run check to see who is the primary."},
    "crashed": {"meaning": "Nothing was promoted.", "remedy": "Start it again, or call a failover."},
    "late": {
        "meaning": "Nothing was promoted; it goes on stopping until it is taken back.",
        "remedy": "It is started again; look for a hanging archiver or standby in its log.",
    },
}
