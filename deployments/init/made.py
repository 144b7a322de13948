"""What init draws: keys, passwords, an age identity, a certificate."""

import ipaddress
import secrets
import string
from datetime import datetime, timedelta

import pyrage
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from blocks.keys import load_private_key
from blocks.value_rules import admin_password, is_ip

_ALPHABET = string.ascii_letters + string.digits
_YEARS = 10


def password() -> str:
    """Draw 32 letters and digits; all files of Harbor carry them."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(32))


def password_of_admin() -> str:
    """Draw one that Harbor takes for its admin."""
    while admin_password(SecretStr(drawn := password())):
        pass
    return drawn


def ssh_key() -> str:
    """Draw an Ed25519 key, in OpenSSH's form."""
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def age_identity() -> tuple[str, str]:
    """Draw an age identity; return the text of its file and its public key."""
    own = pyrage.x25519.Identity.generate()
    public = str(own.to_public())
    return f"# public key: {public}\n{own}\n", public


def self_signed(hostname: str, now: datetime) -> tuple[str, str]:
    """Make a certificate for a host name or an IP address, its own authority, for ten years.

    Args:
        hostname: what clients ask for.
        now: with a time zone.

    Returns:
        certificate and key, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    other = x509.IPAddress(ipaddress.ip_address(hostname)) if is_ip(hostname) else x509.DNSName(hostname)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back: the nodes' clocks may be a little behind.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()


def public_line(private_key: str, comment: str) -> str:
    """Give the line for authorized_keys that belongs to a private key."""
    key = load_private_key(private_key)
    return f"{key.get_name()} {key.get_base64()} {comment}"
