"""Which steps Prefect repeats by itself: those that may be, after errors that pass; no step that must not."""

import importlib
import pkgutil
import time
from pathlib import Path

import pytest
from prefect import Task, flow
from prefect.client.orchestration import get_client

import flows
import tasks
from blocks import HarborSite
from blocks.site_file import read_site_file
from blocks.store import forget, remember
from tasks import again
from tasks.again import Again
from tasks.errors import HostUnreachable, Refused, RemoteCommandFailed, RemoteConnectionLost, RemoteTimeout
from tasks.outcome import Outcome, unchanged
from tasks.pitr.errors import RepositoryBusy, RepositoryUnreachable
from tasks.step import step
from tasks.storage.errors import AccessDenied, EndpointUnreachable, StorageFull
from tests.unit.site_on_disk import NOW, correct_site

REPEATED = {
    "tasks.docker.steps": "install",
    "tasks.postgres.steps": "install build_standby",
    "tasks.postgres.ha_steps": "await_copy",
    "tasks.pitr.steps": "install base_backup",
    "tasks.harbor.steps": "install wait_migrated",
    "flows.machinery.backup_steps": (
        "await_no_collection image_storage dump configuration links copy_images closure drill restore_images "
        "restore_needed_images"
    ),
}
ONCE = {
    "tasks.balancer.steps": "undrain end_drain drain_others hurry listen admit",
    "tasks.docker.steps": "configure",
    "tasks.fencing.steps": "fence_by_command drain",
    "tasks.guard.steps": "install_guard accept_primary accept_running_primary",
    "tasks.harbor.steps": (
        "bind_registry share_secrets share_override migrate_from_bundled migrate_from_external rehearse_dump "
        "stop_site_harbor set_pair_aside "
        "require_empty_pair begin_adoption keep_secrets keep_settings copy_images copy_images_again refuse_writes "
        "stop_old_writers allow_writes "
        "take_down_old put_back_old note_adoption configure prepare_configuration up start_at_boot wait_healthy "
        "wait_serving bring_back complete "
        "push_and_pull found_on_standby stage start_next repoint_core repoint_by_prepare foresee restart_jobservice "
        "write_through_balancer"
    ),
    "tasks.hosts.steps": "mount_nas prove_nas",
    "tasks.operation.steps": (
        "acquire advance accept close release put_state pause unpause share_pause unshare_pause remember_primary"
    ),
    "tasks.pitr.steps": "forget create_stanza begin restore_base recover check",
    "tasks.postgres.ha_steps": (
        "stop_for_switchover prove_shutdown fence_by_ssh compensate restart_primary prove_write promote hold "
        "checkpoint ensure_slots drop_stale_slots follow clone try_reverse_path rewind lost_commits note_told "
        "relax_durability "
        "mirror_durability"
    ),
    "tasks.postgres.steps": (
        "install_archiver create_cluster configure start create_roles set_passwords create_slot copy_configuration "
        "replicate_marker"
    ),
    "flows.machinery.backup_steps": (
        "restore_databases clear_stale_state restore_secrets restore_settings restore_links require_links ask_redis "
        "empty_caches resave_schedule pull_sample stop_stray make_links note_started tell_restored"
    ),
}


def every_task() -> dict[str, Task]:  # type: ignore[type-arg]
    """Every Prefect task of the product, by the module and name under which it is made."""
    found: dict[str, Task] = {}  # type: ignore[type-arg]
    for package in (tasks, flows):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".on_node" in module.name:
                continue  # run on the nodes, and know no Prefect
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, Task):
                    found[f"{module.name}.{name}"] = value
    return found


def names(listed: dict[str, str]) -> set[str]:
    return {f"{module}.{name}" for module, text in listed.items() for name in text.split()}


def test_every_step_is_listed_as_one_that_may_be_repeated_or_must_not() -> None:
    repeated = {name for name, task in every_task().items() if task.retries}
    assert repeated == names(REPEATED)
    assert set(every_task()) - repeated == names(ONCE)


