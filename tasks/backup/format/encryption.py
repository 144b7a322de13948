"""age around a stream: what leaves the orchestrator can be read only by the holders of an identity."""

import contextlib
import fcntl
import os
import pwd
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyrage

from tasks.backup.format.hashing import HashingReader
from tasks.errors import HarborHaError, Refused

_PIPE_BYTES = 1 << 20
_STOP_S = 5.0
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ; the default of 64 KiB costs a context switch for every age chunk


class NoRecipients(HarborHaError):
    """Secrets would leave the site unencrypted."""


class IdentityUnusable(HarborHaError):
    """An age identity cannot be read, is readable for others, or does not fit the backup."""


class DecryptionFailed(HarborHaError):
    """An encrypted object is damaged, or was encrypted for somebody else."""


def recipients_of(lines: Sequence[str], what: str) -> list[Any]:
    """Parse the site's age recipients (`age1…` or `ssh-ed25519 …`).

    Args:
        lines: `backup.age_recipients` of the site.
        what: what would be encrypted, for the message.

    Raises:
        NoRecipients: there is none.
        Refused: lists every recipient that cannot be parsed.
    """
    if not lines:
        raise NoRecipients(
            f"There is no age recipient, and {what} holds secrets.",
            meaning="Nothing was stored: unencrypted, it would hand the registry to whoever reads the bucket.",
            remedy="Set backup.age_recipients (`age-keygen` prints the public key) and keep the identity offline.",
        )
    parsed, mistakes = [], []
    for line in lines:
        try:
            kind = pyrage.ssh if line.startswith("ssh-") else pyrage.x25519
            parsed.append(kind.Recipient.from_str(line.strip()))
        except Exception:
            mistakes.append(f"`{line[:60]}` is not a public key of age; it begins with age1 or ssh-ed25519.")
    if mistakes:
        raise Refused("backup.age_recipients cannot be used.", mistakes)
    return parsed


def identities_of(path: Path) -> list[Any]:
    """Read age identities from a file that only its owner can read.

    Raises:
        IdentityUnusable: with the reason; the content is never part of it.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except OSError as error:
        who = _this_user()
        raise IdentityUnusable(
            f"The age identity cannot be read: {error.strerror or type(error).__name__}.",
            where=str(path),
            meaning=f"This flow runs as the user {who}; the runner's service sees nothing of /root, of /home and of "
            "what others have in /tmp.",
            remedy=f"Give a file that the user {who} may read, outside of /root, /home and /tmp: `install -m 600 -o "
            f"{who} IDENTITY /var/lib/harbor-ha/age-identity`; remove it when the flow has ended.",
        ) from None
    except UnicodeDecodeError:
        raise IdentityUnusable(
            "There is no age identity.", where=str(path), remedy="Its line begins with AGE-SECRET-KEY-1."
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise IdentityUnusable(
            "The age identity is readable for others.", where=str(path), remedy=f"chmod 600 {path}"
        )
    return parse_identities(text, str(path))


def parse_identities(text: str, where: str) -> list[Any]:
    """Read age identities (`AGE-SECRET-KEY-1…`, or one OpenSSH key) from a text.

    Raises:
        IdentityUnusable: there is none; the text is never part of it.
    """
    try:
        if "-----BEGIN" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except Exception:
        found = []
    if not found:
        raise IdentityUnusable(
            "There is no age identity.", where=where, remedy="Its line begins with AGE-SECRET-KEY-1."
        )
    return found


def _this_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


class _Pump:
    """A thread that pushes a stream through age into a pipe, and keeps what went wrong."""

    def __init__(self, transform: Any, source: HashingReader, keys: Sequence[Any]) -> None:
        read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):  # above the system's limit for pipes: slower, not wrong
            fcntl.fcntl(write_end, _SET_PIPE_SIZE, _PIPE_BYTES)
        self.output: BinaryIO = os.fdopen(read_end, "rb", buffering=_PIPE_BYTES)
        self._transform, self._source, self._keys = transform, source, list(keys)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(write_end,), daemon=True)
        self._thread.start()

    def _run(self, write_end: int) -> None:
        try:
            with os.fdopen(write_end, "wb", buffering=_PIPE_BYTES) as target:
                try:
                    self._transform(self._source, target, self._keys)
                except BaseException as error:
                    # Before the pipe is closed: who sees its end must find the reason.
                    self._error = error
        except OSError as error:
            self._error = self._error or error

    @property
    def failure(self) -> BaseException | None:
        """What ended the stream early, as far as it has happened by now; the source's own error first."""
        return self._source.error or self._error

    def finish(self) -> None:
        """Wait for the end; raise what the source or age ran into."""
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Stop early: the thread's next write fails, and it ends."""
        self.output.close()
        # A thread that is left inside age's library aborts the interpreter at its exit. One that still waits
        # for a silent node ends when the caller closes the channel.
        self._thread.join(_STOP_S)


@contextmanager
def encrypted(source: HashingReader, recipients: Sequence[Any]) -> Iterator[_Pump]:
    """Encrypt a stream on its way.

    Yields:
        `.output` to read the encrypted bytes from; `.finish()` once they were read, which raises what the
        encryption or the source ran into. An end of file alone does not prove success.
    """
    pump = _Pump(pyrage.encrypt_io, source, recipients)
    try:
        yield pump
    finally:
        pump.close()


@contextmanager
def decrypted(source: HashingReader, identities: Sequence[Any], where: str) -> Iterator[BinaryIO]:
    """Decrypt a stream on its way; leaving the context normally means that every byte was authentic.

    Args:
        source: the encrypted bytes.
        identities: any of them may fit.
        where: the object's name, for the message.

    Raises:
        DecryptionFailed: at the end of the context, when the stream was damaged or is for another identity.
        What the source raised, and not what a reader made of the short rest of its stream.
    """
    pump = _Pump(pyrage.decrypt_io, source, identities)
    try:
        try:
            yield pump.output
            while pump.output.read(_PIPE_BYTES):
                pass  # a reader that stops early (tar at its end marker) must not hide a damaged tail
            pump.finish()
        except Exception:
            failure = pump.failure
            if failure is None:
                raise
            if failure is source.error:
                raise failure from None
            # age's library has several types for it, a bare OSError among them.
            raise DecryptionFailed(
                f"It could not be decrypted: {failure}.",
                where=where,
                meaning="It is damaged, or it was encrypted for another identity.",
                remedy="Try the other identities; if none fits, use another backup.",
            ) from None
    finally:
        pump.close()
