"""What Prometheus gets to see at `/metrics`. What is not known is left out: an old number is no fact."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deployments.watch.watcher import Watched, Watcher
from flows.rules.verdict import Verdict
from flows.rules.watch import Watch
from flows.rules.watch_lines import limits
from flows.rules.watch_notes import latest, pause_in
from tasks.balancer.states import Served
from tasks.observation.beats import Beat
from tasks.operation.files import DURABILITY, LAST_PRIMARY
from tasks.operation.sightings import BALANCER, REDIS
from tasks.postgres.facts import NodeFacts
from tasks.postgres.layout import slot_of

logger = logging.getLogger("harbor_ha.watch")

# A thorough look is taken each minute; what is older is left out.
ROUND_LIMIT_S = 300.0
_LOST = (Watch.CALL, Watch.CALLED, Watch.HELD, Watch.VOID)
_DURABILITY = ("SYNC", "ASYNC", "ASYNC_DEGRADED")

# Name without `harbor_ha_`, what it says, and its labels beside `site`.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "watch": ("What the watcher makes of the site (docs/rules.md), 1 for the one that holds", ("state",)),
    "look_age_seconds": ("Seconds since the watcher looked at the site", ()),
    "primary": ("1 for the node that is the primary, as far as anybody knows; 0 for the others", ("node",)),
    "primary_lost": ("1 for the primary while it is in trouble for longer than call_after_s", ("node",)),
    "primaries": ("Nodes that answer as primary", ()),
    "timeline": ("Timeline of the primary", ()),
    "trouble_seconds": ("For how long the primary has been in trouble; 0 while it answers", ()),
    "node_heard": ("1 when the node's beacon speaks", ("node",)),
    "postgres_answers": ("1 when its PostgreSQL answers, and lets somebody in", ("node",)),
    "in_recovery": ("1 for a standby, 0 for a primary, as its server said last", ("node",)),
    "receiver_age_seconds": ("Seconds since a standby heard its primary", ("node",)),
    "lag_bytes": ("Bytes that a standby that streams has not replayed yet", ("node",)),
    "lag_seconds": ("The same in seconds", ("node",)),
    "synchronous": ("1 when commits wait for this standby", ("node",)),
    "durability": ("The recorded state of synchronous replication, 1 for the one that holds", ("state",)),
    "position_age_seconds": ("Seconds since a standby said that it has the primary's position", ()),
    "guard_age_seconds": ("Seconds since the node's guard said that it runs", ("node",)),
    "paused": ("1 while the site is paused", ()),
    "operation_seconds": ("Seconds since an operation that is open was begun", ("kind", "phase")),
    "verdict": ("The verdict of the last thorough look, 1 for the one that holds", ("verdict",)),
    "verdict_age_seconds": ("Seconds since the last thorough look that came to its end", ()),
    "round_seconds": ("How long the last thorough look took", ()),
    "harbor_healthy": ("1 when the node's Harbor is healthy by its body", ("node",)),
    "certificate_days": ("Days until the certificate that the node's Harbor serves ends", ("node",)),
    "disk_free_ratio": ("Free part of a disk: data, nas", ("node", "disk")),
    "balancer_serves": ("1 when the load balancer serves the node", ("node",)),
    "witness_answers": ("1 when a witness can be asked: balancer, redis", ("witness",)),
    "blind_witnesses": ("Witnesses that do not see a node that is in service", ()),
    "backups_wanted": ("1 when the site has a bucket", ()),
    "backups": ("Complete backups in the bucket", ()),
    "last_backup_timestamp_seconds": ("When the newest complete backup began", ()),
    "last_verified_timestamp_seconds": ("When the newest backup began that a drill has restored", ()),
    "calls_total": ("Calls for a failover", ()),
    "calls_failed_total": ("Calls that Prefect did not take", ()),
    "prefect_takes_calls": ("0 when Prefect did not take the last call", ()),
    "stood_still_total": ("How often what was seen was void: this process was late, or the clock jumped", ()),
}

Sample = tuple[str, float, tuple[str, ...]]


def samples_of(item: Watched, now: float, wall: float) -> Iterator[Sample]:
    """Give the samples of one site: name without prefix, value, labels beside `site`.

    Args:
        now: by the monotonic clock.
        wall: seconds since 1970.
    """
    yield from _site_samples(item, now)
    for name in item.watch.listeners:
        yield from _node_samples(item, name, item.watch.beats().get(name), now)
    yield from _note_samples(item, wall)
    yield from _round_samples(item, wall)
    yield from _backup_samples(item)


def _site_samples(item: Watched, now: float) -> Iterator[Sample]:
    watch, memory, counts = item.watch, item.watch.memory, item.watch.counts
    kind = watch.decision.kind if watch.decision else Watch.UNKNOWN
    for state in Watch:
        yield "watch", float(state is kind), (state.value,)
    if watch.looked_at is not None:
        yield "look_age_seconds", now - watch.looked_at.monotonic, ()
    for name in watch.listeners:
        yield "primary", float(name == memory.primary), (name,)
        yield "primary_lost", float(name == memory.primary and kind in _LOST), (name,)
    beats = watch.beats().values()
    answering = [beat for beat in beats if _answers(item, beat, now)]
    yield "primaries", float(sum(beat.in_recovery is False for beat in answering)), ()
    if memory.primary is not None:
        yield "timeline", float(memory.timeline), ()
    seen = watch.decision.evidence if watch.decision else {}
    if seen.get("known"):
        yield "trouble_seconds", 0.0 if seen["answers"] else float(seen["trouble_s"]), ()
    # A failover reads it on the standby; the one on the primary may be gone with it.
    kept = [
        listener.kept_at[LAST_PRIMARY]
        for name, listener in watch.listeners.items()
        if name != memory.primary and LAST_PRIMARY in listener.kept_at
    ]
    if kept:
        yield "position_age_seconds", now - max(kept), ()
    yield "calls_total", float(counts.calls), ()
    yield "calls_failed_total", float(counts.calls_failed), ()
    yield "stood_still_total", float(counts.stood_still), ()
    yield "prefect_takes_calls", float(counts.prefect_takes_calls), ()


def _answers(item: Watched, beat: Beat, now: float) -> bool:
    return now - beat.good_at <= limits(item.watch.beat_s)[0] and not beat.ended


def _node_samples(item: Watched, name: str, beat: Beat | None, now: float) -> Iterator[Sample]:
    heard = beat is not None and now - beat.written_at <= limits(item.watch.beat_s)[1]
    yield "node_heard", float(heard), (name,)
    yield "postgres_answers", float(beat is not None and _answers(item, beat, now)), (name,)
    if beat is None or not heard:
        return
    if beat.guard_age_s is not None:
        yield "guard_age_seconds", beat.guard_age_s, (name,)
    if beat.in_recovery is None:
        return
    yield "in_recovery", float(beat.in_recovery), (name,)
    if beat.heard_at is not None:
        yield "receiver_age_seconds", max(0.0, now - beat.heard_at), (name,)
    if beat.in_recovery or not _answers(item, beat, now):
        return
    standbys = {slot_of(other): other for other in item.watch.listeners}
    for sender in beat.senders:
        if sender.name in standbys and sender.state == "streaming":
            labels = (standbys[sender.name],)
            yield "synchronous", float(sender.sync_state in ("sync", "quorum")), labels
            if sender.lag_bytes is not None:
                yield "lag_bytes", float(sender.lag_bytes), labels
            # On an idle pair the server tells no time: who lacks nothing is not behind.
            if sender.lag_s is not None or sender.lag_bytes == 0:
                yield "lag_seconds", sender.lag_s or 0.0, labels


def _note_samples(item: Watched, wall: float) -> Iterator[Sample]:
    beats = item.watch.beats()
    if not beats:
        return
    yield "paused", float(bool(pause_in(beats.values()))), ()
    record = latest(beats.values())
    if record is not None and record.open:
        yield "operation_seconds", max(0.0, wall - record.started_at), (record.kind, record.phase)
    own = beats.get(item.watch.memory.primary or "")
    recorded: Any = own.notes.get(DURABILITY) if own is not None else None
    if isinstance(recorded, dict) and recorded.get("state") in _DURABILITY:
        for state in _DURABILITY:
            yield "durability", float(state == recorded["state"]), (state,)


def _round_samples(item: Watched, wall: float) -> Iterator[Sample]:
    found = item.round
    if found is None:
        return
    yield "verdict_age_seconds", max(0.0, wall - found.at), ()
    if wall - found.at > ROUND_LIMIT_S:
        return
    yield "round_seconds", found.seconds, ()
    for verdict in Verdict:
        yield "verdict", float(verdict is found.judged.kind), (verdict.value,)
    for who in (BALANCER, REDIS):
        if who == REDIS or item.watch.site.balancer.kind != "none":
            yield "witness_answers", float(who not in found.answers.problems), (who,)
    yield "blind_witnesses", float(len(found.blind)), ()
    for name, state in (found.answers.balancer or {}).items():
        yield "balancer_serves", float(state.served is Served.UP), (name,)
    for node in found.seen.every:
        yield from _look_samples(node, wall)


def _look_samples(node: NodeFacts, wall: float) -> Iterator[Sample]:
    if node.harbor is not None:
        yield "harbor_healthy", float(node.harbor.health == "healthy"), (node.name,)
        if node.harbor.certificate_end is not None:
            left = node.harbor.certificate_end - datetime.fromtimestamp(wall, UTC)
            yield "certificate_days", left.total_seconds() / 86400, (node.name,)
    for disk, size in (("data", node.data_disk), ("nas", node.nas_disk)):
        if size is not None and size.total:
            yield "disk_free_ratio", size.free / size.total, (node.name, disk)


def _backup_samples(item: Watched) -> Iterator[Sample]:
    yield "backups_wanted", float(item.watch.site.oss is not None), ()
    found = item.backups
    if found is None:
        return
    yield "backups", float(found.count), ()
    if found.last is not None:
        yield "last_backup_timestamp_seconds", found.last.timestamp(), ()
    if found.last_verified is not None:
        yield "last_verified_timestamp_seconds", found.last_verified.timestamp(), ()


@dataclass(eq=False)
class SiteCollector(Collector):
    """Makes the metrics when they are asked for, of what the watcher knows then."""

    sites: Iterable[Watched]
    clock: Callable[[], tuple[float, float]] = field(default=lambda: (time.monotonic(), time.time()))

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: what is not known is left out."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Give all metrics of all sites."""
        families = {name: _family(name) for name in METRICS}
        now, wall = self.clock()
        for item in self.sites:
            for name, value, labels in samples_of(item, now, wall):
                families[name].add_metric([item.name, *labels], value)
        return [family for family in families.values() if family.samples]


def _family(name: str) -> GaugeMetricFamily | CounterMetricFamily:
    text, labels = METRICS[name]
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(f"harbor_ha_{name}", text, labels=["site", *labels])


def serve_metrics(watcher: Watcher, address: str, port: int, again_s: float = 2.0) -> None:
    """Answer at `/metrics`. A watcher without metrics still watches, and tries again until the port can be had.

    The watcher of before may hold it for as long as it ends: a service of its own, started before the runner was told
    to run none, never had metrics, and no rule of Prometheus a series.

    Args:
        watcher: whose sites are told.
        address: where to listen.
        port: likewise.
        again_s: seconds between two attempts.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiteCollector(watcher.sites))

    def listens() -> OSError | None:
        try:
            start_http_server(port, address, registry)
        except OSError as error:
            return error
        return None

    def try_again() -> None:
        while not watcher.ended.wait(again_s):
            if listens() is None:
                logger.warning("metrics at %s:%d", address, port)
                return

    error = listens()
    if error is not None:
        logger.error("no metrics at %s:%d yet: %s", address, port, error.strerror)
        threading.Thread(target=try_again, daemon=True, name="metrics").start()
