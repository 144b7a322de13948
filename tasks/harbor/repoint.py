"""Make Harbor use another database.

The address is in three places: harbor.yml, the truth for later; the generated env files, which a container
gets when it is created and at no other time; and the running core and jobservice. The quick way edits both
kinds of file and creates core anew. `./prepare` would do too, but takes longer and draws new secrets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from blocks import HarborSite
from tasks.harbor import compose
from tasks.harbor.on_node import repoint as program
from tasks.harbor.prepare import configure, prepare
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import database_nodes

_PROGRAM = node_program(program)

Part = Literal["edit", "stage", "start", "rest", "recreate", "jobservice", "foresee"]
# Core waits 60 seconds for its database before it gives up and is started again.
REPOINT_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Repointed:
    """What was done to one node's Harbor.

    Attributes:
        edited: files that got the new address.
        next_core: what was started or removed beside the core that serves: `starts`, `answers`, `does not run`,
            `removed`; empty when nothing was.
        recreated: services that were created anew.
        jobs: jobservice was restarted.
        foreseen: databases for which the next core's hash was worked out.
        connected: the address that the running core was created for; None when it does not run.
        all_run: everything runs that ran after the last start, but for jobservice; told when the rest was asked for.
        seconds: duration of each part on the node: edit, recreate, proxy, core (until it answered), jobservice,
            total.
    """

    edited: tuple[str, ...]
    next_core: str
    recreated: tuple[str, ...]
    jobs: bool
    connected: str | None
    foreseen: tuple[str, ...]
    all_run: bool
    seconds: Mapping[str, float]

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.edited or self.next_core or self.recreated or self.jobs)


def stage(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Write the new address and make the next core container, not started; the running ones stay as they are.

    May run before the promotion, or beside it: a container that is only restarted keeps its environment. Saves
    `repoint_core` about a second. If the promotion does not happen, repoint to the old address.
    """
    return _outcome(_run(site, host, database_host, ["edit", "stage"]))


def start_next(site: HarborSite, host: Host, *, database_host: str, answer_s: float = 0.0) -> Outcome:
    """Stage, and start the next core beside the one that serves, which stays until `repoint_core`.

    For a Harbor that starts on a read-only database; its database is not the primary yet. If the promotion does not
    happen, repoint to the old address, which removes it.

    Args:
        site: its directories.
        host: the node.
        database_host: address of the primary that is to be.
        answer_s: how long to wait for the next core's answer, in seconds; none is no error.

    Raises:
        RemoteCommandFailed: the NAS is not mounted.
    """
    return _outcome(_run(site, host, database_host, ["edit", "start"], answer_s))


def repoint_core(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Write the address and put a core with it in the old one's place; done when it answers and the proxy knows it.

    The part of a repoint that clients wait for; short where the next core runs already. One for another address is
    removed. `jobservice` must follow.

    Raises:
        RemoteCommandFailed: core did not answer in time, or the NAS is not mounted.
    """
    return _outcome(_run(site, host, database_host, ["edit", "recreate"]))


def bring_core_back(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Repoint core, and start what stands still beside it while it starts: nothing of it waits for core but jobservice.

    Returns:
        what was done; in its data `all_run`, whether everything but jobservice runs: else compose has to do it.

    Raises:
        RemoteCommandFailed: core did not answer in time, or the NAS is not mounted.
    """
    return _outcome(_run(site, host, database_host, ["edit", "rest", "recreate"]))


def restart_jobservice(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Restart jobservice, which keeps the old address until then; no push or pull waits for it."""
    return _outcome(_run(site, host, database_host, ["jobservice", "foresee"]))


def foresee(site: HarborSite, host: Host) -> Outcome:
    """Have ready what a failover needs to make the next core quickly; nothing that runs is touched."""
    done = _run(site, host, "", ["foresee"])
    return changed(f"for {len(done.foreseen)} databases") if done.foreseen else unchanged("it is known")


def repoint(
    site: HarborSite, host: Host, *, database_host: str, way: Literal["edit", "prepare"] = "edit"
) -> Outcome:
    """Make a node's Harbor use another database, all of it.

    Args:
        site: its directories.
        host: the node.
        database_host: address of the new primary.
        way: `edit` changes the address alone; `prepare` is the guide's path through `./prepare`.
    """
    if way == "edit":
        return _outcome(_run(site, host, database_host, ["edit", "recreate", "jobservice"]))
    return by_prepare(site, host, database_host=database_host)


def by_prepare(site: HarborSite, host: Host, *, database_host: str) -> Outcome:
    """Repoint the guide's way: harbor.yml, `./prepare`, and all containers whose environment it changed."""
    steps = [
        configure(site, host, database_host=database_host),
        prepare(site, host),
        compose.up(site, host),
    ]
    # `up -d` starts jobservice together with core; it may have read the address from the core before.
    steps.append(restart_jobservice(site, host, database_host=database_host))
    detail = "; ".join(step.detail for step in steps)
    return changed(detail) if any(step.changed for step in steps) else unchanged(detail)


def _run(
    site: HarborSite, host: Host, database_host: str, parts: Sequence[Part], answer_s: float = 0.0
) -> Repointed:
    given = {
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "nas": site.nas.path.rstrip("/"),
        "host": database_host,
        "parts": list(parts),
        "others": [node.address for node in database_nodes(site)],
        "timeout": REPOINT_TIMEOUT_S,
        "answer_s": answer_s,
    }
    source = _PROGRAM
    answer: dict[str, Any] = host.python(source, given, timeout=REPOINT_TIMEOUT_S + 60)
    return Repointed(
        edited=tuple(answer["edited"]),
        next_core=answer["next"],
        recreated=tuple(answer["recreated"]),
        jobs=answer["jobs"],
        connected=answer["connected"],
        foreseen=tuple(answer["foreseen"]),
        all_run=answer["all_run"],
        seconds=answer["seconds"],
    )


def _outcome(done: Repointed) -> Outcome:
    data = {"seconds": dict(done.seconds), "connected": done.connected, "all_run": done.all_run}
    if not done.changed:
        return unchanged(f"core is connected to {done.connected}", **data)
    parts = [f"{len(done.edited)} files"] if done.edited else []
    parts += [f"next core: {done.next_core}"] if done.next_core else []
    parts += [f"recreated {', '.join(done.recreated)}"] if done.recreated else []
    parts += ["restarted jobservice"] if done.jobs else []
    return changed(f"{', '.join(parts)} in {done.seconds['total']:.1f} s", **data)
