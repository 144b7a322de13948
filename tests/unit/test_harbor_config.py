"""harbor.yml: made from the template of the version, with every comment, and as prepare can read it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blocks import HarborSite
from tasks.errors import Refused
from tasks.harbor.config import oss_storage, render
from tasks.harbor.lint import lint, wrapper_data_volume
from tasks.harbor.versions import component_flags, habits, parse_version
from tests.unit.harbor_site import make_site

TEMPLATES = Path(__file__).parent / "harbor_templates"
VERSIONS = {"v2.3": "v2.3.2", "v2.8": "v2.8.4", "v2.13": "v2.13.2"}


def site_of(tmp_path: Path, version: str = "v2.13.2") -> HarborSite:
    """The site whose golden files are kept."""
    return make_site(tmp_path, version=version)


def template(name: str) -> str:
    """A template in the shape of a Harbor version."""
    return (TEMPLATES / f"{name}.yml").read_text()


@pytest.mark.parametrize("name", VERSIONS)
def test_the_file_for_each_version_is_the_one_that_was_reviewed(name: str, tmp_path: Path) -> None:
    text = render(template(name), site_of(tmp_path, VERSIONS[name]), "10.20.0.11")
    golden = TEMPLATES / f"{name}.expected.yml"
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", VERSIONS)
def test_every_comment_of_the_template_stays(name: str, tmp_path: Path) -> None:
    base = template(name)
    text = render(base, site_of(tmp_path, VERSIONS[name]), "10.20.0.11")
    for line in base.splitlines():
        comment = line.partition("#")[2]
        assert comment in text


@pytest.mark.parametrize("name", VERSIONS)
def test_rendering_again_changes_nothing(name: str, tmp_path: Path) -> None:
    site = site_of(tmp_path, VERSIONS[name])
    once = render(template(name), site, "10.20.0.11")
    assert render(once, site, "10.20.0.11") == once


@pytest.mark.parametrize("name", VERSIONS)
def test_prepares_own_grep_finds_the_data_volume(name: str, tmp_path: Path) -> None:
    file = tmp_path / "harbor.yml"
    file.write_text(render(template(name), site_of(tmp_path, VERSIONS[name]), "10.20.0.11"))
    shell = "grep '^[^#]*data_volume:' harbor.yml | awk '{print $NF}'"
    found = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "/data/harbor\n"


@pytest.mark.parametrize("line", ["data_volume: '/old'", "data_volume: /old # nfs", 'data_volume: "/old"'])
def test_a_quoted_or_remarked_data_volume_is_written_plainly(line: str, tmp_path: Path) -> None:
    base = template("v2.13").replace("data_volume: /data", line)
    assert "data_volume: /data/harbor\n" in render(base, site_of(tmp_path), "10.20.0.11")


def test_what_the_operator_added_stays(tmp_path: Path) -> None:
    base = template("v2.13") + "metric:\n  enabled: true # for Prometheus\n  port: 9090\n  path: /metrics\n"
    text = render(base, site_of(tmp_path), "10.20.0.11")
    assert "  enabled: true # for Prometheus\n" in text
    assert yaml.safe_load(text)["metric"] == {"enabled": True, "port": 9090, "path": "/metrics"}


def test_another_primary_changes_its_host_and_nothing_else(tmp_path: Path) -> None:
    site = site_of(tmp_path, "v2.3.2")
    first = render(template("v2.3"), site, "10.20.0.11")
    second = render(first, site, "10.20.0.12")
    assert second == first.replace("host: 10.20.0.11", "host: 10.20.0.12")
    hosts = [section["host"] for section in yaml.safe_load(second)["external_database"].values()]
    assert hosts == ["10.20.0.12"] * 3


def test_a_password_that_looks_like_a_number_stays_a_text(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    site.redis.password = type(site.redis.password)("1_000")
    text = render(template("v2.13"), site, "10.20.0.11")
    assert yaml.safe_load(text)["external_redis"]["password"] == "1_000"


@pytest.mark.parametrize("password", ["with space", "dollar$x", "hash#", 'quote"', "back\\slash", "-first"])
def test_a_password_that_harbors_files_cannot_carry_is_refused(password: str, tmp_path: Path) -> None:
    site = site_of(tmp_path)
    site.redis.password = type(site.redis.password)(password)
    with pytest.raises(Refused) as caught:
        render(template("v2.13"), site, "10.20.0.11")
    assert password not in str(caught.value)


@pytest.mark.parametrize("base", ["a: [", "just text", "hostname: a\nhostname: b\n"])
def test_a_file_that_cannot_be_understood_is_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        render(base, site_of(tmp_path), "10.20.0.11")


@pytest.mark.parametrize(("version", "key"), [("v2.7.4", "disabled"), ("v2.8.0", "disable")])
def test_the_redirect_switch_has_the_name_of_its_version(version: str, key: str, tmp_path: Path) -> None:
    site = site_of(tmp_path, version)
    assert site.oss is not None
    storage = oss_storage(site.oss, parse_version(version), "/harbor/live")
    text = render(template("v2.8"), site, "10.20.0.11", storage=storage)
    assert yaml.safe_load(text)["storage_service"]["redirect"] == {key: True}


def broken(text: str, change: dict[str, Any]) -> str:
    """Replace values of a correct file, by path; None removes the key."""
    document = yaml.safe_load(text)
    for path, value in change.items():
        *parents, last = path.split(".")
        section = document
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[last]
        else:
            section[last] = value
    return yaml.safe_dump(document, sort_keys=False)


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "reg.mydomain.com"},
        {"hostname": "127.0.0.1"},
        {"https.certificate": "/your/certificate/path"},
        {"external_database.harbor.host": None},
        {"external_database.harbor.password": "has space"},
        {"external_database": None},
        {"external_redis": None},
        {"jobservice.job_loggers": None},
        {"jobservice.logger_sweeper_duration": None},
        {"notification.webhook_job_http_client_timeout": None},
        {"log.level": None},
        {"harbor_admin_password": "dollar$sign"},
        {"storage_service": {"redirect": {"disabled": True}}},
        {"data_volume": "relative"},
    ],
    ids=str,
)
def test_lint_finds_what_prepare_would_die_of_or_swallow(change: dict[str, Any], tmp_path: Path) -> None:
    good = render(template("v2.13"), site_of(tmp_path), "10.20.0.11")
    version = parse_version("v2.13.2")
    assert lint(good, version) == []
    assert lint(broken(good, change), version)


def test_lint_reads_data_volume_as_the_wrapper_does() -> None:
    assert wrapper_data_volume("# data_volume: /x\ndata_volume: /data # nfs\n") == ["nfs"]
    assert wrapper_data_volume("data_volume: '/data'\n") == ["'/data'"]


@given(st.integers(2, 2), st.integers(3, 15), st.integers(0, 30))
def test_every_supported_version_is_read_back(major: int, minor: int, patch: int) -> None:
    assert str(parse_version(f"v{major}.{minor}.{patch}")) == f"{major}.{minor}.{patch}"


@pytest.mark.parametrize("text", ["2.2.9", "v3.0.0", "latest", "", "2.16.0"])
def test_an_unknown_version_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse_version(text)


def test_flags_are_in_a_fixed_order_and_only_what_the_version_has() -> None:
    assert component_flags(parse_version("2.3.2"), ["notary", "trivy"]) == ["--with-trivy", "--with-notary"]
    with pytest.raises(Refused, match="notary"):
        component_flags(parse_version("2.9.0"), ["notary"])


def test_compose_files_have_a_version_line_until_2_11() -> None:
    assert habits(parse_version("2.11.2")).compose_version == "2.3"
    assert habits(parse_version("2.12.0")).compose_version is None
