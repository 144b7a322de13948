"""What OSS can refuse, told for the operator: one clear sentence each, with the request id for a ticket."""

import re
from collections.abc import Mapping

from tasks.errors import HarborHaError


class StorageError(HarborHaError):
    """Base of everything that goes wrong with the object store.

    Attributes:
        code: OSS's error code, empty when no answer came.
        request_id: what Alibaba's support asks for first.
        ec: OSS's fine-grained error code, explained in its documentation.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        meaning: str = "",
        remedy: str = "",
        code: str = "",
        request_id: str = "",
        ec: str = "",
    ) -> None:
        self.code, self.request_id, self.ec = code, request_id, ec
        ticket = ", ".join(
            f"{name} {value}" for name, value in (("request", request_id), ("EC", ec)) if value
        )
        super().__init__(
            f"{what} [{ticket}]" if ticket else what, where=where, meaning=meaning, remedy=remedy
        )


class AnswerUnreadable(StorageError):
    """What was answered is no document of OSS's, so it says nothing of what is in the bucket."""


class WrongCredentials(StorageError):
    """The AccessKey is unknown, disabled, expired, or its secret is wrong."""


class WrongRegion(StorageError):
    """The bucket lives in another region than the settings say."""


class ClockSkew(StorageError):
    """The orchestrator's clock is more than 15 minutes off."""


class BucketMissing(StorageError):
    """There is no such bucket."""


class EndpointForbidden(StorageError):
    """OSS does not serve this bucket through this kind of endpoint."""


class ObjectImmutable(StorageError):
    """A retention policy protects the object."""


class AccessDenied(StorageError):
    """The AccessKey is right but may not do this."""


class Throttled(StorageError):
    """OSS asked to slow down for longer than our patience."""


class StorageFull(StorageError):
    """The bucket or the account has no space left."""


class EndpointUnreachable(StorageError):
    """No usable answer came from the endpoint, in several attempts."""


class ServiceFailed(StorageError):
    """OSS answered with an internal error, in several attempts."""


class CrcMismatch(StorageError):
    """What OSS holds or delivered is not what was sent."""


class ContentMismatch(StorageError):
    """What came out of the source does not have the hash that it should have; it was not stored."""


class ObjectMissing(StorageError):
    """There is no such object."""


class ObjectArchived(StorageError):
    """The object is in an archive class and must be thawed before it can be read."""


class ObjectExists(StorageError):
    """The object exists already and must not be overwritten."""


class UploadLost(StorageError):
    """The multipart upload is gone: aborted or expired."""


# code → what kind of error, what happened, what to do.
_BY_CODE: dict[str, tuple[type[StorageError], str, str]] = {
    "InvalidAccessKeyId": (
        WrongCredentials,
        "OSS does not know the AccessKey ID, or it is disabled.",
        "Correct oss.access_key_id, or enable the key in RAM.",
    ),
    "SignatureDoesNotMatch": (
        WrongCredentials,
        "The AccessKey secret does not belong to the AccessKey ID.",
        "Correct oss.access_key_secret.",
    ),
    "InvalidSecurityToken": (
        WrongCredentials,
        "The security token is invalid or has expired.",
        "Give a fresh token, or an AccessKey of a RAM user.",
    ),
    "SecurityTokenExpired": (
        WrongCredentials,
        "The security token has expired.",
        "Give a fresh token, or an AccessKey of a RAM user.",
    ),
    "RequestTimeTooSkewed": (
        ClockSkew,
        "The clock of the orchestrator is more than 15 minutes off.",
        "Start time synchronisation (chrony, systemd-timesyncd) on the orchestrator.",
    ),
    "NoSuchBucket": (
        BucketMissing,
        "The bucket does not exist.",
        "Correct oss.bucket, or create the bucket; this software does not.",
    ),
    "PublicEndpointForbidden": (
        EndpointForbidden,
        "OSS refuses this bucket's data over the public endpoint (accounts since March 2025).",
        "Use the internal endpoint (oss-<region>-internal), or bind a domain of yours and set is_cname.",
    ),
    "SecondLevelDomainForbidden": (
        EndpointForbidden,
        "OSS refuses an address with the bucket in the path.",
        "Give the endpoint as a name (https://oss-cn-shanghai-internal.aliyuncs.com), not as an address.",
    ),
    "FileImmutable": (
        ObjectImmutable,
        "A retention policy (WORM) protects the object; it can be neither replaced nor removed yet.",
        "Wait for the end of the retention period; nothing is wrong with the backups.",
    ),
    "AccessDenied": (
        AccessDenied,
        "The AccessKey is not allowed to do this.",
        "Grant the RAM user the actions listed in the documentation, for this bucket.",
    ),
    "UserDisable": (
        AccessDenied,
        "The Alibaba Cloud account is disabled or in arrears.",
        "Settle the account.",
    ),
    "QuotaExceeded": (
        StorageFull,
        "The bucket's capacity is used up.",
        "Raise the quota, or prune old backups.",
    ),
    "InsufficientStorage": (
        StorageFull,
        "The object store has no space left.",
        "Make room, or prune old backups.",
    ),
    "NoSuchKey": (ObjectMissing, "The object does not exist.", ""),
    "InvalidObjectState": (
        ObjectArchived,
        "The object is in an archive class (Archive, ColdArchive): it cannot be read before it is thawed.",
        "Thaw it (`ossutil restore`), and take the lifecycle rule off that moves it; a thaw takes minutes to hours.",
    ),
    "NoSuchUpload": (
        UploadLost,
        "The multipart upload is gone: somebody aborted it, or a lifecycle rule did.",
        "Run the flow again; keep lifecycle rules for unfinished uploads at three days or more.",
    ),
    "FileAlreadyExists": (ObjectExists, "The object exists already and was not overwritten.", ""),
}


