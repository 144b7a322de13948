"""Credentials at rest: AES-CFB under `secretkey`, marked `<enc-v1>`.

Harbor's scheme has no authentication: with a wrong key it decrypts to garbage in silence, and an operator
learns of it when replication fails. Ours puts a known prefix before the text, so that a lab can see it.
"""

import base64
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MARK = "<enc-v1>"
MAGIC = b"mini:"
BLOCK = 16


class WrongKey(Exception):
    """The value was encrypted under another secretkey."""


def _cfb(key: bytes, iv: bytes, data: bytes, *, encrypting: bool) -> bytes:
    # CFB by hand over single blocks: the library moved its own CFB between modules across releases.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    result, previous = bytearray(), iv
    for start in range(0, len(data), BLOCK):
        chunk = data[start : start + BLOCK]
        stream = encryptor.update(previous)
        output = bytes(a ^ b for a, b in zip(chunk, stream, strict=False))
        result += output
        previous = output if encrypting else chunk
    return bytes(result)


def encrypt(plain: str, secretkey: str) -> str:
    """Encrypt a credential for the column `registry.access_secret`."""
    iv = os.urandom(BLOCK)
    sealed = _cfb(secretkey.encode(), iv, MAGIC + plain.encode(), encrypting=True)
    return MARK + base64.b64encode(iv + sealed).decode()


def decrypt(value: str, secretkey: str) -> str:
    """Decrypt a credential. Raises WrongKey when it was sealed under another key."""
    if not value.startswith(MARK):
        return value
    raw = base64.b64decode(value[len(MARK) :])
    opened = _cfb(secretkey.encode(), raw[:BLOCK], raw[BLOCK:], encrypting=False)
    if not opened.startswith(MAGIC):
        raise WrongKey("the credential was encrypted with another secretkey")
    return opened[len(MAGIC) :].decode()
