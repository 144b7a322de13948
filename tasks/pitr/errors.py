"""What pgBackRest says when it fails, as one clear sentence each."""

import base64
import re

from tasks.errors import HarborHaError
from tasks.storage.errors import explain

_STATUS = re.compile(r"HTTP request failed with (\d{3})")
_HIDDEN = re.compile(r"^x-oss-err: (\S+)", re.M)
_ELEMENT = re.compile(r"<(Code|Message|RequestId|EC)>([^<]*)</")
_ERROR = re.compile(r"ERROR: \[\d+\]: (.*)")


class RepositoryError(HarborHaError):
    """pgBackRest could not do its work with the repository in the bucket."""


class RepositoryUnreachable(RepositoryError):
    """The node does not reach the S3 endpoint, or does not trust its certificate."""


class PassphraseWrong(RepositoryError):
    """The repository was encrypted with another passphrase."""


class RepositoryBusy(RepositoryError):
    """Another pgBackRest works on this site; it may end by itself."""


class TargetNotReached(RepositoryError):
    """The WAL in the bucket ends before the time that was asked for."""


def repository_error(said: str, where: str) -> HarborHaError:
    """Make the error out of what pgBackRest wrote.

    Args:
        said: its standard error, or the message of `info`.
        where: the node.
    """
    status = _STATUS.search(said)
    if status is not None:
        found = dict(_ELEMENT.findall(said) or _ELEMENT.findall(_hidden(said)))
        if int(status[1]) in (403, 404) and not found:
            # A HEAD request has no body that could say more.
            found = {"Code": "NoSuchKey" if status[1] == "404" else "AccessDenied"}
        return explain(int(status[1]), found, found.get("RequestId", ""), where)
    if re.search(r"unable to verify certificate|unable to find hostname|unable to set user-defined CA", said):
        return RepositoryUnreachable(
            f"The certificate of the S3 endpoint is not trusted ({_brief(said)}).",
            where=where,
            remedy="Give oss.s3_ca the PEM of its authority, or correct oss.s3_endpoint.",
        )
    if re.search(
        r"HostConnectError|unable to (connect to|get address for)|timeout (connecting|waiting)", said
    ):
        return RepositoryUnreachable(
            f"The node does not reach the S3 endpoint ({_brief(said)}).",
            where=where,
            meaning="PostgreSQL goes on; WAL waits on its disk up to backup.wal_queue_max_bytes.",
            remedy="Check oss.s3_endpoint, and the node's way to it.",
        )
    if re.search(r"CryptoError|was the repo encrypted|key/value found outside of section", said):
        return PassphraseWrong(
            "The repository in the bucket was encrypted with another passphrase.",
            where=where,
            remedy="Give backup.wal_passphrase that it was made with, or choose another oss.prefix.",
        )
    if "unable to acquire lock" in said:
        return RepositoryBusy(
            "Another pgBackRest works on this site's repository.", where=where, remedy="Run it again later."
        )
    return RepositoryError(f"pgBackRest failed: {_brief(said)}", where=where)


def _hidden(said: str) -> str:
    """What OSS puts into a header where the answer may have no body."""
    found = _HIDDEN.search(said.replace("       ", ""))
    try:
        return base64.b64decode(found[1]).decode("utf-8", "replace") if found else ""
    except ValueError:
        return ""


def _brief(said: str) -> str:
    found = _ERROR.search(said)
    text = found[1] if found else next((line for line in said.splitlines() if line.strip()), "no reason")
    return text.strip().rstrip(".")[:300]
