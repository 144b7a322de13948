"""The miniature as an older or a newer Harbor, and what our software makes of each: they must fit each other."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.harbor import installer
from lab.harbor.app import migrate, tokens
from lab.harbor.app.habits import for_version, full_version, habits
from lab.harbor.app.prepare import main as prepare
from lab.harbor.app.prepare.model import Invalid, parse, validate
from lab.harbor.images import images
from lab.harbor.rootfs import Layers
from tasks.harbor import versions
from tasks.harbor.config import oss_storage, render
from tests.unit.harbor_site import make_site

VERSIONS = [full_version(f"2.{minor}") for minor in range(3, 16)]
COMPONENTS = ("trivy", "notary", "chartmuseum")


@pytest.fixture(autouse=True)
def anybody_may_own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare gives files to Harbor's users, which only root may do."""
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(os, "lchown", lambda *_: None)


def template(version: str) -> str:
    return installer.bundled("harbor.yml.tmpl", version).decode()


def document_of(version: str) -> dict[str, Any]:
    """The template, filled in as far as prepare asks for it."""
    document: dict[str, Any] = yaml.safe_load(template(version))
    document["hostname"] = "harbor.test"
    del document["https"]
    return document


class Node:
    """A node's directories, with a certificate where harbor.yml says."""

    def __init__(self, root: Path) -> None:
        for name in ("input", "config", "data", "compose_location", "hostfs"):
            (root / name).mkdir()
        self.paths = prepare.Paths(root)

    def prepare(self, text: str, version: str, components: tuple[str, ...] = ()) -> int:
        """Run prepare on a harbor.yml."""
        self.paths.input.write_text(text)
        https = yaml.safe_load(text).get("https") or {}
        for name in ("certificate", "private_key"):
            if name in https:
                file = self.paths.host / https[name].lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("pem")
        return prepare.run(self.paths, f"v{version}", components)

    def environment(self, name: str) -> dict[str, str]:
        """The content of an env file."""
        lines = (self.paths.config / name).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def services(self) -> dict[str, Any]:
        """The services of docker-compose.yml."""
        found: dict[str, Any] = yaml.safe_load(self.paths.compose.read_text())["services"]
        return found


@pytest.fixture
def node(tmp_path: Path) -> Node:
    root = tmp_path / "node"
    root.mkdir()
    return Node(root)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_template_of_every_version_is_whole(version: str) -> None:
    text = template(version)
    assert "@" not in text
    assert yaml.safe_load(text)["_version"] == f"2.{habits(version).minor}.0"
    parse(document_of(version), habits(version))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("block", ["external_database", "external_redis", "metric", "storage_service"])
def test_a_commented_block_of_every_template_is_valid_without_its_marks(version: str, block: str) -> None:
    lines = template(version).splitlines()
    start = lines.index(f"# {block}:")
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("#"))
    text = "\n".join(line.removeprefix("# ") for line in lines[start:end])
    assert block in yaml.safe_load(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_our_software_writes_into_a_template_is_taken_by_that_versions_prepare(
    version: str, node: Node, tmp_path: Path
) -> None:
    site = make_site(tmp_path, version=version)
    storage = oss_storage(site.oss, versions.parse_version(version), "backup")
    components = habits(version).components
    assert (
        node.prepare(render(template(version), site, "10.20.0.11", storage=storage), version, components) == 0
    )
    assert node.environment("core/env")["POSTGRESQL_HOST"] == "10.20.0.11"
    assert versions.component_flags(versions.parse_version(version), components) == [
        f"--with-{name}" for name in components
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_our_software_and_the_miniature_know_the_same_of_a_version(version: str) -> None:
    ours, real = versions.habits(versions.parse_version(version)), habits(version)
    assert (ours.redirect_key, ours.components) == (real.redirect_key, real.components)
    assert (ours.job_loggers, ours.sweeper_and_hook_timeout) == (
        real.job_loggers,
        real.sweeper_and_hook_timeout,
    )
    assert (ours.compose_version is not None) == real.compose_version


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        ("2.8.0", "logger_sweeper_duration"),
        ("2.8.0", "webhook_job_http_client_timeout"),
        ("2.9.5", "job_loggers"),
        ("2.3.2", "webhook_job_max_retry"),
    ],
)
def test_a_key_that_a_version_insists_on_is_a_raw_key_error(version: str, missing: str) -> None:
    document = document_of(version)
    for section in ("jobservice", "notification"):
        document[section].pop(missing, None)
    with pytest.raises(KeyError, match=missing):
        parse(document, habits(version))


@pytest.mark.parametrize(("version", "wrong"), [("2.7.0", "disable"), ("2.8.0", "disabled")])
def test_the_redirect_switch_of_the_other_versions_is_a_raw_key_error(version: str, wrong: str) -> None:
    document = {**document_of(version), "storage_service": {"redirect": {wrong: True}}}
    with pytest.raises(KeyError):
        parse(document, habits(version))


def test_before_2_8_prepare_renews_four_secrets_and_not_five(node: Node) -> None:
    text = yaml.safe_dump(document_of("2.3.2"))
    node.prepare(text, "2.3.2")
    first = node.environment("core/env")
    node.prepare(text, "2.3.2")
    second = node.environment("core/env")
    changed = {key for key in first if first[key] != second[key]} - {"NO_PROXY"}
    assert changed == {"CORE_SECRET", "JOBSERVICE_SECRET", "REGISTRY_CREDENTIAL_PASSWORD", "CSRF_KEY"}


