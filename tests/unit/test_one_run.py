"""Looks by schedule do not pile up, and one site does not wait for another."""

import fcntl
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.machinery.ending import ends_named
from flows.machinery.one_run import one_run_a_site

pytestmark = pytest.mark.servers


def looked(site: str) -> dict[str, Any]:
    return {"state": "Healthy", "headline": f"{site} is HEALTHY."}


look = flow(name="looked")(ends_named(one_run_a_site(looked)))


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str) -> Path:
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path))
    return tmp_path / "locks"


def test_while_one_is_at_work_the_next_of_that_site_does_nothing_and_another_site_is_looked_at(
    locks: Path,
) -> None:
    assert look("main")["state"] == "Healthy"
    with (locks / "looked-main").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert look("main")["state"] == "Nothing to do"
        assert look("other")["state"] == "Healthy"
    assert look("main")["state"] == "Healthy", "it ends with whoever held it"


def test_a_name_that_is_none_leads_out_of_no_directory(locks: Path) -> None:
    assert look("../../main")["state"] == "Healthy"
    assert [path.name for path in locks.iterdir()] == ["looked-..%2F..%2Fmain"]
