"""harbor.yml as other people have it: what they wrote is kept, or refused in a sentence that quotes no secret."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import SiteFileInvalid, read_site_file
from tasks.errors import Refused
from tasks.harbor import override, prepare
from tasks.harbor.config import removed, render
from tasks.harbor.lint import lint
from tasks.harbor.on_node import repoint as repoint_program
from tasks.harbor.versions import parse_version
from tests.unit.harbor_site import NodeInDirectory, make_site

TEMPLATES = Path(__file__).parent / "harbor_templates"
SECRET = "Zw9Kq7Lm3"


def template(name: str = "v2.13") -> str:
    return (TEMPLATES / f"{name}.yml").read_text()


def good(tmp_path: Path, version: str = "v2.13.2", base: str | None = None) -> str:
    return render(base or template(), make_site(tmp_path, version=version), "10.20.0.11")


# What somebody has left in the file, each with a password where the parser stumbles over it.
BROKEN = {
    "two passwords": f"harbor_admin_password: {SECRET}\nharbor_admin_password: {SECRET}x\n",
    "a password in an at sign": f"hostname: a\nexternal_redis:\n  password: @{SECRET}\n",
    "a password that is an alias": f"hostname: a\nexternal_redis:\n  password: *{SECRET}\n",
    "a password that is a tag": f"hostname: a\nexternal_redis:\n  password: !{SECRET}\n",
    "a quote that does not end": f'hostname: a\nexternal_redis:\n  password: "{SECRET}\n',
    "an unknown escape": f'hostname: a\nexternal_redis:\n  password: "\\q{SECRET}"\n',
    "a tab": f"hostname: a\nexternal_redis:\n\tpassword: {SECRET}\n",
    "no such day": f"hostname: a\nday: 2024-02-31\npassword: {SECRET}\n",
    "two documents": f"hostname: a\n---\npassword: {SECRET}\n",
    "an anchor within itself": f"hostname: a\nx: &x\n  y: *x\n  password: {SECRET}\n",
    "a byte that is no text": f"hostname: a\n# B\udcfcro\npassword: {SECRET}\n",
    "a control character": f"hostname: a\n# \x07\npassword: {SECRET}\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_refused_without_quoting_it(text: str, tmp_path: Path) -> None:
    said = lint(text, parse_version("v2.13.2"))
    assert said
    try:
        render(text, make_site(tmp_path), "10.20.0.11")
        # What was wrong is the site's to say, and was replaced.
        assert "!" in text or "&x" in text
    except Refused as refused:
        said += [str(refused), repr(refused)]
    assert not any(SECRET in sentence for sentence in said)


@pytest.mark.parametrize("name", ["two passwords", "a password in an at sign", "a byte that is no text"])
def test_the_refusal_names_the_line(name: str, tmp_path: Path) -> None:
    line = {"two passwords": 2, "a password in an at sign": 3, "a byte that is no text": 2}[name]
    with pytest.raises(Refused, match=f"line {line}\\b"):
        render(BROKEN[name], make_site(tmp_path), "10.20.0.11")
    assert f"line {line}" in " ".join(lint(BROKEN[name], parse_version("v2.13.2")))


@pytest.mark.servers
def test_a_file_in_another_encoding_is_refused_in_a_sentence(tmp_path: Path) -> None:
    home = tmp_path / "harbor"
    home.mkdir()
    (home / "harbor.yml").write_bytes(template().encode() + "# für das Büro\n".encode("latin-1"))
    site = make_site(tmp_path, version="v2.13.2", install_dir=str(home))
    with pytest.raises(Refused, match="not UTF-8"):
        prepare.configure(site, NodeInDirectory("node-a", tmp_path).as_host(), database_host="10.20.0.11")


def test_a_repoint_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    text = b"# f\xfcr das B\xfcro\nexternal_database:\n  harbor:\n    host: 10.20.0.11\n"
    (tmp_path / "harbor.yml").write_bytes(text)
    assert repoint_program.edit(str(tmp_path), "10.20.0.12") == [str(tmp_path / "harbor.yml")]
    assert (tmp_path / "harbor.yml").read_bytes() == text.replace(b"0.11", b"0.12")


WAYS = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "BOM": lambda text: "\ufeff" + text,
    "BOM before the data volume": lambda text: (
        "\ufeffdata_volume: /data\n" + text.replace("data_volume: /data\n", "")
    ),
    "Chinese comments": lambda text: text.replace("# where the data is", "# 数据目录，请勿修改（存储）"),
    "indented by 3": lambda text: "\n".join(
        " " * ((len(line) - len(line.lstrip())) * 3 // 2) + line.lstrip() for line in text.split("\n")
    ),
    "YAML 1.1 words": lambda text: text.replace("enabled: false", "enabled: off"),
    "an anchor": lambda text: text.replace("password: root123", "password: &old root123") + "\nx-old: *old\n",
    "sections of removed components": lambda text: (
        text + "\nchart:\n  absolute_url: disabled\nclair:\n  a: 1\n"
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_whatever_way_it_is_written_it_is_read_rendered_and_kept(way: Any, tmp_path: Path) -> None:
    base = way(template())
    text = good(tmp_path, base=base)
    assert lint(text, parse_version("v2.13.2")) == []
    assert good(tmp_path, base=text) == text
    for line in base.splitlines():
        assert line.partition("#")[2].strip() in text
    assert yaml.safe_load(text)["external_database"]["harbor"]["host"] == "10.20.0.11"


@pytest.mark.parametrize("name", sorted(set(BROKEN) - {"a byte that is no text"}))
def test_a_site_file_that_cannot_be_read_is_refused_without_quoting_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(BROKEN[name])
    with pytest.raises(SiteFileInvalid) as caught:
        read_site_file(tmp_path / "site.yml")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name", sorted(set(BROKEN) - {"a password that is a tag", "an anchor within itself"})
)
def test_an_override_that_cannot_be_read_is_refused_without_quoting_it(name: str) -> None:
    with pytest.raises(Refused) as caught:
        override.pinned(BROKEN[name].replace("harbor_admin_password", "a"))
    assert SECRET not in str(caught.value)


def changed_by(change: dict[str, Any], text: str) -> str:
    """Set values of a correct file, by path; None removes the key."""
    document = yaml.safe_load(text)
    for path, value in change.items():
        *parents, last = path.split(".")
        section = document
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            section.pop(last, None)
        else:
            section[last] = value
    return yaml.safe_dump(document, sort_keys=False)


# Each seen to end Harbor's own prepare of some version, most of them in a bare KeyError after it has deleted the
# running configuration; or to be taken by it and to mean something else.
TRAPS = [
    ("v2.3.5", {"notification": None}, "notification.webhook_job_max_retry is missing"),
    (
        "v2.13.2",
        {"notification.webhook_job_max_retry": None},
        "notification.webhook_job_max_retry is missing",
    ),
    ("v2.3.5", {"jobservice.max_job_workers": None}, "jobservice.max_job_workers is missing"),
    ("v2.3.5", {"log.local": None}, "log.local is missing"),
    ("v2.3.5", {"log.level": "warn"}, "log.level"),
    ("v2.3.5", {"log.external_endpoint": {"host": "10.20.0.30", "port": 514}}, "external_endpoint.protocol"),
    ("v2.3.5", {"log.external_endpoint": {"protocol": "tls", "host": "a", "port": 1}}, "udp"),
    ("v2.3.5", {"metric": {"enabled": True, "port": 9090}}, "metric.path is missing"),
    ("v2.3.5", {"external_database.harbor.ssl_mode": None}, "external_database.harbor.ssl_mode is missing"),
    ("v2.13.2", {"cache": {"enabled": True}}, "cache.expire_hours"),
    ("v2.13.2", {"upload_purging": {"enabled": True, "age": "7d"}}, "upload_purging.age"),
    ("v2.13.2", {"trace": {"enabled": True}}, "trace"),
    ("v2.13.2", {"core": {"quota_update_provider": "memory"}}, "core.quota_update_provider"),
    ("v2.3.5", {"storage_service": {"redirect": True}}, "storage_service.redirect"),
    ("v2.3.5", {"proxy": {"no_proxy": ["10.20.0.0/16"]}}, "proxy.no_proxy"),
    ("v2.3.5", {"http": 80}, "http is not a section"),
    ("v2.3.5", {"jobservice": ["max_job_workers"]}, "jobservice is not a section"),
    ("v2.3.5", {"internal_tls": {"enabled": True, "dir": "/etc/harbor/tls"}}, "internal_tls"),
    ("v2.7.4", {"redis": {"registry_db_index": 1}}, "redis"),
    ("v2.3.5", {"external_redis.sentinel_master_set": "mymaster"}, "external_redis.sentinel_master_set"),
    (
        "v2.13.2",
        {"external_redis.tlsOptions": {"enable": True, "rootCA": "/ca.crt"}},
        "external_redis.tlsOptions",
    ),
    ("v2.8.4", {"external_redis.username": "harbor"}, "external_redis.username"),
    ("v2.13.2", {"external_redis.harbor_db_index": 6}, "external_redis.harbor_db_index"),
]


@pytest.mark.parametrize(("version", "change", "said"), TRAPS, ids=str)
def test_lint_finds_what_prepare_ends_at_or_takes_for_something_else(
    version: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    text = good(tmp_path, version, template("v2.13" if version > "v2.1" and version < "v2.2" else "v2.8"))
    assert lint(text, parse_version(version)) == []
    found = lint(changed_by(change, text), parse_version(version))
    assert any(said in sentence for sentence in found), found


# Shaped as Harbor 1.8 to 2.0 had it: the log's place beside its level, no notification.
OLD_SHAPE = """\
hostname: old.example.com
http:
  port: 80
