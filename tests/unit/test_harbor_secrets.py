"""Secrets become equal on all nodes, are never overwritten, and never leave by a message."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from blocks import HarborSite
from tasks.backup.restore.restore_config import Configuration, put_back_secrets
from tasks.errors import HarborHaError, Refused
from tasks.harbor import override, secrets
from tasks.harbor.on_node.secret_files import place
from tests.unit.harbor_site import NodeInDirectory, make_site

pytestmark = pytest.mark.servers


class NodeWithRoot(NodeInDirectory):
    """A node whose paths lie under a directory of its own."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name, root / "state")
        self.root = root
        root.mkdir()

    def python(self, source: str, payload: object = None, **options: Any) -> Any:
        return super().python(source, self.moved(payload), **options)

    def moved(self, value: Any) -> Any:
        """Move absolute paths in a payload under this node's root, and back in nothing."""
        if isinstance(value, dict):
            return {key: self.moved(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.moved(item) for item in value]
        return f"{self.root}{value}" if isinstance(value, str) and value.startswith("/data/") else value

    def read(self, path: str) -> bytes | None:
        return super().read(f"{self.root}{path}")

    def put(self, path: str, content: str | bytes, **options: Any) -> bool:
        return super().put(f"{self.root}{path}", content, **options)

    def secret(self, site: HarborSite, name: str) -> Path:
        """The file of a secret on this node."""
        return Path(f"{self.root}{secrets.paths(site)[name]}")


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(tmp_path)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[NodeWithRoot, NodeWithRoot]:
    # The paths that a node tells back are those that it was asked for.
    monkeypatch.setattr(secrets, "_place", placed_under_root)
    # Four times the bits take thirty times as long to find.
    monkeypatch.setattr(secrets, "TOKEN_KEY_BITS", 1024)
    return NodeWithRoot("node-a", tmp_path / "a"), NodeWithRoot("node-b", tmp_path / "b")


def placed_under_root(host: Any, files: dict[str, bytes]) -> None:
    """Place files as `secrets._place` does, under the root of a node in a directory."""
    for path, data in files.items():
        assert place(f"{host.root}{path}", data)


def share(site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]) -> bool:
    """Share the secrets; whether anything changed."""
    return secrets.share(site, *[node.as_host() for node in nodes]).changed


