"""The hash that compose gives core is worked out while nobody waits, and said only where it is right."""

import hashlib
import re
from pathlib import Path

import pytest

from tasks.harbor.on_node import core_hash, repoint
from tasks.on_node import lib

COMPOSE = """services:
  core:
    image: goharbor/harbor-core:v2.3.2
    env_file:
      - ./common/config/core/env
"""
ENV = "POSTGRESQL_HOST=10.20.0.11\nPOSTGRESQL_PASSWORD=secret\n"
OTHER = "10.20.0.12"


class Compose:
    """Compose, as far as core's hash goes: it depends on the file's other words and on the environment's values."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.asked: list[list[str]] = []
        self.salt = ""

    def __call__(self, home: str, words: list[str], timeout: float) -> str:
        self.asked.append(words)
        files = [words[number + 1] for number, word in enumerate(words) if word == "-f"]
        texts = [(self.home / name).read_text() for name in files or ["docker-compose.yml"]]
        named = re.findall(r"- (\S+env)$", texts[0], re.MULTILINE)
        values = [(self.home / name).read_text() for name in named]
        unnamed = [re.sub(r"- \S+env$", "", text, flags=re.MULTILINE) for text in texts]
        return "core " + hashlib.sha256(repr((self.salt, unnamed, values)).encode()).hexdigest() + "\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Harbor's directory on a node of ours."""
    for module in (lib, core_hash):
        monkeypatch.setattr(module, "STATE_DIR", str(tmp_path / "state"))
    directory = tmp_path / "harbor"
    (directory / "common/config/core").mkdir(parents=True)
    (directory / "docker-compose.yml").write_text(COMPOSE)
    (directory / "common/config/core/env").write_text(ENV)
    return directory


@pytest.fixture
def compose(home: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """A compose that counts how often it is asked."""
    made = Compose(home)
    monkeypatch.setattr(core_hash, "compose", made)
    return made


def running(compose: Compose, home: Path) -> str:
    """Give the hash that compose gave the running core."""
    return compose(str(home), ["config", "--hash", "core"], 60).split()[-1]


def test_after_the_change_that_was_foreseen_compose_is_not_asked(home: Path, compose: Compose) -> None:
    assert core_hash.foresee(str(home), running(compose, home), repoint.edits(str(home), OTHER))
    repoint.edit(str(home), OTHER)
    expected = running(compose, home)
    compose.asked.clear()
    assert core_hash.core_hash(str(home)) == expected
    assert compose.asked == []


def test_what_was_worked_out_once_is_not_worked_out_again(home: Path, compose: Compose) -> None:
    texts = repoint.edits(str(home), OTHER)
    assert core_hash.foresee(str(home), running(compose, home), texts)
    compose.asked.clear()
    assert not core_hash.foresee(str(home), "", texts)
    assert compose.asked == []


def test_a_file_that_has_changed_since_has_compose_asked(home: Path, compose: Compose) -> None:
    core_hash.foresee(str(home), running(compose, home), repoint.edits(str(home), OTHER))
    with (home / "docker-compose.yml").open("a") as opened:
        opened.write("    restart: always\n")
    repoint.edit(str(home), OTHER)
    assert core_hash.core_hash(str(home)) == running(compose, home)


def test_an_override_is_part_of_what_compose_is_asked(home: Path, compose: Compose) -> None:
    (home / "docker-compose.override.yml").write_text("services: {core: {mem_limit: 2g}}\n")
    plain, compose.asked = running(compose, home), []
    assert not core_hash.foresee(str(home), plain, repoint.edits(str(home), OTHER))
    assert str(home / "docker-compose.override.yml") in compose.asked[0]


def test_a_compose_that_does_not_say_of_the_copy_what_the_running_core_has_is_not_believed(
    home: Path, compose: Compose
) -> None:
    # A core of an older configuration, or a compose whose hash holds the paths of its files.
    assert not core_hash.foresee(str(home), "another", repoint.edits(str(home), OTHER))
    assert core_hash.known_hashes() == []


def test_a_compose_file_that_names_cores_environment_otherwise_is_left_to_compose(
    home: Path, compose: Compose
) -> None:
    (home / "docker-compose.yml").write_text(COMPOSE.replace("./common", "/opt/harbor/common"))
    assert not core_hash.foresee(str(home), "", repoint.edits(str(home), OTHER))
    assert compose.asked == []


def test_no_copy_of_the_passwords_is_left_behind(home: Path, compose: Compose, tmp_path: Path) -> None:
    core_hash.foresee(str(home), running(compose, home), repoint.edits(str(home), OTHER))
    kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path.name for path in kept] == [core_hash.HASHES]
    assert "secret" not in kept[0].read_text()


def test_the_oldest_are_forgotten_first(home: Path, compose: Compose) -> None:
    for number in range(core_hash.MOST + 3):
        texts = repoint.edits(str(home), f"10.20.0.{100 + number}")
        assert core_hash.foresee(str(home), running(compose, home), texts)
    known = dict(core_hash.known_hashes())
    assert len(known) == core_hash.MOST
    assert core_hash.key_of(str(home), texts) in known


def test_bytes_that_are_no_utf8_stay_what_they_are(
    home: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def read(home_: str, words: list[str], timeout: float) -> str:
        seen.append((Path(core_hash.STATE_DIR) / "foreseen/core.env").read_bytes())
        return "core same\n"

    monkeypatch.setattr(core_hash, "compose", read)
    (home / "common/config/core/env").write_bytes(ENV.encode() + b"REMARK=\xb0\n")
    assert core_hash.foresee(str(home), "same", repoint.edits(str(home), OTHER))
    assert seen[1] == seen[0].replace(b"10.20.0.11", OTHER.encode())
    assert b"\xb0" in seen[1]