harbor_admin_password: Harbor12345
database:
  password: root123
data_volume: /data
clair:
  updaters_interval: 12
jobservice:
  max_job_workers: 10
chart:
  absolute_url: disabled
log:
  level: info
  rotate_count: 50
  rotate_size: 200M
  location: /var/log/harbor  # on its own disk
_version: 1.8.0
"""


@pytest.mark.parametrize("version", ["v2.3.5", "v2.8.4", "v2.9.5", "v2.15.2"])
def test_a_file_of_an_old_shape_is_completed_for_the_version_that_reads_it(
    version: str, tmp_path: Path
) -> None:
    text = good(tmp_path, version, OLD_SHAPE)
    document = yaml.safe_load(text)
    assert lint(text, parse_version(version)) == []
    assert document["notification"]["webhook_job_max_retry"] == 3
    assert document["log"]["local"]["location"] == "/var/log/harbor"
    assert "# on its own disk" in text


LEFT_OVER = """\
# Our Redis, do not touch
external_redis:
  host: redis1:26379,redis2:26379  # the sentinels
  # the name of the set
  sentinel_master_set: mymaster
  username: harbor
  # certificates
  tlsOptions:
    enable: true

    rootCA: /etc/ca.crt   # of the company
  # after the certificates
  harbor_db_index: 6
  password: old
