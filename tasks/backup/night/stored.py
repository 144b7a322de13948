"""The output of a program on a node, encrypted, as one object in the bucket; nothing touches a disk."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.backup.format.encryption import encrypted
from tasks.backup.format.hashing import HashingReader
from tasks.backup.format.layout import BackupId, with_suffixes
from tasks.backup.format.manifest import Artifact
from tasks.backup.tools import Command
from tasks.errors import HarborHaError
from tasks.hosts.connection import Host
from tasks.storage.store import ObjectStore

Role = Literal["database", "globals", "configuration", "links", "blob-index"]


class NothingProduced(HarborHaError):
    """A program ended well and wrote nothing, which no part of a backup can be."""


@dataclass(frozen=True)
class Destination:
    """Where the objects of one backup go, and who can read them.

    Attributes:
        recipients: parsed age recipients, at least one.
    """

    store: ObjectStore
    backup: BackupId
    recipients: Sequence[Any]


@dataclass(frozen=True)
class Produced:
    """What became of a program's output, and what it said on the side."""

    artifact: Artifact
    stderr: str


def store_output(
    host: Host,
    command: Command,
    to: Destination,
    name: str,
    *,
    role: Role,
    subject: str = "",
    user: str | None = None,
    stdin: bytes = b"",
    timeout: float,
    seen: Callable[[int], None] = lambda size: None,
) -> Produced:
    """Run a program on a node and store what it writes.

    The object becomes visible after the program ended with status 0; whatever fails before leaves neither an
    object nor an unfinished upload.

    Args:
        host: the node.
        command: the program and the compression at its end.
        to: the backup.
        name: of the object, without the suffixes of compression and encryption.
        role: see Artifact.
        subject: see Artifact.
        user: whom it runs as; root when empty.
        stdin: what it reads, small.
        timeout: seconds for all of it.
        seen: called with the size of each block that came, before it is encrypted.

    Raises:
        RemoteCommandFailed: the program failed, or the connection to it broke.
        NothingProduced: it wrote nothing.
        StorageError: the bucket refused.
    """
    stderr = ""
    stored_name = with_suffixes(name, (*command.suffixes, "age"))
    with host.stream(command.argv, user=user, timeout=timeout) as process:
        with contextlib.suppress(OSError):  # a program that ended already says why at `wait`
            process.stdin.write(stdin)
            process.close_stdin()
        source = HashingReader(process.stdout, seen)
        with encrypted(source, to.recipients) as pump:

            def confirm() -> None:
                nonlocal stderr
                pump.finish()
                stderr = process.wait().stderr
                if source.size == 0:
                    raise NothingProduced(f"{stored_name} would be empty.", where=host.name)

            stored = to.store.put_stream(to.backup.key(stored_name), pump.output, confirm=confirm)
    artifact = Artifact(
        name=stored_name,
        role=role,
        subject=subject,
        plain_size=source.size,
        plain_sha256=source.sha256,
        size=stored.size,
        sha256=stored.sha256,
        crc64=stored.crc64,
        compression=command.compression,
        encryption="age",
    )
    return Produced(artifact, stderr)
