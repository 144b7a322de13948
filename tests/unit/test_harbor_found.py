"""A Harbor that somebody has already is read before anything is changed, and refused rather than overwritten."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from flows.machinery.bootstrap_report import found as told
from flows.rules.adoption import ADOPTION_CHECKS, adoption_objections, view_of, would_take_over
from flows.rules.preflight import plan_bootstrap
from tasks.errors import Refused
from tasks.harbor import found
from tasks.harbor.found import HarborFound
from tasks.harbor.on_node import harbor_found as program
from tasks.hosts.observation import SiteSeen
from tests.unit.harbor_site import NodeInDirectory, make_site
from tests.unit.harbor_site import program as script
from tests.unit.site_on_disk import NOW
from tests.unit.test_preflight_rule import node

TEMPLATE = (Path(__file__).parent / "harbor_templates" / "v2.8.yml").read_text()
SECRET = "Zw9Kq7Lm3-of-theirs"


class OldHarbor:
    """A Harbor as its own installer leaves it, as docker describes it: what a node's `docker` answers."""

    def __init__(self, root: Path, *, home: str = "usr/local/harbor", volume: str = "data") -> None:
        self.root, self.home, self.volume = root, root / home, root / volume
        self.version = "v2.5.6"
        self.label = True
        self.running = True
        self.environment = {
            "POSTGRESQL_HOST": "postgresql",
            "POSTGRESQL_PASSWORD": SECRET,
            "EXT_ENDPOINT": "https://old.example.com",
            "REGISTRY_STORAGE_PROVIDER_NAME": "filesystem",
        }
        self.files = {
            "harbor.yml": TEMPLATE.replace("reg.mydomain.com", "old.example.com").replace("root123", SECRET)
        }
        self.bundled = True

    def labels(self, service: str) -> dict[str, str]:
        project = {"com.docker.compose.project": "harbor", "com.docker.compose.service": service}
        return project | ({"com.docker.compose.project.working_dir": str(self.home)} if self.label else {})

    def described(self, service: str, mounts: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {
                "Config": {
                    "Image": f"mirror.example.com:5000/goharbor/harbor-{service}:{self.version}",
                    "Env": [f"{name}={value}" for name, value in self.environment.items()],
                    "Labels": self.labels(service),
                },
                "State": {"Running": self.running},
                "Mounts": [{"Source": source, "Destination": target} for target, source in mounts.items()],
            }
        ]

    def stand(self) -> None:
        """Write its files, and a `docker` that answers for its containers."""
        self.home.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (self.home / name).write_text(text)
        answers = self.root / "answers"
        answers.mkdir(exist_ok=True)
        core = {
            "/data": str(self.volume),
            "/etc/core/app.conf": f"{self.home}/common/config/core/app.conf",
            "/etc/core/key": f"{self.volume}/secret/keys/secretkey",
        }
        described = {
            "harbor-core": self.described("core", core),
            "registry": self.described("registry", {"/storage": f"{self.volume}/registry"}),
        }
        if self.bundled:
            mounts = {"/var/lib/postgresql/data": f"{self.volume}/database"}
            described["harbor-db"] = self.described("db", mounts)
        for name, answer in described.items():
            (answers / name).write_text(json.dumps(answer))
        body = f"""
case "$1" in
  inspect) cat {answers}/$4 2> /dev/null || exit 1 ;;
  ps) echo core; echo postgresql; echo registry; echo trivy-adapter; echo core ;;
esac"""
        script(self.root / "bin", "docker", body)

    def blob(self, number: int, size: int) -> None:
        digest = f"{number:02x}" * 32
        path = self.volume / "registry" / program.BLOBS / digest[:2] / digest
        path.mkdir(parents=True)
        (path / "data").write_bytes(b"x" * size)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OldHarbor:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return OldHarbor(tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(
        tmp_path,
        version="v2.9.5",
        install_dir=f"{tmp_path}/opt/harbor",
        data_volume=f"{tmp_path}/data/harbor",
    )


def seen(site: HarborSite, tmp_path: Path) -> HarborFound | None:
    return found.observe(site, NodeInDirectory("node-a", tmp_path / "state").as_host())


pytestmark = pytest.mark.servers


def test_a_bare_node_has_none(site: HarborSite, tmp_path: Path, old: OldHarbor) -> None:
    assert seen(site, tmp_path) is None


@pytest.mark.parametrize("label", [True, False], ids=["by its label", "by what core is given"])
def test_a_harbor_is_found_wherever_it_lies(
    label: bool, site: HarborSite, tmp_path: Path, old: OldHarbor
) -> None:
    old.label = label
    old.stand()
    for number in range(3):
        old.blob(number, 1000)
    one = seen(site, tmp_path)
    assert one is not None
    assert (one.directory, one.data_volume) == (str(old.home), str(old.volume))
    assert (one.version, one.runs, one.database_host) == ("2.5.6", True, "")
    assert (one.images_at, one.database_at) == (f"{old.volume}/registry", f"{old.volume}/database")
    assert (one.blobs, one.blob_bytes, one.blobs_whole) == (3, 3000, True)
    assert one.external_url == "https://old.example.com"
    assert one.services == ("core", "postgresql", "registry", "trivy-adapter")
    assert SECRET not in repr(one)


def test_the_count_of_blobs_ends_when_its_time_is_over(old: OldHarbor) -> None:
    old.blob(1, 10)
    assert program.count_blobs(f"{old.volume}/registry", -1.0) == {"count": 0, "bytes": 0, "whole": False}


def test_a_unit_that_starts_it_at_boot_is_named(old: OldHarbor, tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    (units / "harbor.service").write_text(f"[Service]\nWorkingDirectory={old.home}\n")
    (units / "other.service").write_text(f"[Service]\nWorkingDirectory={old.home}-old\n")
    assert program.units_of(str(old.home), [str(units)]) == ["harbor.service"]


def test_a_harbor_that_was_taken_down_is_found_in_the_sites_directory(
    site: HarborSite, tmp_path: Path, old: OldHarbor
) -> None:
    old.home = Path(site.harbor.install_dir)
    database = "external_database:\n  harbor:\n    host: 10.9.9.9\n"
    old.files["harbor.yml"] += database
    old.stand()
    (tmp_path / "bin" / "docker").unlink()
    one = seen(site, tmp_path)
    assert one is not None
    assert (one.runs, one.directory, one.database_host) == (False, site.harbor.install_dir, "10.9.9.9")


def test_what_is_wrong_with_its_files_is_told_without_their_secrets(
    site: HarborSite, tmp_path: Path, old: OldHarbor
) -> None:
    old.files["harbor.yml"] += (
        "internal_tls:\n  enabled: true\n  dir: /x\nexternal_url: https://old.example.com\n"
    )
    old.files["docker-compose.override.yml"] = "networks: {harbor: {external: true}}\n"
    key = old.volume / "secret/core/private_key.pem"
    key.parent.mkdir(parents=True)
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    old.stand()
    one = seen(site, tmp_path)
    assert one is not None
    said = "\n".join(one.settings)
    for word in (
        "internal_tls is enabled",
        "external_url is https://old",
        "networks.harbor is external",
        "PKCS#8",
    ):
        assert word in said
    assert SECRET not in said


def test_odd_answers_of_docker_raise_nothing(site: HarborSite, tmp_path: Path, old: OldHarbor) -> None:
    old.stand()
    described = {
        "Config": {"Env": None, "Labels": None, "Image": "x"},
        "State": {"Running": False},
        "Mounts": None,
    }
    (tmp_path / "answers" / "harbor-core").write_text(json.dumps([described]))
    one = seen(site, tmp_path)
    assert one is not None
    assert not one.runs


# By hand, so that a rule that is removed is missed.
def a_harbor(site: HarborSite, **changes: Any) -> HarborFound:
    fields = {
        "directory": site.harbor.install_dir,
        "runs": True,
        "version": "2.5.6",
        "data_volume": site.harbor.data_volume,
        "images_at": f"{site.harbor.data_volume}/registry",
        "database_at": f"{site.harbor.data_volume}/database",
    }
    return HarborFound(**{**fields, **changes})


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("another directory", {"directory": "/usr/local/harbor"}, "installed in /usr/local/harbor"),
    ("external database", {"database_host": "10.9.9.9"}, "external server 10.9.9.9"),
    (
        "another data volume",
        {"data_volume": "/data", "images_at": "/data/registry"},
        "would start without both",
    ),
    ("images elsewhere", {"images_at": "/mnt/old"}, "images in /mnt/old"),
    ("object store", {"storage": "s3"}, "through the driver s3"),
    ("too old", {"version": "1.10.19"}, "nothing before 2.3"),
    ("newer", {"version": "2.12.4"}, "an older one does not read"),
]


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED)
def test_what_cannot_be_taken_over_is_refused_before_the_first_change(
    name: str, changes: dict[str, Any], said: str, site: HarborSite
) -> None:
    with_harbor = node("node-a", harbor=a_harbor(site, **changes))
    with pytest.raises(Refused, match=said) as caught:
        plan_bootstrap(site, SiteSeen([with_harbor, node("node-b")]), NOW)
    assert all("->" in reason for reason in caught.value.reasons)
    assert len([*adoption_objections(site, with_harbor)]) == 1
    assert {check.name for check in ADOPTION_CHECKS} == {row[0] for row in REFUSED}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"database_host": "10.20.0.12"},
        {"version": ""},
        {"version": "dev"},
        {"data_volume": None, "images_at": None},
    ],
    ids=str,
)
def test_a_harbor_that_bootstrap_goes_on_from_is_not_refused(
    changes: dict[str, Any], site: HarborSite
) -> None:
    assert [*adoption_objections(site, node("node-a", harbor=a_harbor(site, **changes)))] == []


