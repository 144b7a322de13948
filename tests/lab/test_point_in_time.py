"""A mistake at noon, and the loss of everything: a bare machine becomes Harbor as it was before the mistake."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import HarborSite
from blocks.site_file import read_site_file
from lab.faults.processes import Run
from lab.faults.stage import Stage, wait_for
from lab.site_lab import Lab
from tasks.backup.settings import store_of
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Image, Registry, make_image
from tasks.harbor.web import Session, through_balancer, through_node
from tasks.pitr.catalogue import reach_of
from tasks.pitr.settings import PATHS

TARGET = "node-c"
PROJECT = "noon"
REPOSITORY = f"{PROJECT}/app"


@pytest.fixture
def stage(standing_lab: Lab) -> Iterator[Stage]:
    """A site that nobody will see again. The nodes are bare afterwards."""
    made = Stage(standing_lab)
    standing_lab.recreate(TARGET)
    made.open()
    yield made
    made.close()
    standing_lab.recreate("node-a", "node-b", TARGET)
    standing_lab.empty_shared()


def push(stage: Stage, tag: str) -> Image:
    """Push an image through the load balancer."""
    image, endpoint = make_image(tag.encode()), through_balancer(stage.site)
    with HarborApi(endpoint) as api:
        api.ensure_project(PROJECT)
    with Registry(endpoint) as registry:
        registry.push(REPOSITORY, tag, image)
    return image


def delete_everything(stage: Stage) -> None:
    """The mistake: somebody deletes the project."""
    endpoint = through_balancer(stage.site)
    with HarborApi(endpoint) as api:
        assert api.delete_repository(PROJECT, "app")
    session = Session(endpoint, 15)
    try:
        answer = session.request("DELETE", f"/api/v2.0/projects/{PROJECT}", headers=endpoint.authorization())
        assert answer.status == 200, answer.body
    finally:
        session.close()


def clock(stage: Stage) -> datetime:
    """The primary's clock."""
    text = stage.value(stage.primary, "SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ship(stage: Stage) -> None:
    """Commit something, close the segment and wait until it is in the bucket."""
    primary = stage.primary
    stage.execute(primary, "CREATE TABLE IF NOT EXISTS ship (x int); INSERT INTO ship VALUES (1)", "postgres")
    name = stage.value(primary, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    stage.execute(primary, "SELECT pg_switch_wal()")
    archived = "SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver"
    wait_for(lambda: stage.value(primary, archived) >= name, 120, "the segment does not arrive")


def site_with(stage: Stage, directory: Path, nodes: dict[str, Any], wal_archive: str = "oss") -> HarborSite:
    """Save the site with other nodes, its WAL in the bucket unless told not to."""
    document = yaml.safe_load(stage.lab.site_file.read_text()) | {"nodes": nodes}
    document["backup"]["wal_archive"] = wal_archive
    file = directory / "site.yml"
    file.write_text(yaml.safe_dump(document))
    stage.nursery.call("apply", "lab.faults.stage:apply", site_file=str(file)).result  # noqa: B018
    return read_site_file(file)


@dataclass(frozen=True)
class Noon:
    """A day's story: an image of the morning, one of noon, and the moment before both were deleted."""

    early: Image
    late: Image
    moment: datetime
    first: datetime


def live_through_it(stage: Stage) -> Noon:
    """Back up, push, and let somebody delete everything."""
    stage.configure(backup__wal_archive="oss")
    stage.flow("bootstrap").wait(600).result  # noqa: B018
    again = stage.flow("bootstrap").wait(300).result
    assert again["changed"] == 0, again["report"]

    early = push(stage, "early")
    night = stage.flow("nightly_backup").wait(300).result
    assert "no base backup of this database" in night["report"]
    assert "is complete" in stage.flow("base_backup").wait(300).headline
    first = reach_of(store_of(stage.site), stage.name)[-1].first

    # The roles change between base backup and mistake: the new primary continues on its own timeline.
    before = stage.primary
    stage.flow("switchover", to=stage.standby).wait(120).result  # noqa: B018
    assert stage.primary != before
    late = push(stage, "late")
    moment = clock(stage)
    delete_everything(stage)
    # The bucket tells times in whole seconds: WAL of the moment's own second does not show that it got past it.
    wait_for(lambda: clock(stage) > moment + timedelta(seconds=1), 5, "the clock stands still")
    ship(stage)
    return Noon(early, late, moment, first)


def lose_both_nodes(stage: Stage, directory: Path) -> HarborSite:
    """Switch the pair off, and save the site as the bare machine alone."""
    for node in ("node-a", "node-b"):
        stage.lab.stop(node)
    return site_with(stage, directory, disaster_nodes(stage))


def disaster_nodes(stage: Stage) -> dict[str, Any]:
    """The bare machine, as the site file names it."""
    file = stage.lab.topology.directory / "site-disaster.yml"
    nodes: dict[str, Any] = yaml.safe_load(file.read_text())["nodes"]
    return nodes


def restore(stage: Stage, images: str, to_time: datetime, accident: dict[str, Any] | None = None) -> Run:
    """Restore the bare machine to a time, or try to."""
    identity = str(stage.lab.topology.secrets / "age-identity")
    given = {"target": TARGET, "images": images, "identity_file": identity, "to_time": to_time.isoformat()}
    return stage.flow("disaster_restore", accident, **given).wait(900)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_with_the_nas_alive_no_image_is_lost(stage: Stage, tmp_path: Path) -> None:
    noon = live_through_it(stage)
    site = lose_both_nodes(stage, tmp_path)
    done = restore(stage, "nas", noon.moment)
    assert f"as of {noon.moment.isoformat()}" in done.headline
    assert "Images that are lost" not in done.result["report"]
    with Registry(through_node(site, TARGET)) as registry:
        for image in (noon.early, noon.late):
            assert registry.pull(REPOSITORY, image.digest).manifest == image.manifest


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_back_to_the_moment_before_a_mistake_after_the_loss_of_everything(
    stage: Stage, tmp_path: Path
) -> None:
    noon = live_through_it(stage)
    site = lose_both_nodes(stage, tmp_path)
    stage.lab.exec(TARGET, ["find", "/mnt/nas", "-mindepth", "1", "-delete"], timeout=120)

    for wrong, said in (
        (noon.moment.replace(tzinfo=None), "has no time zone"),
        (noon.moment + timedelta(days=1), "has not come yet"),
        (noon.first - timedelta(hours=1), "before the oldest base backup"),
    ):
        run = restore(stage, "oss", wrong)
        assert said in run.refusal
        assert run.titles() == []

    # Killed once behind the base backup, then run to its end.
    assert restore(stage, "oss", noon.moment, {"title": "Restore the base backup"}).killed()
    done = restore(stage, "oss", noon.moment)
    assert f"as of {noon.moment.isoformat()}" in done.headline
    report = done.result["report"]

    endpoint = through_node(site, TARGET)
    with HarborApi(endpoint) as api:
        assert PROJECT in api.projects()
    with Registry(endpoint) as registry:
        assert registry.pull(REPOSITORY, noon.early.digest).manifest == noon.early.manifest
    # Pushed after the last night, and the NAS is gone: the database knows it, nobody has it, and that is said.
    assert f"{REPOSITORY}:late" in report
    assert f"{REPOSITORY}:early" not in report
    assert noon.late.digest != noon.early.digest

    again = restore(stage, "oss", noon.moment).result
    assert again["changed"] == 0, again["report"]
    grow_again(stage, tmp_path)


def grow_again(stage: Stage, directory: Path) -> None:
    """A second node, a base backup of the new timeline; and then the bucket no more."""
    stage.lab.recreate("node-a", "node-b")
    pair = yaml.safe_load(stage.lab.site_file.read_text())["nodes"]
    nodes = disaster_nodes(stage) | {"node-a": pair["node-a"]}
    site_with(stage, directory, nodes)
    stage.flow("bootstrap").wait(900).result  # noqa: B018
    assert "is complete" in stage.flow("base_backup").wait(300).headline

    # Switched off, nothing on the nodes leads into the bucket any more.
    site_with(stage, directory, nodes, wal_archive="disk")
    stage.flow("bootstrap").wait(300).result  # noqa: B018
    for node in (TARGET, "node-a"):
        assert stage.shell(node, f"ls {PATHS.config} 2>/dev/null || true") == ""
