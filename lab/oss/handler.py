"""One connection: read a request, check its signature, run the call, answer; or fail on purpose."""

import contextlib
import dataclasses
import secrets
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from lab.oss import admin
from lab.oss.answers import Answer, OssError
from lab.oss.faults import CODES, Fault
from lab.oss.request import Body, Request
from lab.oss.routes import Route, find_route
from lab.oss.signature import Signed, verify
from lab.oss.sigv4 import S3Signed, SignedBody, is_s3, verify_s3

_IDLE_S = 120.0


class Cut(Exception):
    """The connection has to go, without another byte."""


class Handler(BaseHTTPRequestHandler):
    """Serves one connection until it is closed or idle for two minutes."""

    protocol_version = "HTTP/1.1"
    server_version = "AliyunOSS"
    sys_version = ""
    timeout = _IDLE_S
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line a request would cost more than the request."""

    def handle(self) -> None:
        """Serve requests until the connection ends, in whatever way."""
        with contextlib.suppress(ConnectionError, TimeoutError, BrokenPipeError):
            super().handle()

    def finish(self) -> None:
        """Close; a connection that was cut cannot be flushed."""
        with contextlib.suppress(ConnectionError, OSError, ValueError):
            super().finish()

    def do_GET(self) -> None:
        """Serve any method: which call it is depends on more than the method."""
        request_id = secrets.token_hex(12).upper()
        request = self._parse()
        if self.path.startswith("/_"):
            self._send(admin.serve(self.server.control, self.client_address[0], request), request_id, None)
            return
        try:
            self._serve(request, request_id)
        except Cut:
            self._cut()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _parse(self) -> Request:
        parts = urlsplit(self.path)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value.strip() for name, value in self.headers.items()}
        bucket, _, key = parts.path.lstrip("/").partition("/")
        name = self.server.store.name
        if headers.get("host", "").startswith(f"{name}."):  # virtual-host style
            bucket, key = name, parts.path[1:]
        elif is_s3(headers):  # another bucket, or the other style, which OSS does not take from S3 clients
            bucket, key = headers.get("host", "").partition(".")[0], parts.path[1:]
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        body = Body(self.rfile, int(headers.get("content-length") or 0), chunked)
        return Request(self.command, unquote(bucket), unquote(key), params, headers, body)

    def _serve(self, request: Request, request_id: str) -> None:
        operation, fault = "Unknown", None
        try:
            route = find_route(request)
            operation = route.name
            fault = self.server.faults.take(operation, request.key)
            answer = self._run(route, request, fault)
        except OssError as error:
            answer = self._refusal(error, request, request_id)
        except Cut:
            self.server.faults.served(operation, 0)
            raise
        if fault and fault.kind == "lost_answer":
            self.server.faults.served(operation, 0)
            raise Cut
        # Counted before the answer leaves: a test that has its answer may read the counter at once.
        self.server.faults.served(operation, answer.status)
        self._send(answer, request_id, fault)

    def _run(self, route: Route, request: Request, fault: Fault | None) -> Answer:
        store = self.server.store
        if fault and fault.kind == "reset":
            self._swallow(request, fault.bytes)
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault and fault.kind == "error":
            status, ec, message = CODES[fault.code]
            delay = {"x-oss-qos-delay-time": str(fault.delay_ms)} if fault.delay_ms else {}
            code = "AccessDenied" if fault.code == "WrongEndpoint" else fault.code
            raise OssError(status, code, message, ec, headers=delay)
        request = self._verified(request)
        if request.bucket and request.bucket != store.name:
            extra = {"BucketName": request.bucket}
            raise OssError(
                404, "NoSuchBucket", "The specified bucket does not exist.", "0015-00000101", extra=extra
            )
        answer = route.call(store, request)
        if fault and fault.kind == "wrong_crc" and "x-oss-hash-crc64ecma" in answer.headers:
            answer.headers["x-oss-hash-crc64ecma"] = str(int(answer.headers["x-oss-hash-crc64ecma"]) ^ 1)
        return answer

    def _verified(self, request: Request) -> Request:
        credentials = self.server.store.credentials
        if not is_s3(request.headers):
            verify(
                Signed(request.method, request.bucket, request.key, request.params, request.headers),
                credentials,
            )
            return request
        path, length = urlsplit(self.path).path, int(request.headers.get("content-length") or 0)
        signed = S3Signed(request.method, path, request.params, request.headers, length)
        payload = verify_s3(signed, credentials, time.time())
        return dataclasses.replace(request, body=SignedBody(request.body, payload))

    def _swallow(self, request: Request, limit: int) -> None:
        for block in request.body.blocks():
            limit -= len(block)
            if limit <= 0:
                break
        raise Cut

    def _refusal(self, error: OssError, request: Request, request_id: str) -> Answer:
        # A client that is still sending sees a broken pipe instead of the answer, so its body is read first.
        if not request.body.skip():
            self.close_connection = True
        xml = b"" if error.status == 304 else error.xml(request_id, request.headers.get("host", ""))
        headers = {"Content-Type": "application/xml", "x-oss-ec": error.ec, **error.headers}
        if request.method == "HEAD":
            headers["x-oss-err"] = b64encode(xml).decode()
        return Answer(error.status, headers, xml)

    def _send(self, answer: Answer, request_id: str, fault: Fault | None) -> None:
        self.send_response(answer.status)
        headers = {"x-oss-request-id": request_id, "x-oss-server-time": "1", **answer.headers}
        if answer.status not in (204, 304):
            headers["Content-Length"] = str(answer.length)
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value.encode("utf-8").decode("latin-1"))
        self.end_headers()
        if self.command == "HEAD" or answer.status in (204, 304):
            return
        blocks = iter([answer.body]) if isinstance(answer.body, bytes) else answer.body
        for block in _spoil(blocks, fault):
            self.wfile.write(block)
        if fault and fault.kind in ("truncate", "reset_answer"):
            self.wfile.flush()
            self._cut(gently=fault.kind == "truncate")

    def _cut(self, gently: bool = False) -> None:
        self.close_connection = True
        if not gently:  # linger 0: the peer gets a reset, not an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD if not gently else socket.SHUT_RDWR)


def _spoil(blocks: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
    """Yield the blocks as the fault has it: cut short, slowly, or with one wrong byte."""
    if fault is None or fault.kind not in ("truncate", "reset_answer", "slow", "wrong_content"):
        yield from blocks
        return
    sent = 0
    for block in blocks:
        if fault.kind in ("truncate", "reset_answer"):
            yield block[: max(0, fault.bytes - sent)]
            sent += len(block)
            if sent >= fault.bytes:
                return
        elif fault.kind == "wrong_content":
            yield block if sent else bytes([block[0] ^ 0xFF]) + block[1:]
            sent += len(block)
        else:
            for start in range(0, len(block), max(1, fault.rate // 10)):
                yield block[start : start + max(1, fault.rate // 10)]
                # Nothing is waited for: this pace is the fault, `rate` bytes a second.
                time.sleep(0.1)
