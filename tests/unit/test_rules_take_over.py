"""What of an old Harbor is adopted, and everything that is refused before the first change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from flows.rules.take_over import TAKE_OVER_CHECKS, TakeOverView, take_over_objections, view_of_old
from flows.rules.take_over_external import EXTERNAL_CHECKS, external_view_of
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
from tasks.harbor.external_database import ExternalSeen
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


def external(seen: ExternalSeen) -> OldHarbor:
    """The old Harbor with its database on a server elsewhere."""
    found = replace(FOUND, database_host=seen.address.partition(":")[0], database_at=None)
    return replace(OLD, found=found, database_major=seen.major, database_bytes=seen.bytes, external=seen)


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
    ("being put back", {"adoption": "returning", "adoption_was": "moved", "runs": False}, {}, {}),
    ("put back", {"adoption": "returned"}, {}, {}),
    ("put back", {"adoption": "returned", "adoption_was": "moved"}, {}, {}),
    ("put back", {"adoption": "returned", "adoption_was": "done"}, {}, {"database": PRIMARY}),
    ("not running", {"adoption": "returned", "adoption_was": "moving", "runs": False}, {}, {}),
    ("read-only", {"adoption": "returned", "adoption_was": "moving"}, {"read_only": True}, {}),
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
        # Put back before the site's Harbor had started: the pair holds a copy at the most.
        ({"adoption": "returned", "adoption_was": "moving"}, {"nas_images": True}, {"database": PRIMARY}),
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


def test_a_pair_that_served_is_set_aside_when_somebody_says_so_and_the_dry_run_tells_what_is_renamed(
    site: HarborSite,
) -> None:
    old = replace(OLD, found=replace(FOUND, adoption="returned", adoption_was="done"))
    nodes = [node("node-a", database=PRIMARY), node("node-b")]
    assert [*take_over_objections(view_of_old(site, old, nodes, set_aside=True))] == []
    assert any("registry is renamed to registry_aside_" in line for line in what_becomes_of(site, old))


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


EXTERNAL = ExternalSeen(
    address="db.example.com:5432",
    name="registry",
    user="harbor",
    ssl_mode="require",
    version_num=150004,
    bytes=54_000_000,
)
EXTERNAL_REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("external database incomplete", {"incomplete": ("password",), "version_num": None}),
    (
        "external database ambiguous",
        {"differs": ("host is a in core and b in harbor.yml",), "version_num": None},
    ),
    ("external database silent", {"silent": "Connection refused", "version_num": None}),
    ("external database too old", {"version_num": 90524}),
    ("external database newer", {"version_num": 160001}),
    ("external database a standby", {"standby": True}),
    ("external database empty", {"empty": True}),
    ("external database with schemas", {"schemas": ("shop",)}),
    ("external database unreadable", {"unreadable": ("public.tag",)}),
    ("external database with extensions", {"extensions": ("pg_trgm",)}),
    ("external database shared", {"others": ("10.9.9.9",)}),
]


@pytest.mark.parametrize(("name", "changes"), EXTERNAL_REFUSED, ids=lambda value: str(value)[:40])
def test_an_external_database_that_cannot_be_dumped_is_refused_with_its_one_reason_and_a_remedy(
    name: str, changes: dict[str, Any], site: HarborSite
) -> None:
    old = external(replace(EXTERNAL, **changes))
    judged = external_view_of(site, old)
    assert judged is not None
    assert [check.name for check in EXTERNAL_CHECKS if check.violated(judged)] == [name]
    (reason,) = take_over_objections(view_of_old(site, old, [node("node-a")]), judged)
    assert reason.startswith("node-a: ")
    assert " -> " in reason
    assert "{" not in reason


def test_every_rule_on_external_databases_has_its_case_and_a_sound_one_has_no_objection(
    site: HarborSite,
) -> None:
    assert {check.name for check in EXTERNAL_CHECKS} == {name for name, _ in EXTERNAL_REFUSED}
    old = external(EXTERNAL)
    judged = external_view_of(site, old)
    assert [*take_over_objections(view_of_old(site, old, [node("node-a")]), judged)] == []
    text = "\n".join(what_becomes_of(site, old))
    for word in ("registry of harbor at db.example.com:5432", "TLS require", "PostgreSQL 15.4", "54 MB"):
        assert word in text
    assert "harbor-db" not in text


def test_the_version_of_a_server_is_written_as_people_write_it(site: HarborSite) -> None:
    shown = []
    for number in (90624, 130011, 150004):
        judged = external_view_of(site, external(replace(EXTERNAL, version_num=number)))
        shown.append(judged.version if judged else "")
    assert shown == ["9.6", "13.11", "15.4"]


def test_once_its_rows_are_in_the_pair_the_external_server_is_not_asked_for(site: HarborSite) -> None:
    old = replace(external(EXTERNAL), external=None)
    assert external_view_of(site, old) is None
    assert any("its rows are in the pair already" in line for line in what_becomes_of(site, old))