redis:
  # of its own
  registry_db_index: 1
  jobservice_db_index: 2
# the end
"""


def test_what_would_change_the_meaning_of_the_sites_redis_becomes_a_remark(tmp_path: Path) -> None:
    base = template() + LEFT_OVER
    text = good(tmp_path, base=base)
    redis = yaml.safe_load(text)["external_redis"]
    assert set(redis) == {
        "host", "password", "registry_db_index", "jobservice_db_index", "trivy_db_index", "idle_timeout_seconds"
    }  # fmt: skip
    assert "redis" not in yaml.safe_load(text)
    for line in LEFT_OVER.splitlines():
        assert line.partition("#")[2].strip() in text
    assert "  # tlsOptions:\n  #   enable: true\n" in text
    assert "# redis:\n" in text
    assert removed(base, parse_version("v2.13.2")) == [
        "external_redis.harbor_db_index", "external_redis.sentinel_master_set", "external_redis.tlsOptions",
        "external_redis.username", "redis",
    ]  # fmt: skip
    assert good(tmp_path, base=text) == text


def test_a_section_that_the_version_does_not_read_stays(tmp_path: Path) -> None:
    base = template("v2.3") + "redis:\n  registry_db_index: 1\n"
    assert yaml.safe_load(good(tmp_path, "v2.6.4", base))["redis"] == {"registry_db_index": 1}


def test_what_cannot_become_a_remark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"external_redis\.username"):
        good(tmp_path, base=template() + "external_redis: {host: a, username: harbor}\n")


@pytest.mark.servers
def test_what_was_made_a_remark_is_told(tmp_path: Path) -> None:
    home = tmp_path / "harbor"
    home.mkdir()
    (home / "harbor.yml").write_text(template() + LEFT_OVER)
    site = make_site(tmp_path, version="v2.13.2", install_dir=str(home))
    node = NodeInDirectory("node-a", tmp_path).as_host()
    told = prepare.configure(site, node, database_host="10.20.0.11").detail
    assert "external_redis.sentinel_master_set" in told
    assert "mymaster" not in told
