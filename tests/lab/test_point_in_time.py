"""A mistake at noon, and the loss of everything: a bare machine becomes Harbor as it was before the mistake."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import HarborSite
from blocks.site_file import read_site_file
from lab.site_lab import Lab
from tasks.backup.settings import store_of
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Image, Registry, make_image
from tasks.harbor.web import Session, through_balancer, through_node
from tasks.pitr.catalogue import reach_of
from tasks.pitr.settings import PATHS
from tests.lab.faults.stage import Stage, wait_for

TARGET = "node-c"
PROJECT = "noon"
REPOSITORY = f"{PROJECT}/app"


@pytest.fixture(scope="module")
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
    stage.nursery.call("apply", "tests.lab.faults.stage:apply", site_file=str(file)).result  # noqa: B018
    return read_site_file(file)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_back_to_the_moment_before_a_mistake_after_the_loss_of_everything(
    stage: Stage, tmp_path: Path
) -> None:
    stage.configure(backup__wal_archive="oss")
    stage.flow("bootstrap").wait(600).result  # noqa: B018
    again = stage.flow("bootstrap").wait(300).result
    assert again["changed"] == 0, again["report"]

    early = push(stage, "early")
    night = stage.flow("nightly_backup").wait(300).result
    assert "no base backup of this database" in night["report"]
    assert "is complete" in stage.flow("base_backup").wait(300).headline
    base = reach_of(store_of(stage.site), stage.name)[-1].first

    # The roles change between base backup and mistake: the new primary continues on its own timeline.
    before = stage.primary
    stage.flow("switchover", to=stage.standby).wait(120).result  # noqa: B018
    assert stage.primary != before
    late = push(stage, "late")
    moment = clock(stage)
    delete_everything(stage)
    ship(stage)

    # Both nodes and the NAS are gone.
    for node in ("node-a", "node-b"):
        stage.lab.stop(node)
    stage.lab.exec(TARGET, ["find", "/mnt/nas", "-mindepth", "1", "-delete"], timeout=120)
    disaster = yaml.safe_load((stage.lab.topology.directory / "site-disaster.yml").read_text())["nodes"]
    site = site_with(stage, tmp_path, disaster)

    identity = str(stage.lab.topology.secrets / "age-identity")
    parameters = {"target": TARGET, "images": "oss", "identity_file": identity}
    for wrong, said in (
        (moment.replace(tzinfo=None), "has no time zone"),
        (moment + timedelta(days=1), "has not come yet"),
        (base - timedelta(hours=1), "before the oldest base backup"),
    ):
        run = stage.flow("disaster_restore", **parameters, to_time=wrong.isoformat()).wait(120)
        assert said in run.refusal
        assert run.titles() == []

    # Killed once behind the base backup, then run to its end.
    parameters["to_time"] = moment.isoformat()
    accident = {"title": "Restore the base backup"}
    assert stage.flow("disaster_restore", accident, **parameters).wait(900).killed()
    done = stage.flow("disaster_restore", **parameters).wait(900)
    assert f"as of {moment.isoformat()}" in done.headline
    report = done.result["report"]

    endpoint = through_node(site, TARGET)
    with HarborApi(endpoint) as api:
        assert PROJECT in api.projects()
    with Registry(endpoint) as registry:
        assert registry.pull(REPOSITORY, early.digest).manifest == early.manifest
    # Pushed after the last night, and the NAS is gone: the database knows it, nobody has it, and that is said.
    assert f"{REPOSITORY}:late" in report
    assert f"{REPOSITORY}:early" not in report
    assert late.digest != early.digest

    again = stage.flow("disaster_restore", **parameters).wait(300).result
    assert again["changed"] == 0, again["report"]

    # The site grows again, and its new timeline has a base backup of its own.
    stage.lab.recreate("node-a", "node-b")
    pair = yaml.safe_load(stage.lab.site_file.read_text())["nodes"]
    site_with(stage, tmp_path, disaster | {"node-a": pair["node-a"]})
    stage.flow("bootstrap").wait(900).result  # noqa: B018
    assert "is complete" in stage.flow("base_backup").wait(300).headline

    # Switched off, nothing on the nodes leads into the bucket any more.
    site_with(stage, tmp_path, disaster | {"node-a": pair["node-a"]}, wal_archive="disk")
    stage.flow("bootstrap").wait(300).result  # noqa: B018
    for node in (TARGET, "node-a"):
        assert stage.shell(node, f"ls {PATHS.config} 2>/dev/null || true") == ""
