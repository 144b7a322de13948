"""harbor.yml as other people have it: what they wrote is kept, or refused in a sentence that quotes no secret."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import SiteFileInvalid, read_site_file
from tasks.errors import Refused
from tasks.harbor import override, prepare
from tasks.harbor.config import render
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
    with pytest.raises(Refused) as caught:
        render(text, make_site(tmp_path), "10.20.0.11")
    assert said
    for sentence in [*said, str(caught.value), repr(caught.value)]:
        assert SECRET not in sentence


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
