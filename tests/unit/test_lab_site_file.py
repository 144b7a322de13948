"""The lab writes the site file that an operator would write: the schema accepts it, the keys fit."""

import hashlib
import ipaddress
import os
from pathlib import Path

import pyrage
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from blocks.site_file import read_site_file
from lab import keys, site_file, topology
from lab.shell import LabError
from lab.topology import Topology


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Topology:
    monkeypatch.setattr(topology, "STATE", tmp_path)
    monkeypatch.setattr(site_file, "STATE", tmp_path)
    made = Topology("other", ipaddress.IPv4Network("172.30.95.0/24"), "mark")
    keys.ensure_keys(made)
    return made


@pytest.fixture
def installer(tmp_path: Path) -> site_file.Installer:
    path = tmp_path / "harbor-offline-installer-v2.13.2.tgz"
    path.write_bytes(b"an installer")
    return site_file.Installer(path, "v2.13.2", "0" * 64)


def test_the_schema_accepts_the_labs_site_file(lab: Topology, installer: site_file.Installer) -> None:
    site_file.write_site(lab, installer, {"node-a": 13, "node-b": 13, "node-c": 17})

    site = read_site_file(lab.site_file)

    assert [(node.name, node.address) for node in site.nodes] == [
        ("node-a", "172.30.95.11"),
        ("node-b", "172.30.95.12"),
    ]
    assert site.postgres.major == 13
    # The third node may run another release, with another PostgreSQL.
    assert read_site_file(lab.directory / "site-disaster.yml").postgres.major == 17
    assert site.redis.password.get_secret_value() == keys.secret(lab, "redis-password")
    assert (site.balancer.kind, site.balancer.admin_host) == ("haproxy", "172.30.95.22")


def test_no_secret_stands_in_the_site_file_itself(lab: Topology, installer: site_file.Installer) -> None:
    text = yaml.safe_dump(site_file.site(lab, site_file.PAIR, installer, 15))
    for name in (*keys.PASSWORDS, "ssh-key", "harbor-key", "age-identity"):
        assert keys.secret(lab, name).strip().splitlines()[-1] not in text
    assert "PRIVATE KEY" not in text


def test_the_fence_command_names_its_lab_and_leaves_the_node_open(lab: Topology) -> None:
    command = site_file.fence_command(lab)
    assert command[-4:] == ["--name", "other", "fence", "{node}"]


def test_keys_are_made_once_and_only_their_owner_reads_them(lab: Topology) -> None:
    before = {file.name: file.read_bytes() for file in lab.secrets.iterdir()}
    keys.ensure_keys(lab)
    assert {file.name: file.read_bytes() for file in lab.secrets.iterdir()} == before
    assert {os.stat(file).st_mode & 0o777 for file in lab.secrets.iterdir()} == {0o600}


def test_passwords_carry_nothing_that_harbors_files_could_trip_over(lab: Topology) -> None:
    values = [keys.secret(lab, name) for name in keys.PASSWORDS]
    assert all(value.isalnum() and value.isascii() and len(value) == 24 for value in values)
    assert len(set(values)) == len(values)


def test_a_drawn_password_has_a_digit_also_when_the_dice_fall_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fallen = iter("a" * 23 + "B" + "7" * 23 + "c" + "aB7" * 8)
    monkeypatch.setattr(keys.secrets, "choice", lambda _: next(fallen))
    assert keys.draw_password() == "aB7" * 8


def test_the_certificate_fits_its_key_its_names_and_its_authority(lab: Topology) -> None:
    authority = x509.load_pem_x509_certificate((lab.directory / "ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((lab.directory / "harbor.pem").read_bytes())
    key = load_pem_private_key((lab.secrets / "harbor-key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    server.verify_directly_issued_by(authority)
    assert server.public_key() == key.public_key()
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["harbor.lab"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["172.30.95.22"]


def test_what_is_encrypted_for_the_site_is_opened_with_the_labs_identity(lab: Topology) -> None:
    recipient = pyrage.x25519.Recipient.from_str(keys.age_recipient(lab))
    identity = pyrage.x25519.Identity.from_str(keys.secret(lab, "age-identity").strip())
    assert pyrage.decrypt(pyrage.encrypt(b"kept", [recipient]), [identity]) == b"kept"


def test_a_real_installer_takes_the_place_of_the_miniature_one(
    lab: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "harbor-offline-installer-v2.9.1.tgz"
    file.write_bytes(b"real")
    monkeypatch.setenv("HARBOR_INSTALLER", str(file))

    found = site_file.find_installer()

    assert (found.path, found.version) == (file, "v2.9.1")
    assert found.sha256 == hashlib.sha256(b"real").hexdigest()
    file.write_bytes(b"another")
    assert site_file.find_installer().sha256 != found.sha256


def test_an_installer_that_is_not_there_is_refused(
    lab: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARBOR_INSTALLER", str(tmp_path / "harbor-offline-installer-v2.9.1.tgz"))
    with pytest.raises(LabError, match="no Harbor offline installer"):
        site_file.find_installer()


def test_a_real_installer_of_another_version_than_the_labs_is_refused(
    lab: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "harbor-offline-installer-v2.9.1.tgz"
    file.write_bytes(b"real")
    monkeypatch.setenv("HARBOR_INSTALLER", str(file))
    assert site_file.find_installer("2.9.1").path == file
    with pytest.raises(LabError, match=r"names Harbor v2\.9\.1, and this lab is one of Harbor 2\.3\.2"):
        site_file.find_installer("2.3.2")
