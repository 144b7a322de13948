"""The S3 side of OSS: AWS' signature version 4, and bodies that must be what was signed.

OSS takes S3 requests with its own AccessKeys. pgBackRest signs the hash of every body; a body that is another
one than was signed is refused, as OSS refuses it.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from lab.oss.answers import OssError
from lab.oss.request import Body
from lab.oss.signature import Credentials, equal, fresh, known, unix_time

_ALGORITHM = "AWS4-HMAC-SHA256"
_FIELDS = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class S3Signed:
    """The parts of a request that the signature covers.

    Attributes:
        path: as it came, percent-encoded, without the query.
        headers: names in lower case.
        length: bytes of the body.
    """

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    length: int


class SignedBody(Body):
    """A body that fails at its end when it is not the one whose hash was signed."""

    def __init__(self, body: Body, expected: str) -> None:
        self._body, self._expected, self._hash = body, expected, hashlib.sha256()

    def blocks(self) -> Iterator[bytes]:
        """Yield the body; raises OssError after the last block, before anything is stored."""
        for block in self._body.blocks():
            self._hash.update(block)
            yield block
        if self._hash.hexdigest() != self._expected:
            raise _other_body()


def is_s3(headers: Mapping[str, str]) -> bool:
    """Whether a request is signed the S3 way."""
    return headers.get("authorization", "").startswith(f"{_ALGORITHM} ")


def verify_s3(request: S3Signed, credentials: Credentials, now: float) -> str:
    """Raise OssError unless the known key signed the request; returns the SHA-256 that its body must have."""
    fields = dict(_FIELDS.findall(request.headers["authorization"]))
    access_key_id, _, scope = fields.get("Credential", "").partition("/")
    known(access_key_id, credentials)
    stamp = request.headers.get("x-amz-date", "")
    fresh(unix_time(stamp), now)
    date, region, service, end = [*scope.split("/"), "", "", "", ""][:4]
    if (date, region, service, end) != (stamp[:8], credentials.region, "s3", "aws4_request"):
        raise OssError(400, "InvalidArgument", "Invalid signing region in Authorization header.")
    names = fields.get("SignedHeaders", "").split(";")
    unsigned = [name for name in request.headers if name.startswith("x-amz-") and name not in names]
    if unsigned or "host" not in names:
        raise OssError(403, "AccessDenied", f"Headers are not signed: {', '.join(unsigned) or 'host'}.")
    payload = request.headers.get("x-amz-content-sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", payload):
        # UNSIGNED-PAYLOAD and aws-chunked exist elsewhere; OSS refuses the latter, and nothing here needs them.
        raise OssError(400, "InvalidArgument", f"x-amz-content-sha256 {payload!r} is not supported.")
    equal(fields.get("Signature", ""), _signature(request, names, stamp, scope, credentials), "0002-00000201")
    if request.length == 0 and payload != _EMPTY:
        raise _other_body()
    return payload


def _signature(request: S3Signed, names: list[str], stamp: str, scope: str, credentials: Credentials) -> str:
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in request.params.items()
    )
    canonical = "\n".join(
        [
            request.method,
            quote(unquote(request.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names),
            ";".join(names),
            request.headers["x-amz-content-sha256"],
        ]
    )
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.access_key_secret}".encode()
    for step in scope.split("/"):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _other_body() -> OssError:
    return OssError(400, "XAmzContentSHA256Mismatch", "The body is not the one whose SHA-256 was signed.")
