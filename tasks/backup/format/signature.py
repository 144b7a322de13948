"""Whose word a manifest is: HMAC-SHA256 with a key that the bucket does not hold.

Everything else of a backup is named in the manifest with its sha256, so this one object says for all of them that
the orchestrator wrote them. Whoever may write into the bucket can make every object, marker and checksum fit; this
they cannot make.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import HarborHaError

KEY_BYTES = 32


class NotSigned(HarborHaError):
    """A manifest has no signature, or there is no key to check it with."""


class SignatureWrong(HarborHaError):
    """A manifest was not signed with any key of the site."""


@dataclass(frozen=True)
class Trust:
    """Which manifests are believed.

    Attributes:
        keys: 32 bytes each; the first one signs, all are accepted.
        accept_unsigned: believe also what none of them signed: an operator said so.
    """

    keys: tuple[bytes, ...] = ()
    accept_unsigned: bool = False

    def __repr__(self) -> str:
        # A traceback shows it; the keys are secrets.
        return f"Trust({len(self.keys)} keys, accept_unsigned={self.accept_unsigned})"


# For what is only counted and listed, and for what only ever keeps more (the digests that prune must not remove).
ANYONE = Trust(accept_unsigned=True)


def parse_signing_secret(text: str) -> tuple[bytes, ...]:
    """Read keys, 64 hexadecimal digits a line, from `backup.signing_secret`; raises ValueError."""
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(bytes.fromhex(line) for line in lines if line and not line.startswith("#"))
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise ValueError(f"not {2 * KEY_BYTES} hexadecimal digits a line")
    return keys


def signature_of(content: bytes, trust: Trust) -> bytes:
    """The signature object for a manifest: the key's name and the HMAC, both hexadecimal.

    The HMAC is over the bytes of `manifest.json` and nothing else, so that openssl alone can check it.
    """
    key = trust.keys[0]
    return f"{key_name(key)} {_hmac(key, content)}\n".encode()


def key_name(key: bytes) -> str:
    """Eight digits by which a human tells keys apart; nothing is derived from them."""
    return hashlib.sha256(b"harbor-ha signing key " + key).hexdigest()[:8]


def require_signed(content: bytes, signature: bytes | None, trust: Trust, where: str) -> None:
    """Return when a manifest is to be believed.

    Args:
        content: of `manifest.json`.
        signature: the object beside it, None when there is none.
        trust: the keys.
        where: the backup, for the message.

    Raises:
        NotSigned, SignatureWrong: with the way out.
    """
    if trust.accept_unsigned:
        return
    if not trust.keys:
        raise NotSigned(
            "There is no key to check the signature of the backup with.",
            where=where,
            meaning="Whoever may write into the bucket could have made it.",
            remedy="Put backup.signing_secret from your safe into the site file and apply it; without it, "
            "accept_unsigned=true believes the bucket.",
        )
    if signature is None:
        raise NotSigned(
            "The backup is not signed.",
            where=where,
            meaning="It was made before this software signed backups, or somebody else made it.",
            remedy="If you know it to be yours: `harbor-ha run restore-drill --param backup=ID "
            "--param accept_unsigned=true --param sign=true` signs it once it was restored, or "
            "accept_unsigned=true restores it as it is.",
        )
    if not _fits(content, signature, trust.keys):
        raise SignatureWrong(
            f"The backup is signed with none of the site's {len(trust.keys)} keys.",
            where=where,
            meaning="Somebody changed it, or its key is no longer in backup.signing_secret.",
            remedy="Use another backup; where the key was rotated, put the old one into the second line.",
        )


def _fits(content: bytes, signature: bytes, keys: Sequence[bytes]) -> bool:
    given = signature.decode("ascii", "replace").split()
    return bool(given) and any(hmac.compare_digest(_hmac(key, content), given[-1]) for key in keys)


def _hmac(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()
