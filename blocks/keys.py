"""SSH and age keys as text: do they parse, and what are they."""

import base64
import binascii
import contextlib
import hashlib
import io
import re
import struct
from collections.abc import Iterable
from typing import Any

import paramiko
import pyrage
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

HOST_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)


_NEW_KEY = "a key of its own for this: ssh-keygen -t ed25519 -N '' -f FILE"
_PLAIN_KEY = "an unencrypted OpenSSH or PEM private key"
# What a text begins with, what it is, and what would be right.
_OTHER_KEYS = (
    ("ssh-", "is a public key", _PLAIN_KEY),
    ("ecdsa-", "is a public key", _PLAIN_KEY),
    ("-----BEGIN CERTIFICATE", "is a certificate", _PLAIN_KEY),
    ("PuTTY-User-Key-File", "is in PuTTY's form", "puttygen FILE -O private-openssh -o NEW"),
    ("---- BEGIN SSH2", "is in the form of ssh.com", _NEW_KEY),
    ("-----BEGIN DSA", "is a DSA key, which SSH servers refuse", _NEW_KEY),
    ("-----BEGIN ENCRYPTED", "is encrypted with a passphrase", "ssh-keygen -p -N '' -f FILE takes it off"),
)


def private_key_flaw(text: str) -> tuple[str, str] | None:
    """Given the text of a private key, say why SSH cannot use it and what would be right, or None when it can."""
    text = plain_text(text)
    if not text:
        return "is empty", _PLAIN_KEY
    for start, what, right in _OTHER_KEYS:
        if text.startswith(start):
            return what, right
    if text.startswith("-----BEGIN PRIVATE KEY"):
        return "is in PKCS#8 form", _conversion(text)
    try:
        load_private_key(text)
    except paramiko.PasswordRequiredException:
        return "is encrypted with a passphrase", "ssh-keygen -p -N '' -f FILE takes it off"
    except Exception:  # paramiko raises SSHException, ValueError, binascii.Error… for broken keys
        if _needs_token(text):
            return "needs its hardware token to be touched at every login", _NEW_KEY
        return "is not a private key", _PLAIN_KEY
    return None


def plain_text(text: str) -> str:
    """Take off what editors put around a key: a byte order mark, carriage returns, empty lines."""
    return text.lstrip("\ufeff").replace("\r\n", "\n").strip()


def _conversion(text: str) -> str:
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except Exception:  # cryptography raises ValueError, TypeError, UnsupportedAlgorithm for broken keys
        return _PLAIN_KEY
    if isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        return "OpenSSH's form: ssh-keygen -p -P '' -N '' -f FILE writes it"
    # ssh-keygen reads ed25519 in that form from OpenSSH 9.6 on only.
    return _NEW_KEY


def _needs_token(text: str) -> bool:
    body = "".join(line for line in text.splitlines() if not line.startswith("-----"))
    with contextlib.suppress(binascii.Error, ValueError):
        blob = base64.b64decode(body)
        return b"sk-ssh-ed25519@openssh.com" in blob or b"sk-ecdsa-sha2-nistp256@openssh.com" in blob
    return False


def load_private_key(text: str) -> paramiko.PKey:
    """Read a private key; what paramiko raises says why not."""
    text = plain_text(text) + "\n"
    try:
        return _loaded(text)
    except paramiko.PasswordRequiredException:
        raise
    except Exception:
        other = _in_the_old_form(text)
        if other is None:
            raise
        return _loaded(other)


def _in_the_old_form(text: str) -> str | None:
    """Write an RSA or ECDSA key of OpenSSH's form in the older one; None for any other.

    paramiko takes the end of a key for padding when it needs none and has no comment, which is what ssh-keygen makes
    of half of the ECDSA keys that it converts.
    """
    if not text.startswith("-----BEGIN OPENSSH PRIVATE KEY-----"):
        return None
    try:
        key = load_ssh_private_key(text.encode(), None)
        if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
            return None
        old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return old.decode("ascii", "replace")
    except Exception:  # what is wrong with it is told by whoever reads it as it is
        return None


