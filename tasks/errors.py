"""What can go wrong, told for the operator: what happened, where, what it means, what to do."""

from collections.abc import Sequence
from typing import Any


class HarborHaError(Exception):
    """Base of every error that this software raises on purpose.

    Args:
        what: what happened, one sentence.
        where: the node, file or service that it happened on.
        meaning: what it means for the site.
        remedy: what the operator does about it.
    """

    def __init__(self, what: str, *, where: str = "", meaning: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.meaning = meaning
        self.remedy = remedy
        super().__init__(what, where, meaning, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        # Prefect pickles the exception of a failed task; the default way cannot pass keyword arguments.
        return _revive, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.meaning:
            text += f" {self.meaning}"
        if self.remedy:
            text += f" -> {self.remedy}"
        return text


def _revive(kind: type[HarborHaError], args: tuple[Any, ...], state: dict[str, Any]) -> HarborHaError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class HostUnreachable(HarborHaError):
    """A node did not answer over SSH; it may be dead, or only unreachable from here."""


class HostKeyChanged(HarborHaError):
    """A node answered with another host key than the pinned one."""


class LoginRefused(HarborHaError):
    """A node answered but did not accept the user or the key."""


class RemoteTimeout(HarborHaError):
    """A remote command did not end within its time limit; whether it had an effect is not known."""


class RemoteConnectionLost(HarborHaError):
    """The connection broke in the middle; whether the command had an effect is not known."""


class RemoteCommandFailed(HarborHaError):
    """A remote command ended with a non-zero exit status.

    Attributes:
        exit_status: the status; -1 when there was none: a signal killed the command, or its machine is gone.
        stderr: what it wrote to its standard error, at most 4,000 characters.
    """

    def __init__(self, command: str, where: str, exit_status: int, stderr: str) -> None:
        self.command = command
        self.exit_status = exit_status
        self.stderr = stderr[-4000:]
        detail = self.stderr.strip() or "it wrote nothing to its standard error"
        ended = (
            f"ended with status {exit_status}"
            if exit_status != -1
            else "was cut off, by a signal or with its machine"
        )
        HarborHaError.__init__(self, f"`{command}` {ended}: {detail}", where=where)


class Refused(HarborHaError):
    """A rule said no. A normal result.

    Attributes:
        reasons: every reason, each with what to do about it.
        changed: what this run, or the one that it goes on with, has changed and not put back; mostly nothing.
    """

    def __init__(self, what: str, reasons: Sequence[str], changed: Sequence[str] = ()) -> None:
        self.reasons = list(reasons)
        self.changed = list(changed)
        HarborHaError.__init__(self, what)

    def __str__(self) -> str:
        end = f"What was changed: {'; '.join(self.changed)}." if self.changed else "Nothing was changed."
        return "\n".join([f"{self.what} {end}", *(f"  - {reason}" for reason in self.reasons)])


class Superseded(HarborHaError):
    """Another operation has taken over, or this one was held up too long: its step is not done any more."""
