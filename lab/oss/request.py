"""One HTTP request as the calls see it, and its body as a stream."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

from lab.oss.answers import OssError
from lab.oss.disk import BLOCK

_KEPT_HEADERS = (
    "content-type",
    "content-encoding",
    "content-disposition",
    "content-language",
    "cache-control",
    "expires",
)


class Body:
    """The request's body, by Content-Length or chunked; it can be read once."""

    def __init__(self, source: BufferedIOBase, length: int, chunked: bool) -> None:
        self._source = source
        self._left = length
        self._chunked = chunked

    def blocks(self) -> Iterator[bytes]:
        """Yield the body piece by piece.

        Raises:
            ConnectionError: the client went away in the middle.
        """
        if self._chunked:
            yield from self._chunks()
            return
        while self._left > 0:
            block = self._source.read(min(BLOCK, self._left))
            if not block:
                raise ConnectionError("the client went away in the middle of the body")
            self._left -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        self._chunked = False
        while True:
            size = int(self._source.readline().split(b";")[0].strip() or b"0", 16)
            self._left = size
            yield from self.blocks()
            self._source.readline()
            if size == 0:
                return

    def all(self, limit: int = 8 << 20) -> bytes:
        """Return the whole body of a small request.

        Raises:
            OssError: it is larger than the limit.
        """
        content = b""
        for block in self.blocks():
            content += block
            if len(content) > limit:
                raise OssError(400, "EntityTooLarge", "The request's body is too large.")
        return content

    def skip(self, limit: int = 256 << 20) -> bool:
        """Read what is left, so that the connection can be used again; False when it is too much."""
        for block in self.blocks():
            limit -= len(block)
            if limit < 0:
                return False
        return True


@dataclass(frozen=True)
class Request:
    """A parsed request; header names in lower case, key and parameters decoded."""

    method: str
    bucket: str
    key: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Body

    def number(self, name: str, default: int, highest: int) -> int:
        """Return a numeric parameter, refused outside 1 and the highest value."""
        text = self.params.get(name) or str(default)
        if not text.isdigit() or not 1 <= int(text) <= highest:
            raise OssError(
                400, "InvalidArgument", f"Argument {name} must be an integer between 1 and {highest}."
            )
        return int(text)

    def kept_headers(self) -> dict[str, str]:
        """Return the headers that are stored with the object."""
        return {
            name: value
            for name, value in self.headers.items()
            if name in _KEPT_HEADERS
            or name.startswith(("x-oss-meta-", "x-oss-server-side-encryption"))
            or name == "x-oss-storage-class"
        }

    @property
    def forbids_overwrite(self) -> bool:
        """Whether the object must not exist yet."""
        return self.headers.get("x-oss-forbid-overwrite", "").lower() == "true"


def check_md5(request: Request, md5: bytes) -> None:
    """Refuse a body that is not what Content-MD5 says."""
    expected = request.headers.get("content-md5")
    if expected and expected != b64encode(md5).decode():
        raise OssError(400, "InvalidDigest", "The Content-MD5 you specified is invalid.", "0017-00000202")


def small_body(request: Request) -> bytes:
    """Return the body of a request that carries XML, its MD5 checked."""
    content = request.body.all()
    check_md5(request, hashlib.md5(content).digest())
    return content


def iso_time(stamp: float) -> str:
    """Return a time as OSS's XML has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stamp))