def _loaded(text: str) -> paramiko.PKey:
    last: Exception = paramiko.SSHException("no key class")
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise
        except Exception as error:
            last = error
    raise last


def normal_host_key(line: str) -> str:
    """Given a `.pub` line or a line of known_hosts, return `TYPE BASE64`; other text is returned as it is."""
    words = line.split()
    for position, word in enumerate(words[:2]):
        if word in HOST_KEY_TYPES and len(words) > position + 1:
            return f"{word} {words[position + 1]}"
    return line.strip()


def host_key_flaw(line: str) -> str | None:
    """Given a host key as `TYPE BASE64`, say what is wrong with it, or None."""
    words = line.split()
    if not words or words[0] not in HOST_KEY_TYPES:
        return f"does not begin with a key type ({', '.join(HOST_KEY_TYPES[:2])}, …)"
    if len(words) != 2:
        return "is not one key type and one key"
    try:
        blob = base64.b64decode(words[1], validate=True)
        (length,) = struct.unpack(">I", blob[:4])
        inner = blob[4 : 4 + length].decode("ascii")
    except (binascii.Error, struct.error, UnicodeDecodeError):
        return "is cut off or not base64"
    if inner != words[0]:
        return f"says {words[0]} but contains a key of type {inner}"
    try:
        load_ssh_public_key(line.encode())
    except Exception:  # cryptography raises ValueError, UnsupportedAlgorithm and others for broken keys
        return "is not a whole public key"
    return None


def fingerprint(host_key: str) -> str:
    """Given a host key as `TYPE BASE64`, return its fingerprint as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def age_recipient_flaw(text: str) -> str | None:
    """Given an age recipient, say why nothing can be encrypted for it, or None."""
    if text.startswith("AGE-SECRET-KEY-"):
        return "is a secret key"
    try:
        (pyrage.ssh if text.startswith("ssh-") else pyrage.x25519).Recipient.from_str(text)
    except Exception:  # pyrage raises RecipientError, or ValueError for other text
        return "is not an age public key"
    return None


def signing_secret_flaw(text: str) -> str | None:
    """Given the text of a signing secret, say why backups cannot be signed with it, or None."""
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        return "is empty"
    return None if all(re.fullmatch("[0-9a-fA-F]{64}", key) for key in keys) else "is not a signing secret"


def age_identity_flaw(text: str) -> str | None:
    """Given the text of an age identity file, say why nothing can be decrypted with it, or None."""
    keys = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        if text.startswith("-----BEGIN"):
            pyrage.ssh.Identity.from_buffer(text.encode())
            return None
        for key in keys:
            pyrage.x25519.Identity.from_str(key.strip())
    except Exception:  # pyrage raises IdentityError, or ValueError for other text
        return "is not an age identity"
    return None if keys else "is empty"


def decrypts(identity: str, recipients: Iterable[str]) -> bool:
    """Whether an age identity decrypts what is encrypted for these recipients; one that cannot be read is not judged.

    Args:
        identity: the text of an identity file.
        recipients: public keys, `age1…` or `ssh-ed25519 …`.
    """
    if age_identity_flaw(identity) is not None:
        return True
    if identity.startswith("-----BEGIN"):
        own = [pyrage.ssh.Identity.from_buffer(identity.encode())]
    else:
        lines = [line.strip() for line in identity.splitlines() if line.strip() and not line.startswith("#")]
        own = [pyrage.x25519.Identity.from_str(line) for line in lines]
    usable = [line.strip() for line in recipients if age_recipient_flaw(line.strip()) is None]
    kinds = [(pyrage.ssh if line.startswith("ssh-") else pyrage.x25519, line) for line in usable]
    sealed = [pyrage.encrypt(b"x", [kind.Recipient.from_str(line)]) for kind, line in kinds]
    return any(_opens(text, own) for text in sealed)


def _opens(sealed: bytes, identities: list[Any]) -> bool:
    try:
        return bool(pyrage.decrypt(sealed, identities))
    except Exception:  # pyrage raises DecryptError; here it is an answer
        return False
