"""What a night finds around it: where this Harbor keeps its images, and what the bucket is like."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.machinery.backup_report import bucket_lines
from lab.oss.server import OssServer
from tasks.backup.night.configuration import ConfigurationIncomplete
from tasks.backup.server import Server
from tasks.errors import Refused
from tests.unit.local_oss import running_oss
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.one_night import Night, back_up, bucket_of, new_night

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "bucket") as running:
        yield running


@pytest.fixture
def night(tmp_path: Path, oss: OssServer, server: Server) -> Iterator[Night]:
    made = new_night(tmp_path, oss.endpoint, server)
    yield made
    made._sql("TRUNCATE blob, artifact_blob, artifact CASCADE;")


@pytest.mark.parametrize("driver", ["s3", "oss", "azure", "gcs", "swift"])
def test_images_in_an_object_store_of_harbors_own_are_refused_before_anything_is_done(
    night: Night, oss: OssServer, driver: str
) -> None:
    """Such a night was complete with none of its images: the NAS is empty, and so was the list of what it lacks."""
    harbor_yml = night.site_file.parent / "harbor/harbor.yml"
    harbor_yml.write_text(
        f"storage_service:\n  ca_bundle:\n  {driver}:\n    bucket: images\n    secretkey: secret-of-a-bucket\n"
    )
    with pytest.raises(Refused, match=f"storage_service.{driver}") as refused:
        back_up(night)
    assert "secret-of-a-bucket" not in str(refused.value)
    assert list(bucket_of(night, oss).list("backups/")) == []


@pytest.mark.parametrize("text", ["a: b: c: secret-of-a-file", "- a list", "storage_service: [s3]"])
def test_a_harbor_yml_that_cannot_be_read_is_said_and_not_quoted(night: Night, text: str) -> None:
    harbor_yml = night.site_file.parent / "harbor/harbor.yml"
    harbor_yml.write_text(text)
    with pytest.raises(ConfigurationIncomplete, match=r"harbor\.yml") as failed:
        back_up(night)
    assert "secret-of-a-file" not in str(failed.value)


def test_the_file_system_by_name_is_what_a_backup_expects(night: Night) -> None:
    harbor_yml = night.site_file.parent / "harbor/harbor.yml"
    harbor_yml.write_text(
        "storage_service:\n  filesystem:\n    maxthreads: 100\n  redirect:\n    disabled: true\n"
    )
    night.push("library/app")
    blobs = back_up(night)[0].blobs
    assert blobs is not None
    assert blobs.referenced == 1


def test_the_report_says_what_the_bucket_is_like(night: Night, oss: OssServer) -> None:
    oss.store.catalog.set_setting(
        "versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    )
    _, run = back_up(night)
    assert any("versioned" in line for line in run.sections["Bucket"])
    assert any("AbortMultipartUpload" in line for line in run.sections["Bucket"])


def test_a_bucket_that_cannot_be_asked_in_the_end_costs_no_backup(night: Night, oss: OssServer) -> None:
    store = bucket_of(night, oss)
    oss.fail("error", operation="GetBucket.*", code="InternalError", times=-1)
    assert ["could not be asked" in line for line in bucket_lines(store)] == [True]