def test_the_sites_own_harbor_is_judged_by_its_place_and_version_only(site: HarborSite) -> None:
    own = a_harbor(site, database_host="10.9.9.9", images_at="/elsewhere", data_volume="/other")
    assert [*adoption_objections(site, node("node-a", harbor=own, harbor_sha256="a" * 64))] == []
    moved = a_harbor(site, directory="/opt/old")
    assert [*adoption_objections(site, node("node-a", harbor=moved, harbor_sha256="a" * 64))]


def test_bad_settings_are_refused_before_the_first_change(site: HarborSite) -> None:
    bad = node("node-a", harbor=a_harbor(site, settings=("harbor.yml: internal_tls is enabled",)))
    with pytest.raises(Refused, match="internal_tls is enabled -> "):
        plan_bootstrap(site, SiteSeen([bad, node("node-b")]), NOW)


def test_a_harbor_that_serves_is_not_asked_to_be_stopped_for_its_port(site: HarborSite) -> None:
    serving = node(
        "node-a", listeners={"443": "docker-proxy"}, harbor=a_harbor(site, directory="/usr/local/harbor")
    )
    with pytest.raises(Refused) as caught:
        plan_bootstrap(site, SiteSeen([serving, node("node-b")]), NOW)
    assert not any("stop it" in reason for reason in caught.value.reasons)


