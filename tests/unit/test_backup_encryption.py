"""age around streams: what is encrypted is readable by its identity only, and damage is never silent."""

import io
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from tasks.backup.format.encryption import (
    DecryptionFailed,
    IdentityUnusable,
    NoRecipients,
    _Pump,
    decrypted,
    encrypted,
    identities_of,
    recipients_of,
)
from tasks.backup.format.hashing import HashingReader
from tasks.errors import Refused

IDENTITY = pyrage.x25519.Identity.generate()
PUBLIC = str(IDENTITY.to_public())
PLAIN = os.urandom(3_000_001)


def encrypt(plain: bytes) -> bytes:
    source = HashingReader(io.BytesIO(plain))
    with encrypted(source, recipients_of([PUBLIC], "the test")) as pump:
        stored = pump.output.read()
        pump.finish()
    assert source.size == len(plain)
    return stored


def decrypt(stored: bytes, identity: object = IDENTITY) -> bytes:
    with decrypted(HashingReader(io.BytesIO(stored)), [identity], "the test") as plain:
        return plain.read()


def test_a_stream_comes_back_as_it_went() -> None:
    stored = encrypt(PLAIN)
    assert PLAIN[:64] not in stored
    assert decrypt(stored) == PLAIN


def test_the_standard_tools_read_what_we_write() -> None:
    assert pyrage.decrypt(encrypt(b"hello"), [IDENTITY]) == b"hello"


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored[:-1],
        lambda stored: stored[: 1 << 20],
        lambda stored: stored[:900_000] + bytes([stored[900_000] ^ 1]) + stored[900_001:],
        lambda stored: stored + b"x",
        lambda _: b"",
    ],
    ids=["one byte short", "a third", "one bit", "one byte more", "empty"],
)
def test_damage_is_found(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DecryptionFailed, match="the test"):
        decrypt(damage(encrypt(PLAIN)))


def test_a_damaged_tail_is_found_although_the_reader_stopped_before_it() -> None:
    stored = encrypt(PLAIN)[:-1]
    with (
        pytest.raises(DecryptionFailed),
        decrypted(HashingReader(io.BytesIO(stored)), [IDENTITY], "the test") as plain,
    ):
        assert plain.read(10) == PLAIN[:10]


def test_another_identity_is_told_so() -> None:
    with pytest.raises(DecryptionFailed, match="another identity"):
        decrypt(encrypt(b"hello"), pyrage.x25519.Identity.generate())


def test_a_source_that_fails_is_reported_as_itself_and_not_as_an_end() -> None:
    class Cut:
        def read(self, size: int = -1, /) -> bytes:
            raise ConnectionResetError("the node went away")

    with encrypted(HashingReader(Cut()), recipients_of([PUBLIC], "x")) as pump:
        pump.output.read()
        with pytest.raises(ConnectionResetError, match="went away"):
            pump.finish()


def test_an_uploader_that_gives_up_leaves_no_thread_behind() -> None:
    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            return b"x" * size

    def upload() -> _Pump:
        with encrypted(HashingReader(Endless()), recipients_of([PUBLIC], "x")) as pump:
            pumps.append(pump)
            pump.output.read(10)
            raise RuntimeError("no such bucket")

    pumps: list[_Pump] = []
    with pytest.raises(RuntimeError, match="bucket"):
        upload()
    assert not pumps[0]._thread.is_alive()


def test_secrets_are_refused_without_a_recipient() -> None:
    with pytest.raises(NoRecipients, match="age-keygen"):
        recipients_of([], "the configuration")


def test_all_bad_recipients_are_named_at_once() -> None:
    with pytest.raises(Refused) as refused:
        recipients_of(["age1nonsense", PUBLIC, "ssh-rsa nonsense"], "x")
    assert len(refused.value.reasons) == 2


def test_an_identity_file_is_read_with_its_comments(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    file.write_text(f"# created: today\n{IDENTITY}\n")
    file.chmod(0o600)
    assert decrypt(encrypt(b"hello"), identities_of(file)[0]) == b"hello"


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    file.write_text(str(IDENTITY))
    file.chmod(0o640)
    with pytest.raises(IdentityUnusable, match="chmod 600"):
        identities_of(file)


def test_an_identity_that_cannot_be_read_is_told_with_the_user_who_must_and_where_it_must_not_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its flow runs as another user than whoever put it there, in a service that sees no /root and no /home."""

    def closed(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "identity"
    for what in ("No such file or directory", "Permission denied"):
        with pytest.raises(IdentityUnusable) as refused:
            identities_of(file)
        error, who = refused.value, pwd.getpwuid(os.geteuid()).pw_name
        assert (error.where, error.what) == (str(file), f"The age identity cannot be read: {what}.")
        assert f"as the user {who}" in error.meaning
        assert "outside of /root, /home and /tmp" in error.remedy
        assert f"install -m 600 -o {who}" in error.remedy
        file.write_text(str(IDENTITY))
        file.chmod(0o600)
        monkeypatch.setattr(Path, "read_text", closed)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"AGE-SECRET-KEY-1NONSENSE\n", b"\xffNONSENSE"])
def test_a_broken_identity_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "identity"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(IdentityUnusable, match="AGE-SECRET-KEY-1") as refused:
        identities_of(file)
    assert "NONSENSE" not in str(refused.value)
