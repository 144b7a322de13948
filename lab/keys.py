"""Keys, certificates and passwords of a lab: made once, kept as files that only their owner reads."""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from lab.topology import HOSTNAME, NODES, S3_HOST, Topology

# Some of Harbor's files carry a password unquoted; letters and digits survive every one of them.
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_ALPHABET = "".join(_KINDS)

PASSWORDS = (
    *("harbor-admin-password", "redis-password", "oss-access-key-secret"),
    "wal-passphrase",
    *("postgres-application-password", "postgres-replication-password", "postgres-rewind-password"),
)
OSS_ACCESS_KEY_ID = "LabAccessKey0001"

_OPENSSH = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass(frozen=True)
class KeyPair:
    """An SSH key pair in OpenSSH's formats."""

    private: str
    public: str


def ensure_keys(lab: Topology) -> None:
    """Make what is missing: SSH and host keys, certificates and their authority, passwords, age keys."""
    lab.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("ssh-key", *(f"{node}-host-key" for node in NODES)):
        _once(lab.secrets / name, lambda: _ssh_key())
    for name in PASSWORDS:
        _once(lab.secrets / name, draw_password)
    _once(lab.secrets / "age-identity", _age_identity)
    _once(lab.secrets / "signing-secret", lambda: f"{secrets.token_hex(32)}\n")
    _ensure_certificates(lab)


def draw_password() -> str:
    """Draw 24 letters and digits, with each kind that Harbor asks for: upper and lower case and a digit.

    One in 68 has no digit; the site file with such an administrator's password is refused.
    """
    while True:
        drawn = "".join(secrets.choice(_ALPHABET) for _ in range(24))
        if all(set(drawn) & set(kind) for kind in _KINDS):
            return drawn


def ssh_pair(lab: Topology, name: str) -> KeyPair:
    """An SSH key pair of the lab.

    Args:
        lab: the lab.
        name: `ssh-key`, which every node's root accepts, or `<node>-host-key`.
    """
    private = (lab.secrets / name).read_text()
    key = serialization.load_ssh_private_key(private.encode(), None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private, public.decode())


def secret(lab: Topology, name: str) -> str:
    """One of the lab's passwords, see `PASSWORDS`."""
    return (lab.secrets / name).read_text()


def age_recipient(lab: Topology) -> str:
    """The public half of the key that opens the lab's backups."""
    import pyrage  # here, so that `lab fence` starts in a tenth of a second

    return str(pyrage.x25519.Identity.from_str(secret(lab, "age-identity").strip()).to_public())


def _once(file: Path, make: Callable[[], str], mode: int = 0o600) -> None:
    if file.exists():
        return
    # Complete or absent: a key file that was half written would be taken for a key.
    unfinished = file.with_name(file.name + ".new")
    unfinished.touch(mode=mode)
    unfinished.write_text(make())
    unfinished.rename(file)


def _ssh_key() -> str:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(*_OPENSSH).decode()


def _age_identity() -> str:
    import pyrage

    return f"{pyrage.x25519.Identity.generate()}\n"


def _ensure_certificates(lab: Topology) -> None:
    for name in ("ca-key", "harbor-key", "oss-key"):
        _once(
            lab.secrets / name,
            lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(*_PKCS8).decode(),
        )
    authority = _certificate_key(lab, "ca-key")
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Lab {lab.name} CA")])
    usage = x509.BasicConstraints(ca=True, path_length=0)
    _once(
        lab.directory / "ca.pem",
        lambda: _pem(
            _signed(issuer, issuer, authority, authority).add_extension(usage, critical=True), authority
        ),
        mode=0o644,
    )
    _ensure_certificate(
        lab, "harbor", [x509.DNSName(HOSTNAME), x509.IPAddress(IPv4Address(lab.address("lb")))]
    )
    _ensure_certificate(lab, "oss", [x509.DNSName(S3_HOST), x509.DNSName(f"*.{S3_HOST}")])


def _ensure_certificate(lab: Topology, service: str, names: list[x509.GeneralName]) -> None:
    authority, server = _certificate_key(lab, "ca-key"), _certificate_key(lab, f"{service}-key")
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Lab {lab.name} CA")])
    first = names[0]
    assert isinstance(first, x509.DNSName)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, first.value)])
    alternative = x509.SubjectAlternativeName(names)
    _once(
        lab.directory / f"{service}.pem",
        lambda: _pem(
            _signed(subject, issuer, server, authority).add_extension(alternative, critical=False), authority
        ),
        mode=0o644,
    )


def _certificate_key(lab: Topology, name: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key((lab.secrets / name).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=825))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
    )


def _pem(builder: x509.CertificateBuilder, authority: ec.EllipticCurvePrivateKey) -> str:
    return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
