"""A value is changed in whatever style it is written, and the remarks around it stay."""

from pathlib import Path

import pytest
import yaml

from tasks.harbor.config import render
from tasks.harbor.on_node.prepare import prepare_inputs
from tasks.harbor.on_node.repoint import with_host
from tasks.harbor.yaml_edit import commented_out
from tests.unit.harbor_site import make_site

LOGGERS = """\
jobservice:
  max_job_workers: 10
  # Where a job's log goes
  job_loggers:
    # to the container
    - STD_OUTPUT
    - FILE  # to a file
    # - DB
  # The sweeper's days
  logger_sweeper_duration: 1
"""


def template() -> str:
    return (Path(__file__).parent / "harbor_templates" / "v2.13.yml").read_text()


@pytest.mark.parametrize(
    "loggers",
    [
        LOGGERS,
        LOGGERS.replace("    # - DB\n", "    # - DB\n    - DB\n    # the last\n"),
        LOGGERS.replace("    - FILE  # to a file\n", "").replace("# to the container", "# to a file"),
        LOGGERS.replace("\n", "\r\n"),
    ],
    ids=["as in the template", "three of them", "one of them", "CRLF"],
)
def test_the_remarks_among_the_job_loggers_stay(loggers: str, tmp_path: Path) -> None:
    start, end = template().index("jobservice:"), template().index("notification:")
    base = template()[:start] + loggers + template()[end:]
    text = render(base, make_site(tmp_path, version="v2.13.2"), "10.20.0.11")
    assert yaml.safe_load(text)["jobservice"]["job_loggers"] == ["STD_OUTPUT", "DB"]
    for line in loggers.splitlines():
        assert line.partition("#")[2].strip() in text, line


STYLES = {
    "block": "external_database:\n  harbor:\n    host: 10.20.0.11 # the primary, host: of old\n    port: 5432\n",
    "flow": "external_database: {harbor: {host: 10.20.0.11, port: 5432, db_name: registry}}\n",
    "flow over lines": "external_database: {\n  harbor: {\n    host: 10.20.0.11,\n    port: 5432\n  }\n}\n",
    "flow within block": "external_database:\n  harbor: {port: 5432, host: 10.20.0.11}\n",
    "JSON": 'external_database: {"harbor": {"host": "10.20.0.11", "port": 5432}}\n',
    "quoted keys": "'external_database':\n  \"harbor\":\n    'host' : '10.20.0.11'\n    port: 5432\n",
    "an anchor": "external_database:\n  harbor:\n    host: &db 10.20.0.11\n  notary_signer:\n    host: *db\n",
    "the value below": "external_database:\n  harbor:\n    host:\n      10.20.0.11\n    port: 5432\n",
    "nothing yet": "external_database:\n  harbor:\n    host:\n    port: 5432\n",
    "CRLF": "external_database:\r\n  harbor:\r\n    host: 10.20.0.11\r\n    port: 5432\r\n",
    "indented by 3": "external_database:\n   harbor:\n      host: 10.20.0.11\n      port: 5432\n",
    "a remark at the margin": "external_database:\n# host: a\n  harbor:\n# and\n    host: 10.20.0.11\n",
    "a tag": "external_database:\n  harbor:\n    host: !!str 10.20.0.11\n    port: 5432\n",
    "a BOM": "\ufeffexternal_database:\n  harbor:\n    host: 10.20.0.11\n    port: 5432\n",
}


@pytest.mark.parametrize("text", STYLES.values(), ids=STYLES)
def test_the_hosts_of_the_database_are_changed_in_any_style_and_nothing_else(text: str) -> None:
    around = "external_redis: {host: 10.20.0.11}\n", "\nlog: {host: 10.20.0.11}\nhost: 10.20.0.11\n"
    whole = text + around[0] + around[1] if text.startswith("\ufeff") else around[0] + text + around[1]
    found = with_host(whole, "10.20.0.12")
    before, after = yaml.safe_load(whole), yaml.safe_load(found)
    assert {section["host"] for section in after["external_database"].values()} == {"10.20.0.12"}
    for section in before["external_database"].values():
        section["host"] = "10.20.0.12"
    assert after == before
    assert with_host(found, "10.20.0.12") == found
    assert found.count("\n") == whole.count("\n") or text == STYLES["the value below"]


def test_a_remark_or_another_key_that_ends_in_host_is_left_alone() -> None:
    text = "external_database:\n  harbor:\n    my_host: a\n    #host: b\n    user: 'x #host: c'\n"
    text += "    host: d # host: e\n"
    assert with_host(text, "new") == text.replace("host: d", "host: new")


@pytest.mark.parametrize(
    "https",
    [
        "https:\n   port: 443\n   certificate: {0}\n   private_key: {0}\n",
        "https: {{port: 443, certificate: {0}, private_key: {0}}}\n",
        'https: {{"certificate": "{0}"}}\n',
    ],
)
def test_prepare_runs_again_after_a_new_certificate_in_whatever_style_it_is_named(
    https: str, tmp_path: Path
) -> None:
    certificate = tmp_path / "server.crt"
    certificate.write_text("old")
    (tmp_path / "harbor.yml").write_text(https.format(certificate))
    before = prepare_inputs(str(tmp_path), [])
    certificate.write_text("new")
    assert prepare_inputs(str(tmp_path), []) != before


LINES = "a:\n  x: 1\n  y:\n    - 1\n\n    - z: 2  # two\n  # below\n  w: 3\nb: |\n  text: y\n\nc: &c {d: 1}\ne: *c\n"


@pytest.mark.parametrize(
    "paths", [["a.y"], ["a.x", "a.w"], ["b"], ["e"], ["a"], ["a.x", "a.y", "a.w"], ["no.such"]]
)
@pytest.mark.parametrize("way", ["plain", "CRLF", "BOM"])
def test_a_key_that_becomes_a_remark_takes_what_belongs_to_it_and_nothing_else(
    paths: list[str], way: str
) -> None:
    text = {"plain": LINES, "CRLF": LINES.replace("\n", "\r\n"), "BOM": "\ufeff" + LINES}[way]
    wanted = yaml.safe_load(text)
    for path in paths:
        *above, last = path.split(".")
        section = wanted
        for name in above:
            section = section.get(name, {})
        section.pop(last, None)
    found = yaml.safe_load(commented_out(text, paths))
    assert found == {name: value or None for name, value in wanted.items()}
    for line in text.split("\n"):
        assert line.strip().lstrip("\ufeff") in commented_out(text, paths)


@pytest.mark.parametrize(
    "text",
    [
        "a: {x: 1, y: 2}\n",
        "a: &a\n  x: 1\nb: *a\n",
        "# one\u2028two\na:\n  x: 1\n  y: 2\n",
        "a:\n  ? x\n  : 1\n",
    ],
    ids=["in braces", "an anchor that is used", "another line break", "an odd key"],
)
def test_what_cannot_become_a_remark_safely_is_left_as_it_is(text: str) -> None:
    for path in ("a", "a.x"):
        result = commented_out(text, [path])
        if result != text:
            wanted = yaml.safe_load(text)
            assert text != "# one\u2028two\na:\n  x: 1\n  y: 2\n", "which PyYAML does not read"
            del (wanted if path == "a" else wanted["a"])[path[-1]]
            assert yaml.safe_load(result) == ({name: value or None for name, value in wanted.items()} or None)
