"""How is the site? Every finding with what to do about it, and one word for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flows.rules.advice import advise
from flows.rules.policy import Policy
from flows.rules.site_view import SiteView, site_view
from flows.rules.table import Decision, evidence, fill, require_fresh
from tasks.clock import Moment
from tasks.postgres.facts import NodeFacts


class Verdict(StrEnum):
    """One word for the site, worst last. DOWN is not hidden by a pause: somebody may have forgotten it."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    PAUSED = "PAUSED"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"
    IN_OPERATION = "IN_OPERATION"
    SPLIT_BRAIN = "SPLIT_BRAIN"


SEVERITY = tuple(Verdict)


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        name: how reports and tests call it.
        condition: when it holds, in words, for the documentation.
        holds: the predicate.
        verdict: what it makes of the site, at least.
        reason: what is wrong; `{…}` are attributes of the view.
        remedy: what the operator does about it.
    """

    name: str
    condition: str
    holds: Callable[[SiteView], bool]
    verdict: Verdict
    reason: str
    remedy: str = ""


FINDINGS: tuple[Finding, ...] = (
    Finding(
        "two primaries",
        "more than one node answers as primary",
        lambda v: v.primaries > 1,
        Verdict.SPLIT_BRAIN,
        "More than one primary: {primary}.",
        "Stop Harbor on both, decide which one holds the data to keep, stop the other, run rejoin for it: {rejoin}.",
    ),
    Finding(
        "superseded primary",
        "a node answers as primary on an older timeline than the accepted one",
        lambda v: bool(v.superseded),
        Verdict.SPLIT_BRAIN,
        "{superseded} runs as a primary although another node was promoted after it.",
        "Stop PostgreSQL there, then run rejoin for it: {rejoin}.",
    ),
    Finding(
        "operation in progress",
        "a live lock is on a node",
        lambda v: bool(v.busy),
        Verdict.IN_OPERATION,
        "In progress: {busy}.",
        "Wait for its end.",
    ),
    Finding(
        "nothing reached",
        "no node is reached",
        lambda v: v.reached == 0,
        Verdict.UNKNOWN,
        "No node can be reached: {unreached}.",
        "Check the orchestrator's network first.",
    ),
    Finding(
        "primary out of sight",
        "no primary answers, but a standby hears one",
        lambda v: v.reached > 0 and v.primaries == 0 and v.heard,
        Verdict.UNKNOWN,
        "The primary cannot be reached from here, but its standby hears it.",
        "Repair the path from the orchestrator to the primary.",
    ),
    Finding(
        "no primary",
        "no node answers as primary and no standby hears one",
        lambda v: v.reached > 0 and v.primaries == 0 and not v.heard,
        Verdict.DOWN,
        "No node answers as primary.",
        "Run failover with the node that was the primary: {failover}.",
    ),
    Finding(
        "read-only primary",
        "the primary's transactions are read-only",
        lambda v: bool(v.read_only),
        Verdict.DOWN,
        "{read_only} has default_transaction_read_only on: Harbor cannot write.",
        "Somebody set it: find out why, then set it off and reload.",
    ),
    Finding(
        "no Harbor",
        "no Harbor is healthy",
        lambda v: v.reached > 0 and v.healthy_harbors == 0,
        Verdict.DOWN,
        "No Harbor is healthy: {ill_harbors}.",
        "Look at the containers named; run bootstrap to bring them up: {bootstrap}.",
    ),
    Finding(
        "write failed",
        "a real write through the load balancer failed",
        lambda v: bool(v.write_failed),
        Verdict.DOWN,
        "A write through the load balancer failed: {write_failed}",
        "Look at the findings beside this one; without any, at the containers: `docker ps` on the nodes.",
    ),
    Finding(
        "images not writable",
        "the registry's user may not write where the images lie",
        lambda v: bool(v.images_denied),
        Verdict.DOWN,
        "Every push fails: Harbor's registry may not use {images_denied}.",
        "Run bootstrap: it gives the image data back to user 10000: {bootstrap}.",
    ),
    Finding(
        "commits hang",
        "synchronous_standby_names is set and no standby streams",
        lambda v: bool(v.hanging_commits),
        Verdict.DOWN,
        "Commits on {hanging_commits} wait for a standby that is not there.",
        "With durability `preferred` this is relaxed within 15 s; with `required` bring the standby back.",
    ),
    Finding(
        "paused",
        "the pause flag is set",
        lambda v: bool(v.paused),
        Verdict.PAUSED,
        "The site is paused, nothing acts by itself: {paused}",
        "End the pause when the maintenance is over: {end_pause}.",
    ),
    Finding(
        "node not reached",
        "some node is not reached",
        lambda v: 0 < v.reached < v.nodes,
        Verdict.DEGRADED,
        "Not reached: {unreached}.",
        "Bring it back, or repair the path to it.",
    ),
    Finding(
        "no working standby",
        "a node with a cluster is neither primary nor a standby that follows, or there is no standby",
        lambda v: bool(v.unready_standbys),
        Verdict.DEGRADED,
        "No working standby: {unready_standbys}.",
        "Run rejoin for it: {rejoin}. Until then the database has one copy.",
    ),
    Finding(
        "lag",
        "a standby is further behind than a failover may lose",
        lambda v: bool(v.lagging),
        Verdict.DEGRADED,
        "Behind: {lagging}. A failover would be refused now.",
        "Look at the network and at the standby's disk.",
    ),
    Finding(
        "not synchronous",
        "the site promises synchronous replication and has none",
        lambda v: bool(v.not_synchronous),
        Verdict.DEGRADED,
        "Replication from {not_synchronous} is not synchronous now.",
        "It is restored by itself when the standby has caught up.",
    ),
    Finding(
        "Harbor unhealthy",
        "some Harbor is not healthy by its body",
        lambda v: 0 < v.healthy_harbors < v.harbors,
        Verdict.DEGRADED,
        "Harbor is not healthy: {ill_harbors}.",
        "Look at the components named; run bootstrap to bring them up: {bootstrap}.",
    ),
    Finding(
        "wrong database",
        "a Harbor runs with, or is configured for, another database than the primary, or its jobservice may use one",
        lambda v: bool(v.wrong_database),
        Verdict.DEGRADED,
        "Harbor uses, or may use, another database than the primary: {wrong_database}.",
        "Run bootstrap: it points every Harbor at the primary: {bootstrap}.",
    ),
    Finding(
        "not balanced",
        "the load balancer serves some node not",
        lambda v: bool(v.balancer_down),
        Verdict.DEGRADED,
        "The load balancer does not serve {balancer_down}.",
        "When its Harbor is healthy, run bootstrap, which has it served again: {bootstrap}.",
    ),
    Finding(
        "held back",
        "the slot of a standby that is away keeps vacuum from removing rows, or much WAL on the primary's disk",
        lambda v: bool(v.held_back),
        Verdict.DEGRADED,
        "A standby that is away holds back the primary: {held_back}.",
        "Run rejoin for the standby: {rejoin}. If it will not come back soon, drop its slot on the primary with "
        "pg_drop_replication_slot; rejoin makes it anew, and copies when the WAL is gone.",
    ),
    Finding(
        "slots",
        "a replication slot is inactive or its WAL is being lost",
        lambda v: bool(v.slots),
        Verdict.DEGRADED,
        "Replication slots need attention: {slots}.",
        "Run rejoin for the standby: {rejoin}; drop slots that nobody uses.",
    ),
    Finding(
        "archiver",
        "archiving fails or is behind",
        lambda v: bool(v.archiver),
        Verdict.DEGRADED,
        "WAL archiving: {archiver}.",
        "Repair the archive directory (mounted, space, rights); a shutdown would wait for it.",
    ),
    Finding(
        "disk space",
        f"less than {0.10:.0%} of a disk is free",
        lambda v: bool(v.disks),
        Verdict.DEGRADED,
        "Little space: {disks}.",
        "Free space, or grow the disk.",
    ),
    Finding(
        "certificate",
        "a served certificate ends within 21 days",
        lambda v: bool(v.certificates),
        Verdict.DEGRADED,
        "Certificate: {certificates}.",
        "Renew it, save the site with `harbor-ha apply SITE.yml`, and run bootstrap: {bootstrap}.",
    ),
    Finding(
        "clocks",
        "a clock is off by more than 2 s",
        lambda v: bool(v.clocks),
        Verdict.DEGRADED,
        "The clock is off on {clocks}.",
        "Repair time synchronisation there; tokens and signatures fail with it.",
    ),
    Finding(
        "NAS",
        "the shared file system is not mounted or does not answer",
        lambda v: bool(v.nas),
        Verdict.DEGRADED,
        "The shared file system is not usable on {nas}.",
        "Mount it; check the NAS.",
    ),
    Finding(
        "project not writable",
        "the registry's user may not write into the images of some project",
        lambda v: bool(v.projects_denied),
        Verdict.DEGRADED,
        "Pushes to these projects fail: Harbor's registry may not use {projects_denied}.",
        "Run bootstrap: it gives the image data back to user 10000: {bootstrap}.",
    ),
    Finding(
        "overrides",
        "postgresql.auto.conf overrides replication settings",
        lambda v: bool(v.overrides),
        Verdict.DEGRADED,
        "postgresql.auto.conf overrides settings of ours: {overrides}.",
        "ALTER SYSTEM RESET them; conf.d is where they belong.",
    ),
    Finding(
        "autostart",
        "a running server would not start at boot",
        lambda v: bool(v.autostart),
        Verdict.DEGRADED,
        "PostgreSQL would not start at boot on {autostart}.",
        "Run rejoin for a standby: {rejoin}; on a primary write `auto` into start.conf and unmask the unit.",
    ),
    Finding(
        "guard not running",
        "the guard of a database node has not told for 20 s that it runs",
        lambda v: bool(v.guards_away),
        Verdict.DEGRADED,
        "The guard does not run on {guards_away}: nothing stops an isolated or superseded primary there.",
        "Read `journalctl -u harbor-ha-guard` there and start the service, or run bootstrap: {bootstrap}.",
    ),
    Finding(
        "other guard",
        "the guard of a database node is another one than this orchestrator installs",
        lambda v: bool(v.guards_other),
        Verdict.DEGRADED,
        "The guard on {guards_other} is of another version than this orchestrator's.",
        "Run bootstrap: it installs the guard anew: {bootstrap}. Until then decisions may rest on what it does not do.",
    ),
    Finding(
        "other self-fence",
        "the guard of a database node has another self-fence than the site file",
        lambda v: bool(v.self_fences),
        Verdict.DEGRADED,
        "The site file's self-fence is {wanted_self_fence}, the guard's is another: {self_fences}.",
        "Run bootstrap: it gives the guards the site's limit: {bootstrap}. Until then what was seen counts.",
    ),
    Finding(
        "blind witness",
        "somebody on whose silence a failover rests does not see a node that is in service",
        lambda v: bool(v.blind_witnesses),
        Verdict.DEGRADED,
        "Nobody can count on these witnesses: {blind_witnesses}. A failover from a machine without power would be "
        "refused until somebody attests that it is off.",
        "Let the witness see the nodes (docs/failover.md), or set failover.fence_command, which needs none.",
    ),
    Finding(
        "login that prints",
        "the start-up files of a node's user print something around our answers",
        lambda v: bool(v.noisy),
        Verdict.DEGRADED,
        "Start-up files print where our answers come: {noisy}. It is cut off and ignored.",
        "Print only for terminals: begin such lines in .bashrc with `[ -t 1 ] &&`.",
    ),
    Finding(
        "unfinished operation",
        "an operation is open and nobody works on it",
        lambda v: bool(v.unfinished),
        Verdict.DEGRADED,
        "Left unfinished: {unfinished}.",
        "Run the same flow again: {again}.",
    ),
    Finding(
        "damaged record",
        "an operation record or a lock cannot be read",
        lambda v: bool(v.damaged),
        Verdict.DEGRADED,
        "{damaged}",
        "Until then failover is refused.",
    ),
    Finding(
        "look incomplete",
        "some part of the look at a node failed",
        lambda v: bool(v.problems),
        Verdict.DEGRADED,
        "Could not be looked at: {problems}.",
        "Look at that part on the node.",
    ),
)


def verdict(
    nodes: Sequence[NodeFacts],
    addresses: Mapping[str, str],
    policy: Policy,
    now: Moment,
    *,
    write_error: str | None = None,
    balancer_up: Mapping[str, bool] | None = None,
    guard_version: str | None = None,
    blind_witnesses: Sequence[str] = (),
    site: str = "SITE",
) -> Decision[Verdict]:
    """Judge the whole site; see `site_view` for the arguments. All findings are reasons, the worst first.

    Raises:
        FactsTooOld: when facts are too old to judge by.
    """
    require_fresh([(node.name, node.observed_at) for node in nodes], now)
    view = site_view(
        nodes,
        addresses,
        policy,
        now,
        write_error=write_error,
        balancer_up=balancer_up,
        guard_version=guard_version,
        blind_witnesses=blind_witnesses,
        site=site,
    )
    return judge(view)


def judge(view: SiteView) -> Decision[Verdict]:
    """Hold a view against all findings."""
    found = sorted((f for f in FINDINGS if f.holds(view)), key=lambda f: -SEVERITY.index(f.verdict))
    seen = evidence(view)
    remedies, first = advise([(finding.name, finding.remedy) for finding in found], seen)
    return Decision(
        found[0].verdict if found else Verdict.HEALTHY,
        found[0].name if found else "nothing found",
        tuple(fill(finding.reason, seen) for finding in found),
        remedies,
        evidence=seen,
        first=first,
    )
