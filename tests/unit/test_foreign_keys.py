"""Keys and addresses that a site cannot use: what they are, and what turns them into ones that it can."""

import base64
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from blocks import SiteFileInvalid, read_site_file
from blocks.flaw import Flaw
from blocks.keys import load_private_key
from blocks.value_rules import private_key
from tests.unit.site_on_disk import NOW, SiteOnDisk, correct_site

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(
    key: "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey", password: bytes = b""
) -> str:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


def openssh_of(kind: str) -> str:
    """A key file of a type that has no private part in it, shaped as OpenSSH writes it."""

    def text(value: bytes) -> bytes:
        return struct.pack(">I", len(value)) + value

    public = text(kind.encode()) + text(b"x" * 32)
    blob = (
        b"openssh-key-v1\0" + text(b"none") + text(b"none") + text(b"") + struct.pack(">I", 1) + text(public)
    )
    body = base64.encodebytes(blob + text(b"\0" * 64)).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}-----END OPENSSH PRIVATE KEY-----\n"


PUTTY = "PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\nComment: me\r\n"


def flaw(text: str) -> Flaw:
    found = private_key(SecretStr(text))
    assert found is not None
    return found


@pytest.mark.parametrize("key", [RSA, EC], ids=["RSA", "EC"])
def test_a_key_in_pkcs8_is_named_with_the_command_that_converts_it(
    key: "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey", tmp_path: Path
) -> None:
    found = flaw(pem(key))
    assert "PKCS#8" in found.what
    assert "ssh-keygen -p -P '' -N '' -f FILE" in found.right
    file = tmp_path / "id"
    file.write_text(pem(key))
    file.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "", "-f", str(file)], check=True)
    assert load_private_key(file.read_text())


def test_every_ecdsa_key_that_ssh_keygen_converts_is_read(tmp_path: Path) -> None:
    """Of some of them paramiko took the end for padding: they have no comment, and fill their last block."""
    for number in range(32):
        key = ec.generate_private_key(ec.SECP256R1())
        file = tmp_path / f"id{number}"
        file.write_text(pem(key))
        file.chmod(0o600)
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "", "-f", str(file)], check=True)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()[1]
        assert load_private_key(file.read_text()).get_base64() == public


@pytest.mark.parametrize(
    ("text", "what", "right"),
    [
        (pem(ED), "PKCS#8", "ssh-keygen -t ed25519"),
        (pem(RSA, b"secret"), "encrypted with a passphrase", "ssh-keygen -p -N '' -f FILE"),
        (PUTTY, "PuTTY's form", "puttygen FILE -O private-openssh -o NEW"),
        (openssh_of("sk-ssh-ed25519@openssh.com"), "hardware token", "ssh-keygen -t ed25519"),
        (openssh_of("sk-ecdsa-sha2-nistp256@openssh.com"), "hardware token", "ssh-keygen -t ed25519"),
        (
            "-----BEGIN DSA PRIVATE KEY-----\nMIIB\n-----END DSA PRIVATE KEY-----\n",
            "DSA",
            "ssh-keygen -t ed25519",
        ),
        ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n", "ssh.com", "ssh-keygen -t ed25519"),
        ("-----BEGIN CERTIFICATE-----\n", "is a certificate", "private key"),
        ("", "is empty", "private key"),
    ],
    ids=["ed25519", "encrypted", "PuTTY", "sk", "sk-ecdsa", "DSA", "ssh.com", "certificate", "empty"],
)
def test_a_key_that_cannot_be_used_is_named_for_what_it_is(text: str, what: str, right: str) -> None:
    found = flaw(text)
    assert what in found.what
    assert right in found.right


def test_a_key_from_windows_is_read(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
    text = (tmp_path / "id").read_text()
    for way in (text.replace("\n", "\r\n"), "\ufeff" + text, "\n\n" + text + "\n\n"):
        assert private_key(SecretStr(way)) is None
        assert load_private_key(way).asbytes() == load_private_key(text).asbytes()


@pytest.fixture
def site(tmp_path: Path) -> SiteOnDisk:
    return correct_site(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("nodes.node-a.address", "fd00::11", "IPv6"),
        ("nodes.node-a.address", "[fd00::11]", "IPv6"),
        ("redis.host", "2001:db8::5", "IPv6"),
        ("balancer.address", "fe80::1%eth0", "IPv6"),
        ("harbor.hostname", "2001:db8::10", "IPv6"),
        ("oss.endpoint", "https://[2001:db8::10]", "IPv6"),
        ("oss.endpoint", "https://harbor-backup.oss-cn-shanghai.aliyuncs.com", "https://oss-cn-shanghai"),
        (
            "oss.s3_endpoint",
            "https://harbor-backup.s3.oss-cn-shanghai.aliyuncs.com",
            "https://s3.oss-cn-shanghai",
        ),
        ("oss.endpoint", "https://[::1", "is not an address"),
        ("oss.endpoint", "https://oss-cn-shanghai.aliyuncs.com:x", "is not an address"),
    ],
)
def test_an_address_that_would_fail_later_is_refused_at_the_check(
    site: SiteOnDisk, path: str, value: str, said: str
) -> None:
    *parents, last = path.split(".")
    section = site.data
    for parent in parents:
        section = section[parent]
    site.data["oss"]["bucket"] = "harbor-backup"
    section[last] = value
    with pytest.raises(SiteFileInvalid) as caught:
        read_site_file(site.write(), environ={}, now=NOW)
    found = {problem.path: f"{problem.what} -> {problem.right}" for problem in caught.value.problems}
    assert said in found[path]
