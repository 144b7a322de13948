"""Secrets of a prepare run: those that are new each time, and those that stay under data_volume."""

import secrets
import string
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ALPHABET = string.ascii_letters + string.digits
HARBOR_UID = 10000
SECRETKEY_LENGTH = 16


def draw(length: int) -> str:
    """A random word of letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


@dataclass(frozen=True)
class FreshSecrets:
    """What every run of prepare draws anew, and what two nodes therefore never agree on by themselves."""

    core_secret: str
    jobservice_secret: str
    registry_password: str
    csrf_key: str
    scanner_prefix: str

    @classmethod
    def new(cls) -> "FreshSecrets":
        """Draw all five."""
        return cls(draw(16), draw(16), draw(32), draw(32), draw(8))


def keep_alias(path: Path) -> None:
    """Keep the name of the key that notary's signer encrypts with, else draw one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(draw(8))


def keep_secretkey(path: Path) -> None:
    """Keep an existing secretkey, else draw one. Raises RuntimeError for one of another length."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(draw(SECRETKEY_LENGTH))
    elif len(path.read_bytes()) != SECRETKEY_LENGTH:
        raise RuntimeError(f"secret key's length has to be 16 chars, current length: {path.stat().st_size}")


def _certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "harbor-token-issuer")])
    # Naive, in UTC, as x509 wants it; datetime.UTC is not known to every Python that this runs on.
    now = datetime(1970, 1, 1) + timedelta(seconds=int(time.time()))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def keep_token_pair(private_key: Path, certificate: Path, bits: int = 2048) -> bool:
    """Keep the token key and its certificate when both exist; else make BOTH anew, over what is there.

    So a node that lost only root.crt also loses its key, and with it every token that the other node signed.
    Returns whether a pair was made. Harbor makes 4096 bits; 2048 saves seconds on a small lab.
    """
    if private_key.exists() and certificate.exists():
        return False
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    for path, content in ((private_key, pem), (certificate, _certificate(key))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return True