def test_notary_and_chartmuseum_have_their_files_containers_and_port(node: Node, tmp_path: Path) -> None:
    site = make_site(tmp_path, version="2.3.2")
    text = render(template("2.3.2"), site, "10.20.0.11")
    assert node.prepare(text, "2.3.2", COMPONENTS) == 0
    assert {"notary-server", "notary-signer", "chartmuseum", "trivy-adapter"} <= set(node.services)
    assert "4443:4443" in node.services["proxy"]["ports"]
    naming = {
        str(path.relative_to(node.paths.config))
        for path in node.paths.config.rglob("*")
        if path.is_file() and "10.20.0.11" in path.read_text()
    }
    assert naming == {
        "core/env",
        "notary/server-config.postgres.json",
        "notary/signer-config.postgres.json",
        "notary/server_env",
        "notary/signer_env",
    }
    assert (node.paths.data / "secret/keys/defaultalias").exists()
    assert (node.paths.data / "chart_storage").is_dir()
    assert node.environment("core/env")["WITH_NOTARY"] == "True"


def test_notary_asks_for_https() -> None:
    document = document_of("2.8.0")
    with pytest.raises(Invalid, match="must be https when Harbor is deployed with Notary"):
        validate(parse(document, habits("2.8.0"), ["notary"]), document)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_service_has_its_image_in_the_installer(version: str, node: Node, tmp_path: Path) -> None:
    site = make_site(tmp_path, version=version)
    node.prepare(render(template(version), site, "10.20.0.11"), version, habits(version).components)
    layers = Layers(tmp_path / "base.tar", tmp_path / "postgres.tar")
    for file in (layers.base, layers.postgres):
        file.write_bytes(b"")
    there = {image.tag for image in images(layers, installer.archive.Layer("app", layers.base), version)}
    assert {service["image"] for service in node.services.values()} <= there


@pytest.mark.parametrize(
    ("version", "flag", "status"),
    [
        ("2.3.2", "--with-chartmuseum", 0),
        ("2.8.0", "--with-chartmuseum", 1),
        ("2.8.0", "--with-notary", 0),
        ("2.9.5", "--with-notary", 1),
        ("2.3.2", "--with-clair", 1),
    ],
)
def test_install_takes_the_flags_of_its_version(version: str, flag: str, status: int, tmp_path: Path) -> None:
    for name in ("install.sh", "common.sh"):
        (tmp_path / name).write_bytes(installer.bundled(name, version))
    said = "#!/bin/sh\necho 'Docker version 20.10.24, build 1'\n"
    for name, text in (("docker", said), ("docker-compose", said), ("prepare", '#!/bin/sh\necho "ran $*"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["bash", str(tmp_path / "install.sh"), flag]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert (f"ran {flag}" in done.stdout) == (status == 0)


def test_install_before_2_5_knows_no_compose_plugin(tmp_path: Path) -> None:
    assert "docker compose" not in installer.bundled("common.sh", "2.4.0").decode()
    assert "docker compose" in installer.bundled("common.sh", "2.5.0").decode()


@pytest.mark.parametrize(
    ("version", "newest"), [("2.3.2", 60), ("2.9.5", 120), ("2.13.2", 160), ("2.15.0", 180)]
)
def test_a_version_brings_the_migrations_up_to_its_own(version: str, newest: int) -> None:
    known = migrate.steps(habits(version).schema)
    assert known[-1].version == newest
    with pytest.raises(migrate.MigrationFailed, match=f"no migration found for version {newest + 10}"):
        migrate.pending(known, newest + 10, dirty=False)


def test_an_older_schema_is_brought_up_to_date_by_a_newer_version() -> None:
    todo = migrate.pending(migrate.steps(habits("2.13.2").schema), 120, dirty=False)
    assert [step.version for step in todo] == [130, 140, 150, 160]


def test_a_key_in_pkcs8_is_taken_at_the_start_and_signs_nothing() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def pem(form: serialization.PrivateFormat) -> bytes:
        return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    assert tokens.load_key(pem(serialization.PrivateFormat.TraditionalOpenSSL)) is not None
    assert tokens.load_key(pem(serialization.PrivateFormat.PKCS8)) is None


@pytest.mark.parametrize(
    ("word", "full"), [("2.3", "2.3.2"), ("2.9", "2.9.5"), ("v2.10.1", "2.10.1"), ("2.10", "2.10.0")]
)
def test_a_minor_version_stands_for_one_of_its_patches(word: str, full: str) -> None:
    assert full_version(word) == full


@pytest.mark.parametrize("word", ["2.2.0", "2.16", "3.0", "latest", ""])
def test_a_version_that_is_none_is_refused_with_those_that_are(word: str) -> None:
    with pytest.raises(ValueError, match=r"from 2\.3 to 2\.15"):
        full_version(word)


def test_what_lies_between_marks_is_for_some_versions_only() -> None:
    text = "a\n@from 5\nb\n@until 7\nc\n@end\n@end\nd\n"
    assert [for_version(text, minor).split() for minor in (4, 5, 8)] == [
        ["a", "d"],
        ["a", "b", "c", "d"],
        ["a", "b", "d"],
    ]
