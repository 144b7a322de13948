"""Calls on one object: put, get, head, delete, copy, append, tags."""

import re
import time
import xml.etree.ElementTree as ElementTree
from email.utils import formatdate
from urllib.parse import unquote

from lab.oss.answers import Answer, OssError, elements, xml_answer
from lab.oss.catalog import Segment, StoredObject
from lab.oss.crc64 import combine
from lab.oss.request import Request, check_md5, iso_time, small_body
from lab.oss.store import BucketStore, parse_tags


def put_object(store: BucketStore, request: Request) -> Answer:
    """Store the body under the key."""
    if "x-oss-copy-source" in request.headers:
        return copy_object(store, request)
    store.refuse_change_under_worm(request.key)
    written = store.disk.write(request.body.blocks())
    try:
        check_md5(request, written.md5)
    except OssError:
        store.disk.remove([written.file])
        raise
    entry = StoredObject(
        request.key,
        written.etag,
        written.crc,
        written.size,
        "Normal",
        time.time(),
        (Segment(written.file, written.size),),
        request.kept_headers(),
        parse_tags(request.headers.get("x-oss-tagging", "")),
    )
    store.commit(entry, forbid_overwrite=request.forbids_overwrite)
    return Answer(200, {"ETag": f'"{entry.etag}"', "x-oss-hash-crc64ecma": str(entry.crc)})


def copy_object(store: BucketStore, request: Request) -> Answer:
    """Copy an object of the same bucket; its bytes are written again."""
    source = store.find(source_key(store, request))
    written = store.disk.write(store.disk.read(source.segments, 0, source.size))
    replace = request.headers.get("x-oss-metadata-directive", "COPY").upper() == "REPLACE"
    replace_tags = request.headers.get("x-oss-tagging-directive", "Copy").lower() == "replace"
    entry = StoredObject(
        request.key,
        written.etag,
        written.crc,
        written.size,
        "Normal",
        time.time(),
        (Segment(written.file, written.size),),
        request.kept_headers() if replace else source.headers,
        parse_tags(request.headers.get("x-oss-tagging", "")) if replace_tags else source.tags,
    )
    store.commit(entry, forbid_overwrite=request.forbids_overwrite)
    inner = elements({"LastModified": iso_time(entry.modified), "ETag": f'"{entry.etag}"'})
    return xml_answer("CopyObjectResult", inner, {"x-oss-hash-crc64ecma": str(entry.crc)})


def source_key(store: BucketStore, request: Request) -> str:
    """Return the key that x-oss-copy-source names in this bucket."""
    source = unquote(request.headers["x-oss-copy-source"]).lstrip("/").partition("?")[0]
    bucket, _, key = source.partition("/")
    if bucket != store.name:
        raise OssError(404, "NoSuchBucket", "The specified bucket does not exist.", "0015-00000101")
    return key


def get_object(store: BucketStore, request: Request) -> Answer:
    """Return the content, or a range of it; HEAD comes here too and its body is dropped."""
    entry = store.find(request.key)
    _check_conditions(request, entry)
    if request.method == "GET" and _frozen(entry):
        raise OssError(
            403,
            "InvalidObjectState",
            "The operation is not valid for the object's state",
            "0026-00000501",
        )
    start, length, status = _range(request, entry.size)
    headers = describe(entry)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{entry.size}"
    for name, value in request.params.items():
        if name.startswith("response-"):
            headers["-".join(word.capitalize() for word in name[9:].split("-"))] = value
    return Answer(status, headers, store.disk.read(entry.segments, start, length), length)


def _frozen(entry: StoredObject) -> bool:
    archived = "Archive" in entry.headers.get("x-oss-storage-class", "")
    return archived and "false" not in entry.headers.get("x-oss-restore", "")


def thaw_object(store: BucketStore, request: Request) -> Answer:
    """Begin to make an archived object readable; it is ready when a test says so."""
    request.body.skip()
    if "Archive" not in store.find(request.key).headers.get("x-oss-storage-class", ""):
        raise OssError(
            400, "OperationNotSupported", "The object is not in an archive class.", "0016-00000701"
        )
    if not store.thawing(request.key):
        raise OssError(409, "RestoreAlreadyInProgress", "The restore operation is in progress.")
    return Answer(202)


