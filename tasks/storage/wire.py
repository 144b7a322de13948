"""The SDK at its narrowest: a bucket object set up the way that works, and pages of listings."""

import logging
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tasks.storage.errors import AnswerUnreadable, StorageError
from tasks.storage.objects import ListedObject

if TYPE_CHECKING:
    import requests

    from blocks import OssBucket

_CONNECT_S = 10.0
# Between two bytes. OSS answers the completion of 10,000 parts within a minute.
_IDLE_S = 90.0

PAGE = 1000
_BLOCK = 1 << 20

# As OSS writes it. The parser needs 17 ms for a page where this needs 2.
_LINE = re.compile(
    r"<Contents>\s*<Key>([^<]*)</Key>\s*<LastModified>([^<]*)</LastModified>\s*"
    r"<ETag>(?:&quot;|\")?([^<&\"]*)(?:&quot;|\")?</ETag>\s*(?:<Type>[^<]*</Type>\s*)?<Size>(\d+)</Size>\s*"
    r"(?:<StorageClass>[^<]*</StorageClass>\s*)?</Contents>"
)

# The lines of one page of a listing, and the token of the next page, empty at the end.
Page = tuple[list[ListedObject], str]


def open_bucket(settings: "OssBucket", threads: int) -> Any:
    """Return an oss2 bucket with V4 signatures, time limits, a connection a thread, and without its own CRC.

    The SDK's CRC holds the GIL at 250 MB/s, and combining the parts' costs 25 ms each; its default
    signature is refused for buckets made since September 2025.

    Raises:
        StorageError: the bucket's name or the endpoint cannot be one.
    """
    import oss2

    logging.getLogger("oss2").setLevel(logging.WARNING)  # it logs every URL at INFO
    credentials = oss2.credentials.StaticCredentialsProvider(
        settings.access_key_id, settings.access_key_secret.get_secret_value()
    )
    session = oss2.Session(pool_size=threads + 4)
    try:
        bucket = oss2.Bucket(
            oss2.ProviderAuthV4(credentials),
            settings.endpoint,
            settings.bucket,
            region=settings.region,
            is_cname=settings.is_cname,
            session=session,
            connect_timeout=(_CONNECT_S, _IDLE_S),
            enable_crc=False,
        )
    except oss2.exceptions.ClientError as error:
        raise StorageError(
            f"The SDK does not accept the settings: {error.body}",
            remedy="Correct oss.bucket and oss.endpoint.",
        ) from None
    _ask_environment_once(session.session, bucket._make_url(bucket.bucket_name, ""))
    return bucket


def _ask_environment_once(session: "requests.Session", url: str) -> None:
    """Take proxy and authorities from the environment now, and nothing from it for each request.

    That is a sixth of the CPU of a small request. And requests takes a password out of ~/.netrc, if there is one for
    the host, in the place of the signature.
    """
    found = session.merge_environment_settings(url, {}, False, None, None)
    session.proxies, session.verify = dict(found["proxies"]), found["verify"]
    session.trust_env = False


def finish(result: Any) -> Any:
    """Read the rest of an answer: oss2 leaves the XML of a completion unread, and the connection is lost."""
    result.resp.read()
    return result


def list_page(bucket: Any, prefix: str, delimiter: str, token: str, base: str = "") -> Page:
    """Return one page of a listing, its keys relative to the base, and the token of the next, empty at the end.

    Not `bucket.list_objects_v2`: that needs 20 to 50 ms of CPU a page where this needs 5, which is most of
    the time of an inventory of a million blobs.
    """
    params = {
        "list-type": "2",
        "prefix": prefix,
        "delimiter": delimiter,
        "continuation-token": token,
        "max-keys": str(PAGE),
        "encoding-type": "url",
    }
    answer = bucket._do("GET", bucket.bucket_name, "", params=params)
    # The SDK's own `read` does so in pieces of 8 KiB, some forty for a page.
    return parse_page(b"".join(answer.response.iter_content(_BLOCK)), base)


def parse_page(document: bytes, base: str = "") -> Page:
    """Read the XML of a listing: lines of the usual shape by one expression, all others by a parser."""
    text = document.decode("utf-8", "replace")
    first, last = text.find("<Contents>"), text.rfind("</Contents>") + len("</Contents>")
    if first < 0:
        first = last = 0
    lines: list[ListedObject] = []
    found = _LINE.findall(text, first, last)
    if len(found) == text.count("<Contents>") and not any("&" in line[0] for line in found):
        lines = [
            ListedObject(_key(key, base), int(size), etag, modified) for key, modified, etag, size in found
        ]
        text = text[:first] + text[last:]
    root = _root(text)
    truncated = root.findtext("{*}IsTruncated") == "true"
    following = unquote(root.findtext("{*}NextContinuationToken") or "") if truncated else ""
    if truncated and not following:
        raise AnswerUnreadable("A page of the listing has no successor and is not the last.")
    return lines + list(_lines(root, base)), following


def _root(text: str) -> ElementTree.Element:
    """Return the root of a listing: another service's page has no lines, and was taken for an empty bucket.

    Raises:
        AnswerUnreadable: it is another document, or none.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise AnswerUnreadable(f"A page of the listing is damaged (line {error.position[0]}).") from None
    if _local(root) != "ListBucketResult":
        raise AnswerUnreadable(
            "What answers at the endpoint is not OSS: it sent another document than a listing.",
            remedy="Correct oss.endpoint; a proxy or a login page in between answers instead of OSS.",
        )
    return root


def _local(node: ElementTree.Element) -> str:
    # With an xmlns the parser puts the name space before every name.
    return str(node.tag).rpartition("}")[2]


def _lines(root: ElementTree.Element, base: str) -> Iterator[ListedObject]:
    for node in root:
        if _local(node) == "Contents":
            yield _line(node, base)
        elif _local(node) == "CommonPrefixes":
            yield ListedObject(_key(node.findtext("{*}Prefix") or "", base), is_prefix=True)


def _key(quoted: str, base: str) -> str:
    plain = quoted.replace("%2F", "/")
    return (unquote(plain) if "%" in plain else plain).removeprefix(base)


def _line(node: ElementTree.Element, base: str) -> ListedObject:
    fields = {_local(child): child.text or "" for child in node}
    try:
        size, etag = int(fields["Size"]), fields["ETag"].strip('"')
        return ListedObject(_key(fields["Key"], base), size, etag, fields["LastModified"])
    except (KeyError, ValueError):
        raise AnswerUnreadable("A line of the listing lacks a key, a size, an ETag or a date.") from None
