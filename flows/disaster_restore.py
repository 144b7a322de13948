"""From a bare machine and the bucket to a working Harbor."""

from datetime import UTC, datetime
from typing import Any, Literal

from prefect import flow

from blocks import HarborSite
from flows.machinery import backup_steps as steps
from flows.machinery import point_in_time
from flows.machinery.backup_report import announce
from flows.machinery.dump_source import candidates_of
from flows.machinery.ending import ends_named
from flows.machinery.point_in_time import Point, decide_point
from flows.machinery.protocol import Protocol
from flows.machinery.report import publish as publish_report
from flows.machinery.typed import require_typed
from flows.rules.preflight import plan_bootstrap
from flows.rules.restore_admission import RestoreFacts, admit_restore, signs_of_life
from tasks.backup.format.catalogue import find_backup, read_manifest
from tasks.backup.format.manifest import Manifest
from tasks.backup.restore.life import Life
from tasks.backup.restore.life import look_for_life as life_of
from tasks.backup.restore.restore_config import read_configuration
from tasks.backup.settings import origin_of, store_of
from tasks.balancer import steps as balancer
from tasks.docker import steps as docker
from tasks.errors import Refused
from tasks.harbor import steps as harbor
from tasks.hosts import steps as hosts
from tasks.hosts.connection import connect
from tasks.hosts.observation import observe_site
from tasks.outcome import Outcome
from tasks.pitr import steps as pitr
from tasks.pitr.settings import uses_repository
from tasks.postgres import steps as postgres