def test_new_secrets_are_equal_on_both_nodes_and_of_the_right_form(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    assert share(site, nodes)
    for name in secrets.paths(site):
        contents = {node.secret(site, name).read_bytes() for node in nodes}
        assert len(contents) == 1
        assert nodes[0].secret(site, name).stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(rb"[A-Za-z0-9]{16}", nodes[0].secret(site, secrets.SECRETKEY).read_bytes())
    assert not share(site, nodes)


def test_the_token_certificate_belongs_to_the_token_key(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    share(site, nodes)
    pem = nodes[0].secret(site, secrets.TOKEN_KEY).read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    certificate = x509.load_pem_x509_certificate(nodes[1].secret(site, secrets.TOKEN_CERT).read_bytes())
    assert pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert certificate.public_key() == key.public_key()


def test_a_node_that_has_served_gives_its_secrets_to_the_other(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    old = nodes[1].secret(site, secrets.SECRETKEY)
    old.parent.mkdir(parents=True)
    old.write_bytes(b"sixteen-chars-ok")
    assert share(site, nodes)
    assert nodes[0].secret(site, secrets.SECRETKEY).read_bytes() == b"sixteen-chars-ok"


def test_different_secretkeys_are_refused_by_name_and_nothing_is_written(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    for node, content in zip(nodes, (b"aaaaaaaaaaaaaaaa", b"bbbbbbbbbbbbbbbb"), strict=True):
        path = node.secret(site, secrets.SECRETKEY)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with pytest.raises(secrets.SecretsDiffer) as caught:
        share(site, nodes)
    assert "node-a, node-b" in str(caught.value)
    assert "aaaa" not in str(caught.value)
    assert not nodes[0].secret(site, secrets.TOKEN_KEY).exists()


def test_a_certificate_without_its_key_is_refused(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    lonely = nodes[0].secret(site, secrets.TOKEN_CERT)
    lonely.parent.mkdir(parents=True)
    lonely.write_bytes(b"certificate")
    with pytest.raises(Refused, match="no key"):
        share(site, nodes)


def test_a_run_killed_between_key_and_certificate_is_completed(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    share(site, nodes)
    kept = nodes[0].secret(site, secrets.TOKEN_KEY).read_bytes()
    for node in nodes:
        node.secret(site, secrets.TOKEN_CERT).unlink()
    nodes[1].secret(site, secrets.TOKEN_KEY).unlink()
    assert share(site, nodes)
    assert nodes[1].secret(site, secrets.TOKEN_KEY).read_bytes() == kept
    certificate = x509.load_pem_x509_certificate(nodes[1].secret(site, secrets.TOKEN_CERT).read_bytes())
    assert certificate.public_key() == serialization.load_pem_private_key(kept, None).public_key()


def test_a_secret_that_appeared_in_between_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secretkey"
    path.write_bytes(b"somebody else's")
    assert not place(str(path), b"ours")
    assert path.read_bytes() == b"somebody else's"
    assert list(tmp_path.iterdir()) == [path]


def test_the_override_pins_equal_secrets_and_is_closed_to_others(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    hosts = [node.as_host() for node in nodes]
    assert override.share(site, *hosts).changed
    files = [Path(f"{node.root}{override.path(site)}") for node in nodes]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert not override.share(site, *hosts).changed
    services = yaml.safe_load(files[0].read_text())["services"]
    assert len(services["core"]["environment"]["CSRF_KEY"]) == 32
    assert services["jobservice"]["environment"].items() <= services["core"]["environment"].items()


def test_pinned_secrets_that_differ_are_refused_without_showing_them() -> None:
    with pytest.raises(secrets.SecretsDiffer) as caught:
        override.agreed({"node-a": {"CSRF_KEY": "first-value"}, "node-b": {"CSRF_KEY": "other-value"}})
    assert "CSRF_KEY" in str(caught.value)
    assert "value" not in str(caught.value)


OPERATORS = """\
# mine
services:
  core:
    environment:
    - HTTP_PROXY=http://proxy:3128
  registry:
    volumes:
    - /etc/ssl:/etc/ssl:ro
    - /old/place:/storage:z
"""


def test_the_operators_entries_and_comments_stay_in_the_override(site: HarborSite) -> None:
    pins = override.agreed({})
    text = override.merged(OPERATORS, site, pins, None)
    document = yaml.safe_load(text)
    assert "# mine" in text
    assert document["services"]["core"]["environment"] == {"HTTP_PROXY": "http://proxy:3128", **pins}
    assert document["services"]["registry"]["volumes"] == [
        "/etc/ssl:/etc/ssl:ro",
        {"type": "bind", "source": "/mnt/harbor/registry", "target": "/storage"},
    ]
    assert override.merged(text, site, pins, None) == text
    assert override.pinned(text) == pins


def test_the_override_has_the_version_line_of_the_file_that_it_extends(site: HarborSite) -> None:
    pins = override.agreed({})
    with_line = override.merged(None, site, pins, "2.3")
    assert yaml.safe_load(with_line)["version"] == "2.3"
    assert "version" not in yaml.safe_load(override.merged(with_line, site, pins, None))


def test_harbors_network_has_the_subnet_that_pg_hba_admits(site: HarborSite) -> None:
    document = yaml.safe_load(override.merged(None, site, override.agreed({}), None))
    assert document["networks"]["harbor"]["ipam"]["config"] == [{"subnet": site.harbor.network}]


def test_an_override_that_cannot_be_read_is_refused(site: HarborSite) -> None:
    with pytest.raises(Refused, match=r"docker-compose\.override"):
        override.merged("services: [", site, override.agreed({}), None)


def pkcs8(pem: bytes) -> bytes:
    """The same key in the form that core does not read."""
    key = serialization.load_pem_private_key(pem, password=None)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def test_a_token_key_in_pkcs8_is_refused_with_the_command_that_converts_it(
    site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    share(site, nodes)
    for node in nodes:
        file = node.secret(site, secrets.TOKEN_KEY)
        file.write_bytes(pkcs8(file.read_bytes()))
    with pytest.raises(Refused, match="PKCS#8") as caught:
        share(site, nodes)
    assert len(caught.value.reasons) == 2
    command = caught.value.reasons[0].partition("-> ")[2]
    moved = command.replace("/data/", f"{nodes[0].root}/data/")
    subprocess.run(["sh", "-c", moved], check=True)
    assert nodes[0].secret(site, secrets.TOKEN_KEY).read_text().startswith("-----BEGIN RSA PRIVATE KEY-----")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_token_key_that_is_none_is_refused(
    content: bytes, site: HarborSite, nodes: tuple[NodeWithRoot, NodeWithRoot]
) -> None:
    share(site, nodes)
    nodes[1].secret(site, secrets.TOKEN_KEY).write_bytes(content)
    nodes[0].secret(site, secrets.TOKEN_KEY).write_bytes(content)
    with pytest.raises(Refused, match="no RSA private key"):
        share(site, nodes)


def test_the_token_key_of_a_backup_gets_the_form_that_core_reads_and_stays_the_same_key() -> None:
    key = secrets.new_token_key()
    assert secrets.traditional(key) == key
    assert secrets.traditional(pkcs8(key)) == key
    with pytest.raises(HarborHaError, match="private_key"):
        secrets.traditional(b"-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize("broken", [False, True])
def test_a_restore_puts_back_a_key_that_core_reads(broken: bool, tmp_path: Path) -> None:
    site = make_site(tmp_path, data_volume=str(tmp_path / "data"))
    key = secrets.new_token_key()
    saved = b"no key" if broken else pkcs8(key)
    configuration = Configuration(
        {
            "/old/secret/keys/secretkey": b"s" * 16,
            "/old/secret/core/private_key.pem": saved,
            "/old/secret/registry/root.crt": b"a certificate",
        }
    )
    node = NodeInDirectory("node-a", tmp_path / "state").as_host()
    assert put_back_secrets(site, node, configuration).changed
    placed = Path(secrets.paths(site)[secrets.TOKEN_KEY]).read_bytes()
    assert placed == (saved if broken else key)
    assert not put_back_secrets(site, node, configuration).changed