@pytest.mark.parametrize("name", sorted(names(REPEATED)))
def test_a_step_that_is_repeated_has_growing_pauses_and_a_condition(name: str) -> None:
    task = every_task()[name]
    pauses = task.retry_delay_seconds
    assert isinstance(pauses, list)
    assert len(pauses) == task.retries
    assert pauses == sorted(set(pauses))
    assert task.retry_condition_fn is not None


@pytest.mark.parametrize("name", sorted(names(ONCE)))
def test_what_must_not_be_repeated_declares_nothing(name: str) -> None:
    task = every_task()[name]
    assert (task.retries, task.retry_condition_fn) == (0, None)


def failed(stderr: str) -> RemoteCommandFailed:
    return RemoteCommandFailed("apt-get install x", "node-a", 100, stderr)


LOST, AWAY, SLOW = RemoteConnectionLost("cut"), HostUnreachable("silent"), RemoteTimeout("slow")
MIRROR = failed("E: Failed to fetch http://mirror/x.deb  Could not connect to mirror:80")
BROKEN = failed("E: Unable to locate package x")
NO_ANSWER = failed("urllib.error.URLError: <urlopen error timed out>")
NOT_THERE = failed("urllib.error.HTTPError: HTTP Error 404: Not Found")
FOR_GOOD = (
    AccessDenied("no"),
    StorageFull("full"),
    Refused("no", ["because"]),
    BROKEN,
    ValueError("a mistake"),
)


@pytest.mark.parametrize(
    ("rule", "worth", "not_worth"),
    [
        (again.PACKAGES, (AWAY, LOST, MIRROR), (SLOW, NO_ANSWER)),
        (again.IMAGES, (AWAY, LOST, NO_ANSWER), (SLOW, NOT_THERE)),
        (again.COPY, (AWAY,), (LOST, SLOW)),
        (again.BASE_BACKUP, (AWAY, RepositoryUnreachable("away")), (LOST, SLOW, RepositoryBusy("busy"))),
        (again.TRANSFER, (AWAY, LOST, SLOW, EndpointUnreachable("away")), ()),
        (again.WAIT, (AWAY, LOST), (SLOW,)),
    ],
    ids=["packages", "images", "copy", "base backup", "transfer", "wait"],
)
def test_only_what_may_pass_is_tried_again(
    rule: Again, worth: tuple[Exception, ...], not_worth: tuple[Exception, ...]
) -> None:
    assert all(rule.worth(error) for error in worth)
    assert not any(rule.worth(error) for error in (*not_worth, *FOR_GOOD))


@pytest.mark.servers
def test_prefect_repeats_a_step_that_found_the_bucket_away_and_not_one_that_was_refused(
    prefect_server: str, tmp_path: Path
) -> None:
    """As the UI shows it: by the states and the number of attempts that the server keeps."""
    site = read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)
    remember(site)
    errors = [EndpointUnreachable("away"), None, EndpointUnreachable("away"), AccessDenied("no")]

    def transfer(_: HarborSite) -> Outcome:
        error = errors.pop(0)
        if error is not None:
            raise error
        return unchanged("stored")

    quick = step(transfer, "Store something", again=Again((0, 0), again.passing))
    once = step(transfer, "Store something once")

    @flow
    def example() -> tuple[Outcome, Exception]:
        outcome = quick(site.name, [])
        with pytest.raises(AccessDenied) as denied:
            quick(site.name, [])
        errors.append(EndpointUnreachable("away"))
        with pytest.raises(EndpointUnreachable):
            once(site.name, [])
        return outcome, denied.value

    try:
        outcome, _ = example()
    finally:
        forget(site.name)
    assert outcome.detail == "stored"
    assert errors == []
    assert shown(3) == [
        ("Store something", 2, "Completed"),
        ("Store something", 2, "Failed"),
        ("Store something once", 1, "Failed"),
    ]


def shown(count: int) -> list[tuple[str, int, str]]:
    """Name, attempts and state of the steps as the server knows them; it hears of them some moments later."""
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            runs = [run for run in client.read_task_runs() if run.name.startswith("Store something")]
            if sum(run.state is not None and run.state.is_final() for run in runs) == count:
                return sorted((run.name, run.run_count, str(run.state_name)) for run in runs)
            assert time.monotonic() < deadline, runs
            time.sleep(0.2)
