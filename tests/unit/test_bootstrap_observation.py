"""What bootstrap finds out on the orchestrator itself: the bucket and the installer's file."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks import HarborSite, read_site_file
from lab.oss.server import OssServer
from tasks.docker.engine import EngineFacts
from tasks.hosts import observation
from tasks.hosts.observation import bucket_problems, installer_checksum
from tests.unit.local_oss import ACCESS_KEY_ID, ACCESS_KEY_SECRET, BUCKET, REGION, running_oss
from tests.unit.site_on_disk import NOW, correct_site


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return read_site_file(correct_site(tmp_path).write(), now=NOW)


def with_bucket(site: HarborSite, server: OssServer, **changes: Any) -> HarborSite:
    assert site.oss is not None
    wanted = {
        "endpoint": server.endpoint,
        "region": REGION,
        "bucket": BUCKET,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": SecretStr(ACCESS_KEY_SECRET),
        **changes,
    }
    return site.model_copy(update={"oss": site.oss.model_copy(update=wanted)})


def node(sha256: str | None, *, harbor: bool = True) -> Any:
    docker = EngineFacts("20.10", True, None, "1.29.2", True) if harbor else None
    return SimpleNamespace(docker=docker, harbor_sha256=sha256)


@pytest.mark.parametrize("write", [True, False], ids=["a run", "a dry run"])
def test_a_bucket_that_takes_and_gives_is_no_problem_and_is_left_empty(
    site: HarborSite, tmp_path: Path, write: bool
) -> None:
    with running_oss(tmp_path / "bucket") as server:
        good = with_bucket(site, server)
        assert bucket_problems(good, write=write) == []
        from tasks.storage.store import open_store

        assert good.oss is not None
        assert list(open_store(good.oss).list()) == []


@pytest.mark.parametrize("write", [True, False], ids=["a run", "a dry run"])
def test_a_wrong_secret_is_one_sentence_in_both(site: HarborSite, tmp_path: Path, write: bool) -> None:
    with running_oss(tmp_path / "bucket") as server:
        (said,) = bucket_problems(
            with_bucket(site, server, access_key_secret=SecretStr("wrong")), write=write
        )
    assert "AccessKey secret does not belong to the AccessKey ID" in said
    assert "wrong" not in said.split("AccessKey")[0]


def test_a_bucket_that_does_not_answer_is_told_within_seconds(site: HarborSite, tmp_path: Path) -> None:
    with running_oss(tmp_path / "bucket") as server:
        gone = with_bucket(site, server)
    (said,) = bucket_problems(gone, write=True)
    assert "->" in said


def test_a_site_without_a_bucket_has_no_problem_with_it(site: HarborSite) -> None:
    assert bucket_problems(site.model_copy(update={"oss": None}), write=True) == []


def test_the_installer_is_hashed_only_where_a_node_needs_it(
    site: HarborSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hashlib.sha256(b"installer").hexdigest()
    here = site.harbor.model_copy(update={"installer": str(tmp_path / "harbor.tgz"), "sha256": "a" * 64})
    site = site.model_copy(update={"harbor": here})
    assert installer_checksum(site, [node(None), node("a" * 64)]) == found

    def unread(*_: object) -> str:
        raise AssertionError("hundreds of megabytes were read for nothing")

    monkeypatch.setattr(observation.hashlib, "file_digest", unread)
    assert installer_checksum(site, [node("a" * 64), node(None, harbor=False)]) is None


def test_an_installer_that_is_not_there_is_told_from_one_that_is_not_needed(site: HarborSite) -> None:
    gone = site.harbor.model_copy(update={"installer": "/nowhere/harbor.tgz"})
    assert installer_checksum(site.model_copy(update={"harbor": gone}), [node(None)]) == ""
    remote = site.harbor.model_copy(update={"installer": "https://example.com/harbor.tgz"})
    assert installer_checksum(site.model_copy(update={"harbor": remote}), [node(None)]) is None