@flow(name="disaster_restore", flow_run_name="disaster-restore of {site} on {target}")
@ends_named
def disaster_restore(
    site: str,
    target: str,
    backup: str = "latest",
    images: Literal["nas", "oss"] = "nas",
    identity_file: str = "",
    to_time: str = "",
    attest_site_lost: bool = False,
    accept_unsigned: bool = False,
    confirm_site: str = "",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Restore a whole site on one machine: PostgreSQL, Harbor of the backup's version, images.

    Refuses where another database lives, and where the site shows life: a primary, a node that the load balancer
    serves, a client of Redis, a sign on the NAS. The backup is only read. Killed at any
    moment, the next run goes on. Afterwards add a second node to the site file and run `bootstrap`.

    Args:
        site: Name of the saved site.
        target: The node of the site that becomes Harbor; a bare machine.
        backup: `latest`, or the id of a backup.
        images: nas: the image data on the NAS is still there; it is verified, and what is missing is fetched.
            oss: all of it comes from the bucket, what was pulled last comes first.
        identity_file: Path of the age identity on the orchestrator: the runner's user (harbor-ha) must own it, with
            mode 0600, outside of /root, /home and /tmp.
        to_time: The moment to restore the databases to, such as 2026-11-22T03:04:05+08:00; needs WAL in the
            bucket. Empty: the databases as they are in the backup.
        attest_site_lost: You attest that every old machine is off, or cut off from clients, Redis and NAS, and
            stays so.
        accept_unsigned: Believe a backup that the site's key did not sign: whoever may write into the bucket can
            have made it.
        confirm_site: The site's name once more, typed; not for a dry run.
        dry_run: Look, decide, show the steps, and change nothing.
    """
    run = Protocol.begin("disaster_restore", site, dry_run)
    if not dry_run:
        require_typed(site, confirm_site, "It builds a whole site on that machine.")
    require_target(run.site, target)
    point = decide_point(run, target, to_time) if to_time else None
    if point is not None and backup == "latest":
        backup = str(point.nightly)
    life = look_for_life(run, target)
    believed = {"identity_file": identity_file or None, "accept_unsigned": accept_unsigned}
    manifest = decide(run, target, backup, images, point, life, attested=attest_site_lost, **believed)
    given = {"backup": manifest.backup_id, **believed}
    # What the node notes of this restore, and believes of no other.
    of = manifest.backup_id if point is None else f"the moment {point.time.isoformat()}"
    sections = {"Backup": describe(manifest)}
    with run.telling_changes():
        run.on(steps.ask_redis, target)
        run.on(hosts.mount_nas, target)
        life = still_lost(run, target, life, attested=attest_site_lost)
        prepare_machine(run, target)
        run.on(steps.stop_stray, target, of=of)
        if point is None:
            create_database(run, target)
            run.on(steps.restore_databases, target, **given)
            bring_back_harbor(run, target, of, given)
            restored = bring_back_images(run, target, images, of, given)
        else:
            recovered = point_in_time.rebuild_database(run, target, point)
            bring_back_harbor(run, target, of, given)
            restored = point_in_time.bring_back_images(run, target, images)
            sections |= point_in_time.describe(point, recovered, restored)
        still_lost(run, target, life, attested=attest_site_lost)
        sections |= keep_the_old_out(run, target)
        start_harbor(run, target, of)
        lost = restored.data.get("lost_count", 0)
        prove(run, target, whole_only=point is not None or lost > 0)
        announce(
            site, "harbor-ha.restore.completed", backup=manifest.backup_id, node=target, blobs_lost=str(lost)
        )
    sections |= lacking_images(restored) if point is None else {}
    return publish_report(run, headline(run, target, manifest, point) + without(restored), sections)


def require_target(site: HarborSite, target: str) -> None:
    """Refuse a target that the site does not have."""
    if target not in [node.name for node in site.nodes]:
        raise Refused(
            f"{target} is not a node of {site.name}.",
            ["Add it to the site file, take out the machines that are lost, and run `harbor-ha apply`."],
        )


def decide(
    run: Protocol,
    target: str,
    backup: str,
    images: str,
    point: Point | None,
    life: Life,
    *,
    attested: bool,
    **believed: Any,
) -> Manifest:
    """Look at the machine, the backup and the rest of the site, and refuse before anything is changed."""
    site = run.site
    only = site.model_copy(update={"nodes": [site.node(target)]})
    others = site.model_copy(update={"nodes": [node for node in site.nodes if node.name != target]})
    origin = origin_of(site, find_backup(store_of(site), backup), **believed)
    manifest = read_manifest(origin.store, origin.backup, origin.trust)
    others_seen = candidates_of(others)
    admit_restore(
        RestoreFacts(
            target=target,
            images=images,
            site_version=site.harbor.version,
            backup_version=manifest.harbor.version,
            site_major=site.postgres.major,
            backup_major=point.chosen.base.major if point else manifest.source.version_num // 10000,
            backup_has_images=manifest.has_images,
            alive=[seen.node for seen in others_seen if seen.role == "primary"],
            physical=point is not None,
            life=life.seen,
            unknown=[
                *life.unknown,
                *(f"{seen.node} does not answer" for seen in others_seen if not seen.role),
            ],
            attested=attested,
        )
    )
    plan_bootstrap(only, observe_site(only, wait=not run.dry_run), datetime.now(UTC))
    # Decrypted before the first change: a wrong identity is found now, and not after an hour.
    read_configuration(origin, manifest)
    return manifest


def look_for_life(run: Protocol, target: str, before: Life | None = None, *, need_nas: bool = False) -> Life:
    """Ask whoever the site's Harbor needs whether it lives."""
    host = connect(run.site.node(target))
    return run.watch(
        "Look for signs of life of the site",
        lambda: life_of(run.site, host, need_nas=need_nas, before=before),
        lambda life: "; ".join([*life.seen, *life.unknown]) or "none",
        target,
    )


def still_lost(run: Protocol, target: str, before: Life, *, attested: bool) -> Life:
    """Look again, with the NAS that is mounted by now: hours may have gone by, and what follows is not taken back.

    Raises:
        Refused: the site lives.
    """
    if run.dry_run:
        return before
    life = look_for_life(run, target, before, need_nas=True)
    reasons = signs_of_life(life.seen, life.unknown, attested=attested)
    if reasons:
        raise Refused(f"The site is not opened on {target}.", reasons)
    return life


def prepare_machine(run: Protocol, target: str) -> None:
    """Put Docker and PostgreSQL's programs on the machine."""
    for step in (
        docker.install,
        docker.configure,
        postgres.install,
        postgres.install_archiver,
    ):
        run.on(step, target)
    if uses_repository(run.site):
        run.on(pitr.install, target)


def create_database(run: Protocol, target: str) -> None:
    """Make an empty cluster with the site's roles."""
    for step in (
        postgres.create_cluster,
        postgres.configure,
        postgres.start,
        postgres.create_roles,
        postgres.set_passwords,
    ):
        run.on(step, target)
    if uses_repository(run.site):
        # Another database than the lost one: its WAL goes beside the old one's, which stays.
        run.on(pitr.create_stanza, target)


def bring_back_harbor(run: Protocol, target: str, of: str, given: dict[str, Any]) -> None:
    """Put the secrets back, and install Harbor around them."""
    run.on(steps.clear_stale_state, target, of=of)
    run.on(steps.restore_secrets, target, **given)
    run.on(harbor.install, target)
    run.on(steps.restore_settings, target, **given)
    run.on(harbor.bind_registry, target)
    run.on(harbor.share_secrets, target)
    run.on(harbor.share_override, target)
    run.on(harbor.configure, target, database_host=run.site.node(target).address)
    run.on(harbor.prepare_configuration, target)


def bring_back_images(run: Protocol, target: str, images: str, of: str, given: dict[str, Any]) -> Outcome:
    """Make every blob of the backup present on the NAS, and the links that lead to them."""
    if images == "oss":
        run.on(steps.restore_links, target, of=of, **given)
    else:
        run.on(steps.require_links, target)
        # The directory alone says nothing: an older snapshot of the NAS has it, and lacks links.
        run.on(steps.make_links, target)
    return run.on(steps.restore_images, target, **given)


def keep_the_old_out(run: Protocol, target: str) -> dict[str, list[str]]:
    """Have no old machine serve beside this one when its power is back: no client reaches it, and it is told."""
    drained = run.on(balancer.drain_others, target).data
    told = run.on(steps.tell_restored, target).data
    lines = []
    if drained.get("drained"):
        lines.append(f"Out of the load balancer: {', '.join(drained['drained'])}.")
    if drained.get("unseen"):
        lines.append(
            f"WARNING: whether the load balancer serves another machine was not seen: {drained['unseen']}. "
            "Take the old ones out of it before they have power."
        )
    if not told.get("shared", True):
        lines.append(
            "WARNING: the NAS could not be told which database counts. An old machine that is switched on starts its "
            "own: keep them off, or run the restore again with the NAS mounted."
        )
    return {"Old machines": lines} if lines else {}


def start_harbor(run: Protocol, target: str, of: str) -> None:
    """Start Harbor on caches that know nothing of the past, and open it to clients."""
    run.on(steps.empty_caches, target, of=of)
    run.on(harbor.up, target)
    run.on(steps.note_started, target, of=of)
    run.on(harbor.start_at_boot, target)
    run.on(harbor.wait_healthy, target)
    run.on(steps.resave_schedule, target)
    run.on(balancer.admit, target)


def prove(run: Protocol, target: str, whole_only: bool = False) -> None:
    """Pull images of before the disaster, and push a new one."""
    run.on(steps.pull_sample, target, whole_only=whole_only)
    run.on(harbor.push_and_pull, name="disaster_restore")


def headline(run: Protocol, target: str, manifest: Manifest, point: Point | None = None) -> str:
    """Say in one sentence how it ended."""
    moment = point.time.isoformat() if point else manifest.backup_id
    if run.dry_run:
        return f"Would restore {moment} on {target}."
    return (
        f"{run.site.name} is back on {target}, as of {moment}: old images are pulled and new ones pushed. "
        f"What was pushed after that {'time' if point else 'backup'} is lost."
    )


def without(restored: Outcome) -> str:
    """End the headline with what could not be brought back; nothing where all was."""
    lost, images = restored.data.get("lost_count", 0), restored.data.get("lost", [])
    return (
        f" WARNING: {lost:,} blobs could not be brought back, {len(images):,} images lack them."
        if lost
        else ""
    )


def lacking_images(restored: Outcome) -> dict[str, list[str]]:
    """List the images that cannot be pulled, and what is to be done about them."""
    data = restored.data
    if not data.get("lost_count"):
        return {}
    lines = ["Everything else is restored and served. Push these again, or delete them:", *data["lost"]]
    if data["archived_count"]:
        lines.insert(
            0, f"{data['archived_count']} blobs only have to be thawed: run the restore again in some hours."
        )
    return {"Images that lack blobs": lines}


def describe(manifest: Manifest) -> list[str]:
    """Tell what was restored."""
    rows = sum(sum(database.tables.values()) for database in manifest.databases)
    lines = [
        f"{manifest.backup_id}, begun {manifest.started_at}, of Harbor {manifest.harbor.version}",
        f"{len(manifest.databases)} databases with {rows:,} rows, from {manifest.source.node}",
    ]
    if manifest.blobs is not None:
        lines.append(f"{manifest.blobs.referenced:,} blobs, {manifest.blobs.referenced_bytes:,} bytes")
    return [*lines, *manifest.warnings]
