"""What a handler of one call returns, and the errors in OSS's own XML."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


@dataclass
class Answer:
    """One HTTP answer; `body` is streamed when it is an iterator, then `length` says how much comes."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    length: int = -1

    def __post_init__(self) -> None:
        if isinstance(self.body, bytes):
            self.length = len(self.body)


class OssError(Exception):
    """A refusal, as OSS words it.

    Args:
        status: HTTP status.
        code: OSS error code such as `NoSuchKey`.
        message: the sentence for humans.
        ec: OSS's fine-grained error code.
        headers: extra answer headers.
        extra: further elements of the error XML.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str = "",
        ec: str = "0000-00000000",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code)
        self.status, self.code, self.message, self.ec = status, code, message or code, ec
        self.headers, self.extra = dict(headers or {}), dict(extra or {})

    def xml(self, request_id: str, host: str) -> bytes:
        """Return the document that explains the refusal."""
        fields = {"Code": self.code, "Message": self.message, "RequestId": request_id, "HostId": host}
        return document("Error", elements(fields | {"EC": self.ec} | self.extra))


def elements(values: Mapping[str, object]) -> str:
    """Return the values as XML elements, escaped."""
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def document(root: str, inner: str) -> bytes:
    """Return a whole XML document."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{root}>'.encode()


def xml_answer(root: str, inner: str, headers: dict[str, str] | None = None) -> Answer:
    """Return a successful answer with an XML body."""
    return Answer(200, {"Content-Type": "application/xml", **(headers or {})}, document(root, inner))
