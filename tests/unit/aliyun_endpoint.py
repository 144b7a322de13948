"""Alibaba Cloud's API on loopback: HTTP, the signature ACS3-HMAC-SHA256 as documented, and faults on request.

What the products do stands in `aliyun_products`; here is what all of them have in common.
"""

import hashlib
import hmac
import json
import re
import threading
import time
from calendar import timegm
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

KEY_ID, SECRET = "LTAItheSitesOwnKey", "the-secret-that-nobody-may-read"
SAID_BY_THE_CLOUD = "server string to sign is: POST%2F& with AccessKeySecret hunter2"
"""In every error message, as the real ones repeat the request: it must reach no report."""

_MAX_SKEW_S = 900
_MUST_BE_SIGNED = ("host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce")
_AUTHORIZATION = re.compile(
    r"ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})"
)


class ApiError(Exception):
    """An error that the API answers with."""

    def __init__(self, code: str, status: int = 400) -> None:
        self.code, self.status = code, status
        super().__init__(code)


@dataclass
class Fault:
    """What goes wrong with a call.

    Attributes:
        code: the error that is answered; empty: none.
        status: its HTTP status.
        does: the call takes effect all the same.
        silent_s: seconds without an answer.
        body: answered in the place of everything else, with status 200.
    """

    code: str = ""
    status: int = 400
    does: bool = False
    silent_s: float = 0.0
    body: bytes = b""


THROTTLED = Fault("Throttling.User", 400)
FORBIDDEN = Fault("Forbidden.RAM", 403)

Action = Callable[[Mapping[str, str]], dict[str, Any]]


@dataclass
class Endpoint:
    """The state of the API's front door.

    Attributes:
        actions: what the products can do, by action.
        faults: what goes wrong with the next calls of an action, one after the other; a single fault in a tuple
            is for all of them.
        calls: every action that was asked for with a valid signature.
    """

    actions: dict[str, Action] = field(default_factory=dict)
    faults: dict[str, list[Fault] | tuple[Fault]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    parameters: dict[str, list[Mapping[str, str]]] = field(default_factory=lambda: defaultdict(list))
    address: str = ""
    _nonces: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Answer one request."""
        try:
            with self._lock:
                self._verify(method, target, headers, body)
                action = headers["x-acs-action"]
                asked = dict(parse_qsl(urlsplit(target).query)) | dict(parse_qsl(body.decode()))
                self.calls.append(action)
                self.parameters[action].append(asked)
                fault = self._fault(action)
                if fault.body:
                    return 200, fault.body
                done = {} if fault.code and not fault.does else self.actions[action](asked)
            time.sleep(fault.silent_s)
            if fault.code:
                raise ApiError(fault.code, fault.status)
        except ApiError as error:
            said = {"Code": error.code, "Message": SAID_BY_THE_CLOUD, "RequestId": "0-1", "HostId": "x"}
            return error.status, json.dumps(said).encode()
        return 200, json.dumps({"RequestId": "473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E", **done}).encode()

    def _fault(self, action: str) -> Fault:
        waiting = self.faults.get(action, [])
        if isinstance(waiting, tuple):
            return waiting[0]
        return waiting.pop(0) if waiting else Fault()

    def _verify(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """Check who asks. Raise ApiError as the real one does."""
        given = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if given is None:
            raise ApiError("IncompleteSignature")
        key, names, signature = given.group(1), given.group(2).split(";"), given.group(3)
        if key != KEY_ID:
            raise ApiError("InvalidAccessKeyId.NotFound", 404)
        unsigned = {name for name in headers if name.startswith("x-acs-")} - set(names)
        if unsigned or not set(_MUST_BE_SIGNED) <= set(names):
            raise ApiError("IncompleteSignature")
        if headers["x-acs-content-sha256"] != hashlib.sha256(body).hexdigest():
            raise ApiError("SignatureDoesNotMatch")
        if not hmac.compare_digest(signature, sign(method, target, headers, names, body, SECRET)):
            raise ApiError("SignatureDoesNotMatch")
        sent = timegm(time.strptime(headers["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ"))
        if abs(time.time() - sent) > _MAX_SKEW_S:
            raise ApiError("InvalidTimeStamp.Expired")
        nonce = headers["x-acs-signature-nonce"]
        if nonce in self._nonces:
            raise ApiError("SignatureNonceUsed")
        self._nonces.add(nonce)


def sign(
    method: str, target: str, headers: Mapping[str, str], names: list[str], body: bytes, secret: str
) -> str:
    """Compute the signature of a request by version 3 of the documented algorithm."""
    parts = urlsplit(target)
    pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(names))
    request = "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/-_.~"),
            query,
            lines,
            ";".join(sorted(names)),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(request.encode()).hexdigest()}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Let an endpoint answer on a port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = endpoint.answer("POST", self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json;charset=utf-8")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        endpoint.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield endpoint
        server.shutdown()
