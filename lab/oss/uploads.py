"""Multipart uploads: start, parts, complete, abort, and their listings."""

import hashlib
import secrets
import time
import xml.etree.ElementTree as ElementTree
from email.utils import formatdate
from urllib.parse import quote

from lab.oss.answers import Answer, OssError, elements, xml_answer
from lab.oss.catalog import Part, Segment, StoredObject, Upload
from lab.oss.crc64 import combine
from lab.oss.objects import source_key
from lab.oss.request import Request, check_md5, iso_time, small_body
from lab.oss.store import MIN_PART_SIZE, BucketStore, parse_tags


def start_upload(store: BucketStore, request: Request) -> Answer:
    """Begin a multipart upload and name it."""
    request.body.skip()
    headers = request.kept_headers()
    for name in ("x-oss-forbid-overwrite", "x-oss-tagging"):
        if name in request.headers:
            headers[name] = request.headers[name]
    upload = Upload(request.key, secrets.token_hex(16).upper(), time.time(), headers)
    store.catalog.add_upload(upload)
    names = {"Bucket": store.name, "Key": request.key, "UploadId": upload.upload_id}
    return xml_answer("InitiateMultipartUploadResult", elements(names))


def put_part(store: BucketStore, request: Request) -> Answer:
    """Store one part; the same number again replaces it."""
    upload = _find(store, request)
    number = request.number("partNumber", 0, 10_000)
    if "x-oss-copy-source" in request.headers:
        return _copy_part(store, request, upload, number)
    written = store.disk.write(request.body.blocks())
    try:
        check_md5(request, written.md5)
        _find(store, request)  # it may have been aborted while the body came in
    except OssError:
        store.disk.remove([written.file])
        raise
    part = Part(number, written.etag, written.crc, written.size, time.time(), written.file)
    old = store.catalog.add_part(upload.upload_id, part)
    store.disk.remove([old.file] if old else [])
    return Answer(200, {"ETag": f'"{part.etag}"', "x-oss-hash-crc64ecma": str(part.crc)})


def _copy_part(store: BucketStore, request: Request, upload: Upload, number: int) -> Answer:
    source = store.find(source_key(store, request))
    first, _, last = (
        request.headers.get("x-oss-copy-source-range", "bytes=0-").partition("=")[2].partition("-")
    )
    start = int(first or 0)
    length = (int(last) if last else source.size - 1) - start + 1
    written = store.disk.write(store.disk.read(source.segments, start, length))
    part = Part(number, written.etag, written.crc, written.size, time.time(), written.file)
    old = store.catalog.add_part(upload.upload_id, part)
    store.disk.remove([old.file] if old else [])
    inner = elements({"LastModified": iso_time(part.modified), "ETag": f'"{part.etag}"'})
    return xml_answer("CopyPartResult", inner)


def complete_upload(store: BucketStore, request: Request) -> Answer:
    """Put the parts together; the object becomes visible in one step."""
    upload = _find(store, request)
    stored = {part.number: part for part in store.catalog.parts(upload.upload_id)}
    chosen = _chosen_parts(request, stored)
    if any(part.size < MIN_PART_SIZE for part in chosen[:-1]):
        raise OssError(
            400,
            "EntityTooSmall",
            "Your proposed upload is smaller than the minimum allowed size.",
            "0042-00000052",
        )
    crc = 0
    for part in chosen:
        crc = combine(crc, part.crc, part.size)
    etag = hashlib.md5("".join(part.etag for part in chosen).encode()).hexdigest().upper()
    entry = StoredObject(
        upload.key,
        f"{etag}-{len(chosen)}",
        crc,
        sum(part.size for part in chosen),
        "Multipart",
        time.time(),
        tuple(Segment(part.file, part.size) for part in chosen),
        {
            name: value
            for name, value in upload.headers.items()
            if name not in ("x-oss-forbid-overwrite", "x-oss-tagging")
        },
        parse_tags(upload.headers.get("x-oss-tagging", "")),
    )
    forbid = request.forbids_overwrite or upload.headers.get("x-oss-forbid-overwrite", "").lower() == "true"
    if forbid and store.catalog.get(upload.key):
        raise OssError(
            409, "FileAlreadyExists", "The object you specified already exists and can not be overwritten."
        )
    store.commit(entry, forbid_overwrite=forbid)
    store.catalog.remove_upload(upload.upload_id)
    used = {part.file for part in chosen}
    store.disk.remove(part.file for part in stored.values() if part.file not in used)
    return _completed(store, entry)


