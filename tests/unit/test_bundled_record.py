"""The note that a bundled database was taken over counts once Harbor's core has left that database."""

from pathlib import Path

import pytest

from tasks.hosts.on_node import preflight_probe
from tasks.on_node.bundled_core import uses_bundled
from tests.unit.harbor_site import program

DOCKER = """
for last; do :; done
case $last in
  harbor-core) test -e CORE && cat CORE ;;
  *) test -e DATABASE && cat DATABASE ;;
esac
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a bundled database, stopped, and the note that it was taken over."""
    body = DOCKER.replace("CORE", str(tmp_path / "core")).replace("DATABASE", str(tmp_path / "db"))
    program(tmp_path / "bin", "docker", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "database/pg15").mkdir(parents=True)
    (tmp_path / "database/pg15/PG_VERSION").write_text("15")
    (tmp_path / "db").write_text("false\n")
    (tmp_path / "migrated.json").write_text("{}")
    return tmp_path


def seen(node: Path) -> str | None:
    return preflight_probe.bundled_database(
        str(node / "database"), str(node / "migrated.json"), str(node / "harbor")
    )


def test_a_core_that_still_names_the_bundled_database_makes_the_step_planned_again(node: Path) -> None:
    """With the note alone the step was not even planned, and pushes since the copy were lost."""
    (node / "core").write_text("POSTGRESQL_HOST=postgresql\n")
    assert seen(node) == "stopped"
    (node / "db").write_text("true\n")
    assert seen(node) == "running"


def test_a_core_on_the_pair_has_left_it(node: Path) -> None:
    (node / "core").write_text("POSTGRESQL_HOST=10.20.0.11\n")
    assert seen(node) is None


def test_without_a_container_the_file_says_what_the_next_core_would_name(node: Path) -> None:
    assert seen(node) is None
    env = node / "harbor/common/config/core/env"
    env.parent.mkdir(parents=True)
    env.write_text("POSTGRESQL_HOST=postgresql\n")
    assert seen(node) == "stopped"
    env.write_text("POSTGRESQL_HOST=10.20.0.11\n")
    assert seen(node) is None


def test_a_database_whose_container_is_gone_can_have_taken_nothing_since(node: Path) -> None:
    """Compose removes it before it makes the new core: killed there, `docker start harbor-db` would be no way out."""
    (node / "core").write_text("POSTGRESQL_HOST=postgresql\n")
    (node / "db").unlink()
    assert seen(node) is None


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("POSTGRESQL_HOST=postgresql", True),
        ("A=1\nPOSTGRESQL_HOST=harbor-db\n", True),
        ("POSTGRESQL_HOST=\n", True),
        ("POSTGRESQL_HOST=10.0.0.1\n", False),
        ("", False),
    ],
)
def test_which_hosts_are_bundled(text: str, uses: bool) -> None:
    assert uses_bundled(text) is uses
