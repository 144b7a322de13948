"""What of an old Harbor is adopted, and everything that is refused before the first change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from flows.rules.take_over import TAKE_OVER_CHECKS, TakeOverView, take_over_objections, view_of_old
from flows.rules.take_over_plan import (
    COPY_BYTES_S,
    COPY_FILES_S,
    DATABASE_BYTES_S,
    LOOK_FILES_S,
    START_S,
    forecast,
    how_long,
    minutes,
    what_becomes_of,
)
from tasks.harbor.adoption import OldHarbor
from tasks.harbor.found import HarborFound
from tests.unit.harbor_site import make_site
from tests.unit.test_preflight_rule import PRIMARY, node

FOUND = HarborFound(
    directory="/usr/local/harbor",
    runs=True,
    version="2.5.6",
    services=("core", "postgresql", "registry"),
    data_volume="/data",
    images_at="/data/registry",
    database_at="/data/database",
    external_url="https://old.example.com",
    blobs=1000,
    blob_bytes=30_000_000_000,
    units=("harbor.service",),
)
OLD = OldHarbor(
    "node-a",
    FOUND,
    project="harbor",
    database_major=13,
    database_bytes=54_000_000,
    secrets={"secretkey": "a", "private_key.pem": "b", "root.crt": "c"},
    links=5000,
    nas_free=100_000_000_000,
)


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(tmp_path, version="v2.9.5", install_dir="/opt/harbor", data_volume="/data/harbor")


def view(site: HarborSite, found: dict[str, Any], old: dict[str, Any], **nodes: Any) -> TakeOverView:
    changed = replace(OLD, found=replace(FOUND, **found), **old)
    return view_of_old(site, changed, [node("node-a", **nodes), node("node-b")])


# By hand, so that a rule that is removed is missed.
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("directory unknown", {"directory": ""}, {}, {}),
    ("directory unknown", {}, {"compose_file": False}, {}),
    ("directory unknown", {}, {"labelled": False}, {}),
    ("same directory", {"directory": "/opt/harbor"}, {}, {}),
    ("same data volume", {"data_volume": "/data/harbor/"}, {}, {}),
    ("same data volume", {"data_volume": None}, {}, {}),
    ("not running", {"runs": False}, {}, {}),
    ("external database", {"database_host": "10.9.9.9"}, {}, {}),
    ("object store", {"storage": "s3", "images_at": None}, {}, {}),
    ("images unknown", {"images_at": None}, {}, {}),
    ("too old", {"version": "2.2.4"}, {}, {}),
    ("too old", {"version": ""}, {}, {}),
    ("newer", {"version": "2.12.4"}, {}, {}),
    ("parts not moved", {"services": ("core", "notary-server")}, {}, {}),
    ("parts not moved", {"services": ("core", "chartmuseum")}, {}, {}),
    ("without trivy", {"services": ("core", "trivy-adapter")}, {}, {}),
    ("login", {}, {"login": 401}, {}),
    ("login", {}, {"login": 0}, {}),
    ("read-only", {}, {"read_only": True}, {}),
    ("database silent", {}, {"database_major": None}, {}),
    ("database newer", {}, {"database_major": 18}, {}),
    ("secrets missing", {}, {"secrets": {"secretkey": None}}, {}),
    ("other secretkey", {}, {}, {"secretkey": "abc"}),
    ("site has data", {}, {}, {"database": PRIMARY}),
    ("NAS has images", {}, {"nas_images": True}, {}),
    ("NAS full", {}, {"nas_free": 29_000_000_000}, {}),
    ("put back", {"adoption": "returned"}, {}, {}),
]


@pytest.mark.parametrize(("name", "found", "old", "nodes"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_adopted_is_refused_with_its_one_reason_and_a_remedy(
    name: str, found: dict[str, Any], old: dict[str, Any], nodes: dict[str, Any], site: HarborSite
) -> None:
    seen = view(site, found, old, **nodes)
    assert [check.name for check in TAKE_OVER_CHECKS if check.violated(seen)] == [name]
    (reason,) = take_over_objections(seen)
    assert reason.startswith("node-a: ")
    assert " -> " in reason
    assert "{" not in reason


def test_every_rule_has_its_case() -> None:
    assert {check.name for check in TAKE_OVER_CHECKS} == {row[0] for row in REFUSED}


@pytest.mark.parametrize(
    ("found", "old", "nodes"),
    [
        ({}, {}, {}),
        ({"data_volume": "/srv/old/"}, {}, {}),
        ({"images_at": "/mnt/nas/registry"}, {"nas_images": True, "nas_free": 0}, {}),
        ({}, {"nas_free": None}, {}),
        # Where a run was killed, its own traces are no objections.
        (
            {"adoption": "copying"},
            {"nas_images": True, "nas_free": 1},
            {"secretkey": "a", "database": PRIMARY},
        ),
        ({"adoption": "moving", "runs": False}, {"login": 0, "nas_images": True}, {"database": PRIMARY}),
        (
            {"adoption": "moved", "runs": False},
            {"login": 0, "database_major": None, "nas_images": True},
            {"database": PRIMARY},
        ),
    ],
    ids=str,
)
def test_what_can_be_adopted_or_gone_on_with_has_no_objection(
    found: dict[str, Any], old: dict[str, Any], nodes: dict[str, Any], site: HarborSite
) -> None:
    site.nas.path = "/mnt/nas"
    assert [*take_over_objections(view(site, found, old, **nodes))] == []


def test_trivy_may_run_where_the_site_file_names_it(tmp_path: Path) -> None:
    site = make_site(
        tmp_path,
        version="v2.9.5",
        install_dir="/opt/harbor",
        data_volume="/data/harbor",
        components=["trivy"],
    )
    assert [*take_over_objections(view(site, {"services": ("core", "trivy-adapter")}, {}))] == []


def test_what_is_wrong_with_its_files_is_refused_too(site: HarborSite) -> None:
    (reason,) = take_over_objections(view(site, {"settings": ("harbor.yml: internal_tls is enabled",)}, {}))
    assert reason == "node-a: harbor.yml: internal_tls is enabled -> correct it"


def test_the_forecast_is_made_of_sizes_and_named_rates() -> None:
    seen = forecast(OLD)
    one_pass = 6000 / LOOK_FILES_S
    assert seen.serving == pytest.approx(30e9 / COPY_BYTES_S + 6000 / COPY_FILES_S)
    assert seen.read_only == pytest.approx(one_pass)
    assert seen.down == pytest.approx(one_pass + 54e6 / DATABASE_BYTES_S + START_S)


def test_a_forecast_says_where_its_rates_are_from_and_that_it_is_a_least_when_not_all_was_counted() -> None:
    assert "docs/adopt.md" in how_long(OLD)[-1]
    assert not any("at the least" in line for line in how_long(OLD))
    cut = replace(OLD, found=replace(FOUND, blobs_whole=False))
    assert all("at the least" in line for line in how_long(cut)[:3])
    assert (minutes(3), minutes(600)) == ("less than a minute", "10 min")


def test_the_dry_run_says_what_becomes_of_each_part(site: HarborSite) -> None:
    text = "\n".join(what_becomes_of(site, OLD))
    for word in (
        "Harbor 2.5.6 in /usr/local/harbor on node-a",
        "54 MB of PostgreSQL 13 out of harbor-db",
        "1,000 blobs of 30.0 GB from /data/registry",
        "/data/secret to /data/harbor/secret",
        "https://old.example.com today",
        "harbor.service is disabled",
        "stays: /data and /usr/local/harbor",
    ):
        assert word in text
