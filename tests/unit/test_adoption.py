"""The steps of an adoption as the orchestrator calls them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from blocks import HarborSite
from flows.rules.adoption import adoption_objections
from flows.rules.preflight import plan_bootstrap
from tasks.errors import HarborHaError, Refused
from tasks.harbor import adoption, secrets
from tasks.harbor.secrets import SecretsDiffer
from tasks.hosts.connection import Host
from tasks.hosts.observation import SiteSeen
from tasks.hosts.preflight import DatabaseSeen
from tests.unit.harbor_site import NodeInDirectory, make_site
from tests.unit.site_on_disk import NOW
from tests.unit.test_preflight_rule import node
from tests.unit.test_rules_take_over import FOUND

NOTED = {"directory": "/usr/local/harbor", "data_volume": "/data", "images_at": "/data/registry"}
PASS = {"copied": 0, "there": 9, "gone": 0, "damaged": 0, "bytes": 0, "blobs": 9, "whole": True, "named": []}


class Answers:
    """A node that answers what a script says, by what it is asked for."""

    name = "node-a"

    def __init__(self, *passes: dict[str, Any], noted: dict[str, Any] = NOTED) -> None:
        self.passes = [PASS | {"seconds": 1.0} | answer for answer in passes]
        self.noted = noted
        self.copies: list[dict[str, Any]] = []

    def python(self, source: str, given: dict[str, Any], *, timeout: float) -> Any:
        if given.get("do") == "noted":
            return {"found": self.noted}
        assert timeout > 0
        self.copies.append(given)
        return self.passes.pop(0)

    def as_host(self) -> Host:
        return cast(Host, self)


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(tmp_path, install_dir="/opt/harbor", data_volume=f"{tmp_path}/new")


def test_a_pass_goes_from_where_the_images_were_found_to_the_nas_and_is_called_until_it_is_whole(
    site: HarborSite,
) -> None:
    host = Answers({"copied": 5, "bytes": 10**9, "whole": False}, {"copied": 1, "bytes": 10**9})
    outcome = adoption.copy_once(site, host.as_host())
    assert outcome.changed
    assert "2,000 MB" in outcome.detail
    assert host.copies[0]["source"] == "/data/registry"
    assert host.copies[0]["target"] == site.nas.registry.rstrip("/")
    assert len(host.copies) == 2


def test_copying_while_it_serves_ends_with_a_pass_that_is_short_or_finds_nothing(site: HarborSite) -> None:
    short = Answers({"copied": 900, "seconds": 4000.0}, {"copied": 3, "seconds": 5.0})
    assert adoption.copy_while_it_serves(site, short.as_host()).detail.startswith("2 passes")
    nothing = Answers({"copied": 0})
    assert not adoption.copy_while_it_serves(site, nothing.as_host()).changed
    busy = Answers(*[{"copied": 900, "seconds": 4000.0}] * 9)
    assert adoption.copy_while_it_serves(site, busy.as_host()).detail.startswith("5 passes")


def test_a_damaged_blob_is_named_in_the_report(site: HarborSite) -> None:
    host = Answers({"damaged": 1, "named": ["sha256/ab/abcd"]})
    assert "left out: sha256/ab/abcd" in adoption.copy_once(site, host.as_host()).detail


def test_without_what_was_noted_no_step_is_done(site: HarborSite) -> None:
    steps: list[Callable[[HarborSite, Host], Any]] = [
        adoption.copy_once,
        adoption.keep_secrets,
        adoption.keep_settings,
        adoption.take_down,
    ]
    for call in steps:
        host = Answers({}, noted={})
        with pytest.raises(Refused, match="being adopted"):
            call(site, host.as_host())
        assert host.copies == []


@pytest.mark.parametrize(
    ("stands_at", "meaning"),
    [
        ("returned", "was put back.*run `adopt`"),
        ("returning", "being put back.*put-back` come to its end"),
        ("moved", "Another run of `adopt` has gone on.*Look at the other run"),
    ],
)
def test_a_step_that_comes_too_late_says_what_happened_what_was_not_done_and_what_to_do(
    stands_at: str, meaning: str, site: HarborSite
) -> None:
    host = Answers()
    host.passes = [{"stands_at": stands_at, "step_of": "moving"}] * 3
    steps: list[Callable[[HarborSite, Host], Any]] = [
        adoption.take_down,
        adoption.refuse_writes,
        lambda site, host: adoption.set_phase(site, host, phase="moved"),
    ]
    for call in steps:
        with pytest.raises(adoption.NotAtThisPoint, match=f"node-a: .*`{stands_at}`.*{meaning}") as caught:
            call(site, host.as_host())
        assert "Nothing was changed by this step" in str(caught.value)


def test_the_old_secrets_are_copied_and_another_one_is_never_overwritten(
    site: HarborSite, tmp_path: Path
) -> None:
    host = NodeInDirectory("node-a", tmp_path / "state").as_host()
    source = {name: f"{tmp_path}/old/{name}" for name in secrets.paths(site)}
    (tmp_path / "old").mkdir()
    for name, path in source.items():
        Path(path).write_text(f"their {name}")
    wanted = secrets.paths(site)
    assert secrets.copied_on_node(host, source, wanted).changed
    assert {name: Path(path).read_text() for name, path in wanted.items()} == {
        name: f"their {name}" for name in source
    }
    assert not secrets.copied_on_node(host, source, wanted).changed
    Path(wanted["secretkey"]).write_text("another")
    with pytest.raises(SecretsDiffer, match="other secrets"):
        secrets.copied_on_node(host, source, wanted)
    assert Path(wanted["secretkey"]).read_text() == "another"


def test_bootstrap_names_adopt_for_a_harbor_elsewhere_and_gives_no_other_advice(site: HarborSite) -> None:
    (reason,) = adoption_objections(site, node("node-a", harbor=FOUND))
    assert "run `adopt`" in reason


def test_the_plan_of_an_adoption_judges_everything_but_the_harbor_that_is_adopted(site: HarborSite) -> None:
    holder = node("node-a", harbor=FOUND, listeners={"443": "docker-proxy"})
    seen = SiteSeen((holder, node("node-b")))
    assert plan_bootstrap(site, seen, NOW, adopting="node-a").primary == "node-a"
    with pytest.raises(Refused, match="usr/local/harbor"):
        plan_bootstrap(site, seen, NOW, adopting="node-b")


def test_the_old_harbors_own_postgresql_on_the_node_is_never_to_be_stopped(site: HarborSite) -> None:
    """Its database may be there, outside of any container."""
    theirs = DatabaseSeen(False, None, None, None, False, False, cluster_data="/var/lib/postgresql/15/main")
    holder = node("node-a", harbor=FOUND, listeners={"5432": "postgres"}, database=theirs)
    with pytest.raises(Refused) as caught:
        plan_bootstrap(site, SiteSeen((holder, node("node-b"))), NOW, adopting="node-a")
    port, cluster = caught.value.reasons
    assert "-> set postgres.port to another one" in port
    assert "set postgres.cluster to another name" in cluster
    assert "stop it" not in port


def test_much_damage_says_how_much_and_where() -> None:
    with pytest.raises(HarborHaError, match=r"node-a: 5 of 9 blobs"):
        adoption.refuse_much_damage({"damaged": 5, "blobs": 9, "named": ["x"]}, "node-a")