def _completed(store: BucketStore, entry: StoredObject) -> Answer:
    names = {
        "Location": f"/{store.name}/{entry.key}",
        "Bucket": store.name,
        "Key": entry.key,
        "ETag": f'"{entry.etag}"',
    }
    headers = {"ETag": f'"{entry.etag}"', "x-oss-hash-crc64ecma": str(entry.crc)}
    return xml_answer("CompleteMultipartUploadResult", elements(names), headers)


def _chosen_parts(request: Request, stored: dict[int, Part]) -> list[Part]:
    body = small_body(request)
    if request.headers.get("x-oss-complete-all", "").lower() == "yes":
        return [stored[number] for number in sorted(stored)]
    chosen: list[Part] = []
    for node in ElementTree.fromstring(body).iter("Part"):
        number = int(node.findtext("PartNumber") or 0)
        part = stored.get(number)
        if part is None or part.etag != (node.findtext("ETag") or "").strip('"').upper():
            raise OssError(
                400, "InvalidPart", "One or more of the specified parts could not be found.", "0042-00000202"
            )
        if chosen and chosen[-1].number >= number:
            raise OssError(
                400, "InvalidPartOrder", "The list of parts was not in ascending order.", "0042-00000203"
            )
        chosen.append(part)
    if not chosen:
        raise OssError(400, "MalformedXML", "The XML you provided was not well-formed.")
    return chosen


def abort_upload(store: BucketStore, request: Request) -> Answer:
    """Forget an upload and its parts."""
    upload = _find(store, request)
    files = [part.file for part in store.catalog.parts(upload.upload_id)]
    store.catalog.remove_upload(upload.upload_id)
    store.disk.remove(files)
    return Answer(204)


def list_parts(store: BucketStore, request: Request) -> Answer:
    """Return one page of an upload's parts."""
    upload = _find(store, request)
    limit = request.number("max-parts", 1000, 1000)
    after = int(request.params.get("part-number-marker") or 0)
    parts = [part for part in store.catalog.parts(upload.upload_id) if part.number > after]
    page, truncated = parts[:limit], len(parts) > limit
    inner = elements(
        {
            "Bucket": store.name,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            "PartNumberMarker": after,
            "NextPartNumberMarker": page[-1].number if page else after,
            "MaxParts": limit,
            "IsTruncated": str(truncated).lower(),
        }
    )
    for part in page:
        fields = {
            "PartNumber": part.number,
            "LastModified": iso_time(part.modified),
            "ETag": f'"{part.etag}"',
        }
        inner += f"<Part>{elements(fields | {'HashCrc64ecma': part.crc, 'Size': part.size})}</Part>"
    return xml_answer("ListPartsResult", inner, {"Date": formatdate(usegmt=True)})


def list_uploads(store: BucketStore, request: Request) -> Answer:
    """Return one page of the unfinished uploads of the bucket."""
    limit = request.number("max-uploads", 1000, 1000)
    prefix = request.params.get("prefix", "")
    key_marker = request.params.get("key-marker", "")
    id_marker = request.params.get("upload-id-marker", "")
    found = store.catalog.uploads(prefix, key_marker, id_marker, limit + 1)
    page, truncated = found[:limit], len(found) > limit
    url = request.params.get("encoding-type") == "url"

    def name(key: str) -> str:
        return quote(key, safe="") if url else key

    inner = elements(
        {
            "Bucket": store.name,
            **({"EncodingType": "url"} if url else {}),
            "KeyMarker": name(key_marker),
            "UploadIdMarker": id_marker,
            "NextKeyMarker": name(page[-1].key) if truncated else "",
            "NextUploadIdMarker": page[-1].upload_id if truncated else "",
            "MaxUploads": limit,
            "IsTruncated": str(truncated).lower(),
        }
    )
    for upload in page:
        fields = {
            "Key": name(upload.key),
            "UploadId": upload.upload_id,
            "Initiated": iso_time(upload.initiated),
        }
        inner += f"<Upload>{elements(fields)}</Upload>"
    return xml_answer("ListMultipartUploadsResult", inner)


def _find(store: BucketStore, request: Request) -> Upload:
    upload = store.catalog.upload(request.key, request.params["uploadId"])
    if upload is None:
        raise OssError(404, "NoSuchUpload", "The specified upload does not exist.", "0042-00000002")
    return upload