def describe(entry: StoredObject) -> dict[str, str]:
    """Return the headers of an object."""
    headers = {
        "ETag": f'"{entry.etag}"',
        "Last-Modified": formatdate(entry.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "x-oss-object-type": entry.kind,
        "x-oss-hash-crc64ecma": str(entry.crc),
        "x-oss-storage-class": "Standard",
    }
    if entry.kind == "Appendable":
        headers["x-oss-next-append-position"] = str(entry.size)
    if entry.tags:
        headers["x-oss-tagging-count"] = str(len(entry.tags))
    for name, value in entry.headers.items():
        headers["Content-Type" if name == "content-type" else name] = value
    return headers


def _check_conditions(request: Request, entry: StoredObject) -> None:
    if "if-match" in request.headers and request.headers["if-match"].strip('"') != entry.etag:
        raise OssError(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
    if request.headers.get("if-none-match", "").strip('"') == entry.etag:
        raise OssError(304, "NotModified")


def _range(request: Request, size: int) -> tuple[int, int, int]:
    """Return start, length and status; an impossible range gives the whole object, as in OSS."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not match or match.groups() == ("", ""):
        return 0, size, 200
    first, last = match.groups()
    if first == "":
        length = min(int(last), size)
        return size - length, length, 206
    start = int(first)
    end = min(int(last) if last else size - 1, size - 1)
    if start > end:
        if request.headers.get("x-oss-range-behavior") == "standard":
            raise OssError(416, "InvalidRange", "The requested range cannot be satisfied.")
        return 0, size, 200
    return start, end - start + 1, 206


def delete_object(store: BucketStore, request: Request) -> Answer:
    """Delete one object."""
    store.remove(request.key)
    return Answer(204)


def append_object(store: BucketStore, request: Request) -> Answer:
    """Append the body to an appendable object, at exactly its end."""
    old = store.catalog.get(request.key)
    if old and old.kind != "Appendable":
        raise OssError(409, "ObjectNotAppendable", "The object is not appendable")
    size = old.size if old else 0
    if request.params.get("position") != str(size):
        raise OssError(
            409,
            "PositionNotEqualToLength",
            "Position is not equal to file length",
            headers={"x-oss-next-append-position": str(size)},
        )
    written = store.disk.write(request.body.blocks())
    crc = combine(old.crc if old else 0, written.crc, written.size)
    entry = StoredObject(
        request.key,
        written.etag,
        crc,
        size + written.size,
        "Appendable",
        time.time(),
        (*(old.segments if old else ()), Segment(written.file, written.size)),
        old.headers if old else request.kept_headers(),
    )
    store.catalog.put(entry)
    return Answer(200, {"x-oss-next-append-position": str(entry.size), "x-oss-hash-crc64ecma": str(crc)})


def put_tags(store: BucketStore, request: Request) -> Answer:
    """Replace an object's tags."""
    entry = store.find(request.key)
    root = ElementTree.fromstring(small_body(request))
    tags = {tag.findtext("Key") or "": tag.findtext("Value") or "" for tag in root.iter("Tag")}
    store.catalog.put(_with_tags(entry, tags))
    return Answer(200)


def get_tags(store: BucketStore, request: Request) -> Answer:
    """Return an object's tags."""
    tags = store.find(request.key).tags
    inner = "".join(f"<Tag>{elements({'Key': key, 'Value': value})}</Tag>" for key, value in tags.items())
    return xml_answer("Tagging", f"<TagSet>{inner}</TagSet>")


def delete_tags(store: BucketStore, request: Request) -> Answer:
    """Remove an object's tags."""
    store.catalog.put(_with_tags(store.find(request.key), {}))
    return Answer(204)


def _with_tags(entry: StoredObject, tags: dict[str, str]) -> StoredObject:
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    return StoredObject(**(fields | {"tags": tags}))
