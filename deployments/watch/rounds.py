"""One thorough look a minute, without a flow run: who sees whom, the verdict, what the metrics need.

It is `check` without Prefect. It keeps what a failover needs and `check` used to keep each minute: the note of the
witnesses, the verdict, the mirrored durability record.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from blocks import HarborSite
from deployments.attempts import PrefectTrouble
from deployments.watch.calls import tell_verdict
from flows.check import answer_of, served
from flows.machinery.protocol import Protocol
from flows.machinery.service import try_write, why
from flows.machinery.vision import blind, sightings
from flows.rules.policy import policy_of
from flows.rules.table import Decision
from flows.rules.verdict import Verdict, verdict
from tasks import clock
from tasks.backup.format.catalogue import list_backups
from tasks.backup.settings import store_of
from tasks.errors import HarborHaError
from tasks.guard.install import guard_version
from tasks.hosts.connection import connect
from tasks.observation.budget import CALM_BUDGET_S, ask
from tasks.observation.look import SiteLook, look
from tasks.observation.witnesses import Answers, ask_witnesses
from tasks.operation.files import DURABILITY, VERDICT, WITNESSED
from tasks.operation.store import put_state
from tasks.postgres.durability import mirror

logger = logging.getLogger("harbor_ha.watch")

Keep = Callable[[str, str], None]


@dataclass(frozen=True)
class Round:
    """What one thorough look has found.

    Attributes:
        at: wall time.
        seconds: how long it took.
        seen: all nodes.
        answers: what the load balancer and Redis said.
        judged: the verdict.
        blind: who does not see a node that is in service, as sentences.
    """

    at: float
    seconds: float
    seen: SiteLook
    answers: Answers
    judged: Decision[Verdict]
    blind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backups:
    """What the bucket holds; moments are when the backup began."""

    last: datetime | None = None
    last_verified: datetime | None = None
    count: int = field(default=0)


def take_round(site: HarborSite, keep: Keep) -> Round:
    """Look at a site, judge it, and keep what a failover needs.

    Args:
        keep: has a note kept on the database nodes, by its name and its text.
    """
    begun = time.monotonic()
    written = ask(("write", site.name), lambda: why(try_write(Protocol("watch", site))))
    seen = look(site, CALM_BUDGET_S)
    names = [node.name for node in site.nodes]
    answers = ask_witnesses(site, names)
    write_error = answer_of(written)
    note = sightings(site, seen, answers)
    unseeing = blind(site, seen, answers, note)
    judged = verdict(
        seen.every,
        {node.name: node.address for node in site.nodes},
        policy_of(site),
        clock.now(),
        write_error=write_error or None,
        balancer_up=served(site, answers),
        guard_version=guard_version(),
        blind_witnesses=unseeing,
    )
    if note.nodes:
        keep(WITNESSED, note.to_json())
    mirror_durability(site, seen)
    announce(site, seen, judged)
    seconds = time.monotonic() - begun
    return Round(clock.now().wall, seconds, seen, answers, judged, tuple(unseeing))


def announce(site: HarborSite, seen: SiteLook, judged: Decision[Verdict]) -> None:
    """Keep the verdict and tell it, when it is another one than the last time; by `check` or by us."""
    kept = [node.state[VERDICT] for node in seen.every if VERDICT in node.state]
    before = {str(note.get("verdict")) if isinstance(note, dict) else "" for note in kept}
    hosts = [connect(site.node(node.name)) for node in seen.nodes if "direct" in node.reachable_by]
    if before == {judged.kind.value} or not hosts:
        return
    logger.warning("site %s is %s: %s", site.name, judged.kind, "; ".join(judged.reasons[:3]))
    text = json.dumps({"verdict": judged.kind.value, "since": time.time()}, sort_keys=True) + "\n"
    with contextlib.suppress(HarborHaError):
        put_state(site, *hosts, name=VERDICT, text=text)
    try:
        tell_verdict(site.name, judged.kind.value, sorted(before), judged.lines())
    except PrefectTrouble as trouble:
        logger.error("site %s: %s", site.name, trouble)


def mirror_durability(site: HarborSite, seen: SiteLook) -> None:
    """Copy the primary's durability record to the others where theirs differs: a failover reads it there."""
    primaries = [node for node in seen.nodes if node.is_primary and "direct" in node.reachable_by]
    if site.postgres.durability == "async" or len(primaries) != 1:
        return
    wanted = primaries[0].state.get(DURABILITY)
    others = [
        connect(site.node(node.name))
        for node in seen.nodes
        if node.name != primaries[0].name
        and "direct" in node.reachable_by
        and node.state.get(DURABILITY) != wanted
    ]
    if wanted is not None and others:
        with contextlib.suppress(HarborHaError):
            mirror(site, connect(site.node(primaries[0].name)), *others)


def look_at_backups(site: HarborSite) -> Backups | None:
    """List the backups in the bucket; None when there is no bucket. Nothing of their content is read.

    Raises:
        HarborHaError: the bucket does not answer.
    """
    if site.oss is None:
        return None
    found = [entry for entry in list_backups(store_of(site)) if entry.complete]
    verified = [entry for entry in found if any(name.endswith("-ok.json") for name in entry.verified)]
    newest = max((entry.backup.started for entry in found), default=None)
    proven = max((entry.backup.started for entry in verified), default=None)
    return Backups(newest, proven, len(found))
