"""Registry bearer tokens: JWT RS256 signed by `private_key.pem`, verified by every core with the same key."""

import base64
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "harbor-token-issuer"
SERVICE = "harbor-registry"
LIFETIME = 30 * 60  # seconds; Harbor's default token_expiration
LEEWAY = 60


class BadToken(Exception):
    """The token is not ours, is damaged or has expired."""


@dataclass(frozen=True)
class Access:
    """What a token allows on one resource, e.g. repository `library/app`: pull, push."""

    kind: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def parse(cls, scope: str) -> "Access | None":
        """Read `repository:library/app:pull,push`; None when it is something else."""
        found = re.fullmatch(r"([a-z]+):([^:]+(?::\d+/[^:]+)?):([a-z,*]*)", scope)
        if found is None:
            return None
        return cls(found[1], found[2], tuple(action for action in found[3].split(",") if action))


def load_key(pem: bytes) -> rsa.RSAPrivateKey | None:
    """Read the signing key; None for one in PKCS#8.

    Harbor starts with such a key, is healthy, and answers 500 whenever a token is asked for: it takes what says
    `RSA PRIVATE KEY` only. Raises ValueError when it is not an RSA private key.
    """
    if b"BEGIN PRIVATE KEY" in pem:
        return None
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("private_key.pem is not an RSA key")
    return key


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def issue(key: rsa.RSAPrivateKey, subject: str, access: Iterable[Access], now: int) -> str:
    """Sign a token for `subject`, valid LIFETIME seconds from `now` (Unix time)."""
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "aud": SERVICE,
        "exp": now + LIFETIME,
        "nbf": now - LEEWAY,
        "iat": now,
        "jti": secrets.token_hex(8),
        "access": [{"type": a.kind, "name": a.name, "actions": list(a.actions)} for a in access],
    }
    head = _pack(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
    body = _pack(json.dumps(claims).encode())
    signature = key.sign(f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{head}.{body}.{_pack(signature)}"


def verify(key: rsa.RSAPrivateKey, token: str, now: int) -> tuple[str, Sequence[Access]]:
    """Return subject and access of a token. Raises BadToken when it must not be believed."""
    try:
        head, body, signature = token.split(".")
        key.public_key().verify(
            _unpack(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims: dict[str, Any] = json.loads(_unpack(body))
    except (ValueError, InvalidSignature) as error:
        raise BadToken("signature") from error
    if claims.get("aud") != SERVICE or not claims["nbf"] <= now < claims["exp"]:
        raise BadToken("expired or for another service")
    granted = [Access(a["type"], a["name"], tuple(a["actions"])) for a in claims["access"]]
    return claims["sub"], granted
