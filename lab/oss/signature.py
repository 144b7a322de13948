"""Verify the signatures V1 and V4, in the Authorization header and in presigned URLs."""

import base64
import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from lab.oss.answers import OssError

MAX_SKEW_S = 900
_SCOPE_END = "aliyun_v4_request"

# The query parameters that V1 signs; every other parameter (prefix, marker, max-keys…) is left out.
_SUBRESOURCES = frozenset(
    {
        "acl",
        "append",
        "bucketInfo",
        "comp",
        "continuation-token",
        "cors",
        "delete",
        "encryption",
        "inventory",
        "inventoryId",
        "lifecycle",
        "live",
        "location",
        "logging",
        "objectInfo",
        "objectMeta",
        "partNumber",
        "policy",
        "position",
        "qos",
        "referer",
        "replication",
        "requestPayment",
        "resourceGroup",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "security-token",
        "sequential",
        "stat",
        "status",
        "symlink",
        "tagging",
        "transferAcceleration",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
        "worm",
        "wormExtend",
        "wormId",
        "x-oss-process",
        "x-oss-request-payer",
        "x-oss-traffic-limit",
    }
)


@dataclass(frozen=True)
class Credentials:
    """The one access key that the server knows, and the region that it claims to be in."""

    access_key_id: str
    access_key_secret: str
    region: str


@dataclass(frozen=True)
class Signed:
    """The parts of a request that a signature covers; header names in lower case."""

    method: str
    bucket: str
    key: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


def verify(request: Signed, credentials: Credentials, now: float | None = None) -> None:
    """Raise OssError unless the request carries a valid signature of the known key."""
    now = time.time() if now is None else now
    authorization = request.headers.get("authorization", "")
    if authorization.startswith("OSS4-HMAC-SHA256 "):
        _verify_v4_header(request, authorization, credentials, now)
    elif authorization.startswith("OSS "):
        _verify_v1_header(request, authorization, credentials, now)
    elif "x-oss-signature" in request.params:
        _verify_v4_url(request, credentials, now)
    elif "Signature" in request.params:
        _verify_v1_url(request, credentials, now)
    else:
        raise OssError(403, "AccessDenied", "You have no right to access this object.", "0003-00000001")


def _verify_v1_header(request: Signed, authorization: str, credentials: Credentials, now: float) -> None:
    access_key_id, _, given = authorization[4:].partition(":")
    known(access_key_id, credentials)
    date = request.headers.get("x-oss-date") or request.headers.get("date", "")
    fresh(unix_time(date), now)
    equal(given, _v1(request, date, credentials), "0002-00000040")


def _verify_v1_url(request: Signed, credentials: Credentials, now: float) -> None:
    known(request.params.get("OSSAccessKeyId", ""), credentials)
    expires = request.params.get("Expires", "0")
    if not expires.isdigit() or int(expires) < now:
        raise OssError(403, "AccessDenied", "Request has expired.", "0002-00000069")
    equal(request.params["Signature"], _v1(request, expires, credentials), "0002-00000040")


def _v1(request: Signed, date: str, credentials: Credentials) -> str:
    oss_headers = sorted(
        (name, value) for name, value in request.headers.items() if name.startswith("x-oss-")
    )
    signed = sorted((name, value) for name, value in request.params.items() if name in _SUBRESOURCES)
    query = "&".join(f"{name}={value}" if value else name for name, value in signed)
    resource = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    text = "\n".join(
        [
            request.method,
            request.headers.get("content-md5", ""),
            request.headers.get("content-type", ""),
            date,
            "".join(f"{name}:{value}\n" for name, value in oss_headers)
            + resource
            + (f"?{query}" if query else ""),
        ]
    )
    digest = hmac.new(credentials.access_key_secret.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _verify_v4_header(request: Signed, authorization: str, credentials: Credentials, now: float) -> None:
    fields = dict(re.findall(r"(\w+)=([^,\s]+)", authorization))
    stamp = request.headers.get("x-oss-date", "")
    payload = request.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD")
    additional = [name for name in fields.get("AdditionalHeaders", "").split(";") if name]
    scope = _scope(fields.get("Credential", ""), stamp, credentials)
    fresh(unix_time(stamp), now)
    expected = _v4(request, dict(request.params), additional, payload, stamp, scope, credentials)
    equal(fields.get("Signature", ""), expected, "0002-00000201")


def _verify_v4_url(request: Signed, credentials: Credentials, now: float) -> None:
    params = dict(request.params)
    given = params.pop("x-oss-signature")
    stamp = params.get("x-oss-date", "")
    scope = _scope(params.get("x-oss-credential", ""), stamp, credentials)
    if unix_time(stamp) + int(params.get("x-oss-expires", "0")) < now:
        raise OssError(403, "AccessDenied", "Request has expired.", "0002-00000225")
    additional = [name for name in params.get("x-oss-additional-headers", "").split(";") if name]
    expected = _v4(request, params, additional, "UNSIGNED-PAYLOAD", stamp, scope, credentials)
    equal(given, expected, "0002-00000201")


def _scope(credential: str, stamp: str, credentials: Credentials) -> str:
    access_key_id, _, scope = credential.partition("/")
    known(access_key_id, credentials)
    date, region, product, end = [*scope.split("/"), "", "", "", ""][:4]
    if (product, end) != ("oss", _SCOPE_END) or date != stamp[:8]:
        raise OssError(
            400, "InvalidArgument", "Invalid credential scope in Authorization header.", "0002-00000226"
        )
    if region != credentials.region:
        raise OssError(
            400, "InvalidArgument", "Invalid signing region in Authorization header.", "0002-00000226"
        )
    return scope


def _v4(
    request: Signed,
    params: Mapping[str, str],
    additional: list[str],
    payload: str,
    stamp: str,
    scope: str,
    credentials: Credentials,
) -> str:
    path = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    query = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in params.items())
    signed = sorted(
        (name, value)
        for name, value in request.headers.items()
        if name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in additional
    )
    canonical = "\n".join(
        [
            request.method,
            quote(path, safe="/-_.~"),
            "&".join(f"{name}={value}" if value else name for name, value in query),
            "".join(f"{name}:{value}\n" for name, value in signed),
            ";".join(sorted(additional)),
            payload,
        ]
    )
    text = f"OSS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("aliyun_v4" + credentials.access_key_secret).encode()
    for step in scope.split("/"):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def known(access_key_id: str, credentials: Credentials) -> None:
    """Refuse another access key than the one that is known."""
    if access_key_id != credentials.access_key_id:
        raise OssError(
            403,
            "InvalidAccessKeyId",
            "The OSS Access Key Id you provided does not exist in our records.",
            "0002-00000902",
            extra={"OSSAccessKeyId": access_key_id},
        )


def equal(given: str, expected: str, ec: str) -> None:
    """Refuse a signature that is not the expected one."""
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise OssError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            ec,
        )


def unix_time(text: str) -> float:
    """Read the time of a signature; refused when it is none."""
    try:
        if text.endswith("Z"):
            return float(calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ")))
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        raise OssError(
            403, "AccessDenied", "OSS authentication requires a valid Date.", "0002-00000033"
        ) from None


def fresh(signed_at: float, now: float) -> None:
    """Refuse a signature of a clock that is too far off."""
    if abs(now - signed_at) > MAX_SKEW_S:
        raise OssError(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "0002-00000504",
            extra={"MaxAllowedSkewMilliseconds": str(MAX_SKEW_S * 1000)},
        )
