"""Failures on demand: rules say which requests fail, how, and how often."""

import re
import threading
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

# What a rule can do to a request. `bytes` and `rate` below give the measure where there is one.
KINDS = {
    "error": "answer with `code` instead of doing it",
    "reset": "reset the connection after `bytes` of the request body, before doing anything",
    "lost_answer": "do it, then reset the connection without an answer",
    "delay": "wait `seconds` before doing it",
    "slow": "send the answer's body at `rate` bytes a second",
    "truncate": "close the connection after `bytes` of the answer's body",
    "reset_answer": "reset the connection after `bytes` of the answer's body",
    "wrong_crc": "do it, but answer with another CRC",
    "wrong_content": "answer with the right length and one wrong byte",
}

# code: HTTP status, EC, message. What OSS answers, as far as its documentation and issue threads show.
CODES: dict[str, tuple[int, str, str]] = {
    "InternalError": (500, "0005-00000001", "Please contact the server administrator."),
    "ServiceUnavailable": (503, "0004-00000001", "Thread pool is almost full, please retry later"),
    "QpsLimitExceeded": (503, "0004-00000302", "Qps limit is exceeded."),
    "UploadTrafficRateLimitExceeded": (503, "0004-00000303", "Please reduce your upload request traffic"),
    "DownloadTrafficRateLimitExceeded": (503, "0004-00000304", "Please reduce your download request traffic"),
    "RequestTimeout": (408, "0000-00000408", "Request timeout."),
    "TooManyRequests": (429, "0004-00000429", "Too many requests."),
    "RequestTimeTooSkewed": (
        403,
        "0002-00000504",
        "The difference between the request time and the current time is too large.",
    ),
    "AccessDenied": (403, "0003-00000001", "You have no right to access this object because of bucket acl."),
    "SecondLevelDomainForbidden": (403, "0048-00000402", "Please use virtual hosted style to access."),
    "WrongEndpoint": (
        403,
        "0003-00001403",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    ),
    "PublicEndpointForbidden": (
        400,
        "0048-00000401",
        "Access to the bucket over the public endpoint is forbidden.",
    ),
    "NoSuchKey": (404, "0026-00000001", "The specified key does not exist."),
    "NoSuchBucket": (404, "0015-00000101", "The specified bucket does not exist."),
    "FileImmutable": (409, "0055-00000011", "The object you specified is immutable."),
    "UserDisable": (403, "0003-00000801", "UserDisable"),
    "QuotaExceeded": (403, "0016-00000550", "The storage capacity of the bucket is exceeded."),
    "InsufficientStorage": (507, "0007-00000507", "There is not enough space left."),
}


@dataclass
class Fault:
    """One rule.

    Attributes:
        kind: a name of KINDS.
        operation: a regular expression for the operation's whole name (`PutObject|UploadPart`).
        key: a regular expression searched in the object's key.
        skip: how many matching requests pass before the first that fails.
        times: how many fail; -1 is all of them.
        code: for `error`, a name of CODES.
        delay_ms: sent as x-oss-qos-delay-time when above zero.
    """

    kind: str
    operation: str = ".*"
    key: str = ""
    skip: int = 0
    times: int = 1
    code: str = "InternalError"
    delay_ms: int = 0
    bytes: int = 0
    rate: int = 65536
    seconds: float = 1.0
    hits: int = 0

    def matches(self, operation: str, key: str) -> bool:
        """Whether the rule speaks of this request."""
        return bool(re.fullmatch(self.operation, operation)) and bool(re.search(self.key, key))


def parse_fault(document: dict[str, Any]) -> Fault:
    """Return the rule that a JSON object describes.

    Raises:
        ValueError: an unknown field, kind or code.
    """
    unknown = set(document) - {field.name for field in fields(Fault)}
    if unknown:
        raise ValueError(f"unknown field: {', '.join(sorted(unknown))}")
    fault = Fault(**document)
    if fault.kind not in KINDS:
        raise ValueError(f"unknown kind {fault.kind!r}; known: {', '.join(KINDS)}")
    if fault.kind == "error" and fault.code not in CODES:
        raise ValueError(f"unknown code {fault.code!r}; known: {', '.join(CODES)}")
    re.compile(fault.operation), re.compile(fault.key)
    return fault


class FaultPlan:
    """The rules in force, and how many requests of each operation were served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._served: Counter[tuple[str, int]] = Counter()

    def set(self, faults: list[Fault]) -> None:
        """Replace all rules."""
        with self._lock:
            self._faults = faults

    def add(self, fault: Fault) -> None:
        """Add one rule."""
        with self._lock:
            self._faults.append(fault)

    def take(self, operation: str, key: str) -> Fault | None:
        """Return the rule that this request runs into, and count it against the rule."""
        with self._lock:
            for fault in self._faults:
                if not fault.matches(operation, key):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times != 0:
                    fault.times -= fault.times > 0
                    fault.hits += 1
                    return fault
        return None

    def served(self, operation: str, status: int) -> None:
        """Count a finished request; status 0 is a connection cut on purpose."""
        with self._lock:
            self._served[operation, status] += 1

    def describe(self) -> list[dict[str, Any]]:
        """Return the rules with their hits."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return operation → status → number of requests."""
        result: dict[str, dict[str, int]] = {}
        with self._lock:
            for (operation, status), number in sorted(self._served.items()):
                result.setdefault(operation, {})[str(status)] = number
        return result

    def reset_counts(self) -> None:
        """Start counting from zero."""
        with self._lock:
            self._served.clear()