def explain(status: int, details: Mapping[str, str | None], request_id: str, where: str) -> StorageError:
    """Return the error for a refusal by OSS.

    Args:
        status: HTTP status.
        details: the elements of OSS's error document; empty when none came.
        request_id: of the answer.
        where: bucket and key.
    """
    code, message, ec = (
        details.get("Code") or "",
        _told(details.get("Message") or ""),
        details.get("EC") or "",
    )
    ticket = {"code": code, "request_id": request_id, "ec": ec}
    if _speaks_of_region(code, message):
        return WrongRegion(
            "The bucket is not in the region of the settings.",
            where=where,
            remedy="Make oss.region and oss.endpoint those of the bucket, e.g. cn-shanghai.",
            **ticket,
        )
    if code in _BY_CODE:
        kind, what, remedy = _BY_CODE[code]
        if kind is AccessDenied and message:
            # A bucket policy, an expired request, another account's bucket: the code is the same for all of them.
            what = f"{what} OSS says: {message}"
        return kind(what, where=where, remedy=remedy, **ticket)
    if is_throttling(status, code):
        return Throttled(
            f"OSS throttles this account ({code or status}) and did not stop in time.",
            where=where,
            remedy="Lower the bandwidth limit or the parallelism, or ask for a higher quota.",
            **ticket,
        )
    if status == 404:
        return ObjectMissing("The object does not exist.", where=where, **ticket)
    if status == 403:
        return AccessDenied(f"OSS refused: {code} {message}".rstrip(), where=where, **ticket)
    if status >= 500:
        return ServiceFailed(
            f"OSS kept answering {status} {code}.".replace(" .", "."),
            where=where,
            remedy="Run the flow again later; what is in the bucket already is not sent again.",
            **ticket,
        )
    return StorageError(f"OSS refused: {status} {code} {message}".rstrip(), where=where, **ticket)


# An AccessKey's id, a signature, a token: nothing in a sentence of OSS's is as long and as mixed.
_SECRET = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])[A-Za-z0-9+/=._-]{16,}")
_MESSAGE_AT_MOST = 200


def _told(message: str) -> str:
    """Return OSS's own sentence on one line, without what could be a secret."""
    return _SECRET.sub("(left out)", " ".join(message.split()))[:_MESSAGE_AT_MOST]


def _speaks_of_region(code: str, message: str) -> bool:
    wrong_scope = code == "InvalidArgument" and "signing region" in message
    wrong_endpoint = code == "AccessDenied" and "specified endpoint" in message
    return wrong_scope or wrong_endpoint


def is_throttling(status: int, code: str) -> bool:
    """Whether an answer means "slower, please" rather than "no"."""
    return status == 429 or "LimitExceeded" in code


def require_crc(expected: int, reported: int | None, where: str, request_id: str) -> None:
    """Raise CrcMismatch unless OSS reports the checksum that we computed."""
    if reported != expected:
        raise CrcMismatch(
            "The checksum that OSS reports is not that of what was sent or received.",
            where=where,
            meaning="The content is damaged in OSS or on the way; trying again did not help.",
            remedy="Run the flow again; if it stays, give the request id to Alibaba's support.",
            request_id=request_id,
        )