def test_the_report_tells_what_was_found_and_what_becomes_of_it(site: HarborSite) -> None:
    harbor = a_harbor(
        site, blobs=12345, blob_bytes=88_000_000_000, blobs_whole=False, units=("harbor.service",)
    )
    lines = told(site, SiteSeen([node("node-a", harbor=harbor), node("node-b")]))
    text = "\n".join(lines)
    for word in (
        "Harbor 2.5.6",
        "at least 12,345 blobs of 88.0 GB",
        "copied into the pair",
        "harbor.service",
    ):
        assert word in text
    assert would_take_over(site, node("node-a", harbor=harbor, harbor_sha256="a" * 64)) == []


def test_a_way_round_a_link_is_the_same_place(site: HarborSite, tmp_path: Path, old: OldHarbor) -> None:
    old.stand()
    Path(site.harbor.install_dir).parent.mkdir(parents=True)
    Path(site.harbor.install_dir).symlink_to(old.home)
    old.volume.mkdir(exist_ok=True)
    site.harbor.data_volume = f"{tmp_path}/link"
    Path(site.harbor.data_volume).symlink_to(old.volume)
    one = seen(site, tmp_path)
    assert one is not None
    assert (one.directory, one.data_volume) == (site.harbor.install_dir, site.harbor.data_volume)
    assert one.images_at == f"{site.harbor.data_volume}/registry"


def test_the_images_of_the_sites_own_harbor_are_not_counted_at_every_run(
    site: HarborSite, tmp_path: Path, old: OldHarbor
) -> None:
    old.home = Path(site.harbor.install_dir)
    old.stand()
    old.blob(1, 10)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "harbor_installed.json").write_text('{"sha256": "aa"}')
    one = seen(site, tmp_path)
    assert one is not None
    assert one.blobs == 0


def test_the_images_of_a_harbor_elsewhere_are_counted_although_the_sites_was_unpacked_beside_it(
    site: HarborSite, tmp_path: Path, old: OldHarbor
) -> None:
    old.stand()
    old.blob(1, 10)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "harbor_installed.json").write_text('{"sha256": "aa"}')
    one = seen(site, tmp_path)
    assert one is not None
    assert one.blobs == 1


def test_a_harbor_whose_directory_cannot_be_told_is_refused(
    site: HarborSite, tmp_path: Path, old: OldHarbor
) -> None:
    old.stand()
    described = {"Config": {"Env": [], "Labels": {}, "Image": "x"}, "State": {"Running": True}, "Mounts": []}
    (tmp_path / "answers" / "harbor-core").write_text(json.dumps([described]))
    reasons = [*adoption_objections(site, node("node-a", harbor=seen(site, tmp_path)))]
    assert any("in a directory that cannot be told" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("core", "refused"),
    [
        ({}, False),
        ({"POSTGRESQL_PORT": "5432", "POSTGRESQL_DATABASE": "registry"}, False),
        ({"POSTGRESQL_PORT": "5433", "POSTGRESQL_DATABASE": "registry"}, True),
        ({"POSTGRESQL_PORT": "5432", "POSTGRESQL_DATABASE": "harbor_prod"}, True),
    ],
    ids=str,
)
def test_another_server_on_a_node_of_the_site_is_not_taken_for_the_pair(
    core: dict[str, str], refused: bool, tmp_path: Path
) -> None:
    site = make_site(tmp_path)
    found = HarborFound(
        directory=site.harbor.install_dir, database_host=site.nodes[0].address, core_database=core
    )
    view = view_of(site, found, installed_here=False)
    assert view.on_foreign_database is refused
