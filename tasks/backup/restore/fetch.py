"""An object of a backup back out of the bucket: verified, decrypted, unpacked, on its way to a node."""

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import zstandard

from tasks.backup.format.encryption import DecryptionFailed, decrypted
from tasks.backup.format.hashing import HashingReader, Readable
from tasks.backup.format.layout import BackupId
from tasks.backup.format.manifest import Artifact
from tasks.backup.format.signature import Trust
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.storage.errors import CrcMismatch
from tasks.storage.retry import read_again
from tasks.storage.store import ObjectStore

_BLOCK = 1 << 20
_UNPACKING = (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError)

T = TypeVar("T")


class ArtifactDamaged(HarborHaError):
    """An object of the backup is not what its manifest says."""


class NotEncrypted(HarborHaError):
    """What is always stored encrypted is said to be in clear; anybody could have written that."""


# What holds no secret; all else is encrypted when it is stored, and there is no setting against it.
_IN_CLEAR = ("blob-index",)


@dataclass(frozen=True)
class Origin:
    """Where the objects of one backup come from, and what opens them.

    Attributes:
        identities: parsed age identities; any of them may fit.
        trust: whose signature is believed; nobody's unless given.
    """

    store: ObjectStore
    backup: BackupId
    identities: Sequence[Any]
    trust: Trust = field(default_factory=Trust)


@contextmanager
def opened(origin: Origin, artifact: Artifact) -> Iterator[Readable]:
    """Read an object of the backup, decrypted but still compressed.

    Leaving the context normally means that all of it was what the manifest says, before and after decryption.
    Until then nothing that was made of the bytes may be used.

    Raises:
        NotEncrypted: this software never stores such an object in clear.
        ArtifactDamaged: size or sha256 differ.
        DecryptionFailed: age found it damaged, or made for another identity.
        StorageError: it cannot be read, or OSS's own checksum does not fit.
    """
    key = origin.backup.key(artifact.name)
    where = origin.store.where(key)
    if artifact.encryption != "age" and artifact.role not in _IN_CLEAR:
        raise NotEncrypted(
            f"The manifest says that {artifact.name} is not encrypted.",
            where=where,
            meaning="No version of this software wrote it so: somebody else wrote this manifest. Nothing was read.",
            remedy="Use another backup, and find out who writes into the bucket.",
        )
    with contextlib.closing(origin.store.get_stream(key)) as reader:
        stored = HashingReader(reader)
        if artifact.encryption == "age":
            with decrypted(stored, origin.identities, where) as output:
                plain = HashingReader(output)
                yield plain
                _drain(plain)
        else:
            plain = stored
            try:
                yield plain
                _drain(plain)
            except Exception:
                if stored.error is not None:
                    raise stored.error from None
                raise
        _require(where, "stored", (stored.size, stored.sha256), (artifact.size, artifact.sha256))
    _require(where, "decrypted", (plain.size, plain.sha256), (artifact.plain_size, artifact.plain_sha256))


def whole(origin: Origin, read: Callable[[], T]) -> T:
    """Return what `read` makes of objects that it opens; again where they were damaged on their way to us.

    Age notices such damage in the middle, long before the checksum of the whole could.

    Args:
        read: throws away what an earlier attempt made.
    """
    return read_again(read, origin.store.patience, (CrcMismatch, DecryptionFailed))


def _drain(stream: HashingReader) -> None:
    while stream.read(_BLOCK):
        pass


def _require(where: str, what: str, found: tuple[int, str], wanted: tuple[int, str]) -> None:
    if found != wanted:
        raise ArtifactDamaged(
            f"The {what} content is not what the manifest says "
            f"({found[0]} bytes, sha256 {found[1][:12]}…; expected {wanted[0]}, {wanted[1][:12]}…).",
            where=where,
            meaning="Nothing of it was used.",
            remedy="Use another backup.",
        )


@contextmanager
def unpacked(source: Readable, compression: str) -> Iterator[Readable]:
    """Take the compression off a stream on the orchestrator."""
    if compression == "none":
        yield source
    elif compression == "zstd":
        unpacker = zstandard.ZstdDecompressor()
        with unpacker.stream_reader(cast(Any, source), read_across_frames=True, closefd=False) as plain:
            yield cast(Readable, plain)
    else:
        with gzip.GzipFile(fileobj=cast(Any, source)) as plain_gzip:
            yield cast(Readable, plain_gzip)


def deliver(
    host: Host,
    origin: Origin,
    artifact: Artifact,
    command: Sequence[str],
    *,
    user: str | None = None,
    timeout: float,
) -> None:
    """Pipe an object into a program on a node, uncompressed, and verify it to its last byte.

    The program must only put the bytes aside: when this raises, they were not what was backed up. It is started
    anew where they were damaged on their way.

    Args:
        host: the node.
        origin: the backup.
        artifact: which object.
        command: the program; it reads its standard input to the end.
        user: whom it runs as; root when empty.
        timeout: seconds.

    Raises:
        ArtifactDamaged, DecryptionFailed, StorageError: see `opened`.
        RemoteCommandFailed: the program failed.
    """
    whole(origin, lambda: _deliver(host, origin, artifact, command, user, timeout))


def _deliver(
    host: Host, origin: Origin, artifact: Artifact, command: Sequence[str], user: str | None, timeout: float
) -> None:
    with opened(origin, artifact) as packed, host.stream(command, user=user, timeout=timeout) as process:
        try:
            with unpacked(packed, artifact.compression) as plain:
                while block := plain.read(_BLOCK):
                    process.stdin.write(block)
            process.close_stdin()
        except _UNPACKING as error:
            raise ArtifactDamaged(
                f"It cannot be decompressed: {error}.",
                where=origin.store.where(origin.backup.key(artifact.name)),
                meaning="Nothing of it was used.",
                remedy="Use another backup.",
            ) from None
        except OSError:
            # The program closed its input. Its own words say why, where it has any.
            process.wait()
            raise
        process.stdout.read()
        process.wait()
