"""The loss of both nodes and of the NAS: a third, bare machine becomes Harbor again from the bucket alone."""

from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
import yaml

from blocks import HarborSite
from blocks.site_file import read_site_file
from lab.faults.stage import Stage, wait_for
from lab.site_lab import Lab
from tasks.backup.night.snapshot import COUNTS
from tasks.backup.restore.served import pull_sample
from tasks.backup.server import query, server_of
from tasks.hosts.connection import Host, connect
from tasks.postgres.layout import layout_of
from tests.lab.faults.bucket import Bucket
from tests.lab.faults.many_images import add_blobs

TARGET = "node-c"


@pytest.fixture(scope="module")
def stage(standing_lab: Lab) -> Iterator[Stage]:
    """A site with thousands of blobs that nobody will see again. The nodes are bare afterwards."""
    made = Stage(standing_lab)
    standing_lab.recreate(TARGET)
    made.open()
    yield made
    made.close()
    standing_lab.recreate("node-a", "node-b", TARGET)
    standing_lab.empty_shared()


def apply(stage: Stage, site_file: Path) -> HarborSite:
    """Save a site as the operator does, and return it."""
    stage.nursery.call("apply", "lab.faults.stage:apply", site_file=str(site_file)).result  # noqa: B018
    return read_site_file(site_file)


def rows_of(host: Host, site: HarborSite) -> dict[str, int]:
    """The exact number of rows of every table of Harbor's database."""
    found = query(host, server_of(layout_of(site)), site.postgres.database, COUNTS, timeout=300)
    return {table: int(rows) for table, rows in found}


def listing(stage: Stage, node: str) -> set[str]:
    """The blobs on the NAS, with their sizes."""
    root = f"{stage.site.nas.path}/registry/docker/registry/v2/blobs"
    script = f"cd {root} && find . -name data -size +0 -printf '%P %s\\n'"
    return set(stage.lab.exec(node, ["bash", "-c", script], timeout=120).stdout.splitlines())


def backed_up(stage: Stage, node: str) -> set[str]:
    """Of the blobs on the NAS those that the database knows.

    A push whose rows were lost by a failover leaves its blobs behind; nobody can pull them, and no backup has them.
    """
    rows = stage.execute(node, "SELECT digest FROM blob", stage.site.postgres.database)
    known = {row[0].removeprefix("sha256:") for row in rows}
    return {line for line in listing(stage, node) if line.split("/")[2] in known}


def identity(stage: Stage) -> str:
    """The file with the age identity of the lab."""
    return str(stage.lab.topology.directory / "secrets" / "age-identity")


@pytest.mark.timeout(1500)
def test_from_the_loss_of_everything_to_a_pair_again(stage: Stage, tmp_path: Path) -> None:
    add_blobs(stage, 2000, "disaster", 100_000)
    stage.flow("nightly_backup").wait(300).result  # noqa: B018
    bucket = Bucket(stage)
    manifest = bucket.newest()
    assert manifest.has_images
    blobs = backed_up(stage, stage.primary)
    assert len(blobs) >= 2000
    lost = stage.site

    # While the site lives, nothing is restored over it.
    disaster_file = stage.lab.topology.directory / "site-disaster.yml"
    both = yaml.safe_load(stage.lab.site_file.read_text())
    both["nodes"] |= yaml.safe_load(disaster_file.read_text())["nodes"]
    alive_file = tmp_path / "alive.yml"
    alive_file.write_text(yaml.safe_dump(both))
    apply(stage, alive_file)
    parameters = {"target": TARGET, "images": "oss", "identity_file": identity(stage)}
    assert "the site is not lost" in stage.flow("disaster_restore", **parameters).wait(300).refusal

    # Both nodes and the NAS are gone.
    for node in ("node-a", "node-b"):
        stage.lab.stop(node)
    stage.lab.exec(TARGET, ["find", "/mnt/nas", "-mindepth", "1", "-delete"], timeout=120)
    site = apply(stage, disaster_file)

    # The wrong identity is found before anything is changed.
    wrong = {**parameters, "identity_file": wrong_identity(tmp_path)}
    run = stage.flow("disaster_restore", **wrong).wait(300)
    assert "another identity" in run.refusal
    assert run.titles() == ["Look for signs of life of the site"], "it did more than look"

    # Killed once in the middle of the images, then run to its end.
    accident = {"title": "Restore the links"}
    assert stage.flow("disaster_restore", accident, **parameters).wait(900).killed()
    done = stage.flow("disaster_restore", **parameters).wait(900)
    assert f"is back on {TARGET}" in done.headline

    host = connect(site.node(TARGET))
    wanted = manifest.database(lost.postgres.database).tables
    found = rows_of(host, site)
    # The proof of the restore is itself a push; what was there before is there again, row by row.
    assert {table: rows for table, rows in found.items() if rows < wanted.get(table, 0)} == {}
    assert found["public.generated_rows"] == wanted["public.generated_rows"]
    assert blobs <= listing(stage, TARGET)
    assert pull_sample(site, host, count=30, seed=7).data["artifacts"] > 0

    # Run again, it changes nothing.
    again = stage.flow("disaster_restore", **parameters).wait(300).result
    assert again["changed"] == 0, again["report"]

    # The site grows again: the restored node is the primary, a new machine its standby.
    stage.lab.recreate("node-a", "node-b")
    grown = yaml.safe_load(disaster_file.read_text())
    grown["nodes"]["node-a"] = both["nodes"]["node-a"]
    grown_file = tmp_path / "grown.yml"
    grown_file.write_text(yaml.safe_dump(grown))
    site = apply(stage, grown_file)
    stage.flow("bootstrap").wait(900).result  # noqa: B018
    standby = connect(site.node("node-a"))
    wait_for(lambda: rows_of(standby, site) == rows_of(host, site), 60, "the standby has other rows")
    stage.flow("nightly_backup").wait(300).result  # noqa: B018
    assert bucket.newest().source.node == "node-a"


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_with_the_nas_alive_only_what_it_lacks_comes_from_the_bucket(stage: Stage) -> None:
    """The machines of the test before are lost in their turn, and the NAS with two damaged blobs is not."""
    disaster_file = stage.lab.topology.directory / "site-disaster.yml"
    blobs = listing(stage, TARGET)
    stage.lab.recreate("node-a", "node-b", TARGET)
    root = f"{stage.site.nas.path}/registry/docker/registry/v2/blobs"
    some = f"files=($(find {root} -name data -size +1k | sort | head -2))"
    stage.shell(TARGET, f"set -e; {some}; rm ${{files[0]}}; truncate -s 7 ${{files[1]}}")
    assert len(blobs - listing(stage, TARGET)) == 2
    site = apply(stage, disaster_file)

    parameters = {"target": TARGET, "images": "nas", "identity_file": identity(stage)}
    done = stage.flow("disaster_restore", **parameters).wait(600)

    assert f"is back on {TARGET}" in done.headline
    assert "Restore the links" not in done.titles()
    (restored,) = [record for record in done.records() if record["title"] == "Restore images"]
    assert ", 2 restored, " in restored["detail"]
    assert blobs <= listing(stage, TARGET)
    assert pull_sample(site, connect(site.node(TARGET)), count=30, seed=8).data["artifacts"] > 0


def wrong_identity(directory: Path) -> str:
    """An age identity that opens nothing here."""
    file = directory / "wrong-identity"
    file.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    file.chmod(0o600)
    return str(file)
