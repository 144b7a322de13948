"""Calls on the bucket: listings, batch delete, facts, stored settings, retention policy."""

import secrets
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from lab.oss.answers import Answer, OssError, document, elements, xml_answer
from lab.oss.catalog import StoredObject
from lab.oss.request import Request, iso_time, small_body
from lab.oss.store import BucketStore

_OWNER = elements({"ID": "0022012", "DisplayName": "0022012"})


def list_buckets(store: BucketStore, _request: Request) -> Answer:
    """Return the one bucket."""
    inner = f"<Owner>{_OWNER}</Owner><Buckets><Bucket>{elements(_identity(store))}</Bucket></Buckets>"
    return xml_answer("ListAllMyBucketsResult", inner)


def _identity(store: BucketStore) -> dict[str, str]:
    region = store.credentials.region
    return {
        "Name": store.name,
        "Location": f"oss-{region}",
        "CreationDate": iso_time(store.created),
        "ExtranetEndpoint": f"oss-{region}.example.com",
        "IntranetEndpoint": f"oss-{region}-internal.example.com",
        "StorageClass": "Standard",
        "Region": region,
    }


def list_objects(store: BucketStore, request: Request) -> Answer:
    """Return one page of keys, version 1 of the call."""
    return _listing(store, request, request.params.get("marker", ""), version=1)


def list_objects_v2(store: BucketStore, request: Request) -> Answer:
    """Return one page of keys, version 2 of the call."""
    token = request.params.get("continuation-token", "")
    return _listing(store, request, token or request.params.get("start-after", ""), version=2)


def _listing(store: BucketStore, request: Request, after: str, version: int) -> Answer:
    limit = request.number("max-keys", 100, 1000)
    prefix, delimiter = request.params.get("prefix", ""), request.params.get("delimiter", "")
    page = store.catalog.page(prefix, delimiter, after, limit)
    url = request.params.get("encoding-type") == "url"
    name = _url_name if url else escape
    count = len(page.objects) + len(page.prefixes)
    head = f"<Name>{store.name}</Name><Prefix>{name(prefix)}</Prefix><Delimiter>{name(delimiter)}</Delimiter>"
    head += elements({"MaxKeys": limit, "IsTruncated": str(page.next_marker is not None).lower()})
    head += "<EncodingType>url</EncodingType>" if url else ""
    tag = "NextMarker" if version == 1 else "NextContinuationToken"
    head += f"<Marker>{name(after)}</Marker>" if version == 1 else f"<KeyCount>{count}</KeyCount>"
    head += f"<{tag}>{name(page.next_marker)}</{tag}>" if page.next_marker else ""
    owner = f"<Owner>{_OWNER}</Owner>" if version == 1 or request.params.get("fetch-owner") == "true" else ""
    contents = "".join(_contents(entry, name, owner) for entry in page.objects)
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{name(item)}</Prefix></CommonPrefixes>" for item in page.prefixes
    )
    return xml_answer("ListBucketResult", head + contents + prefixes)


def _url_name(text: str) -> str:
    return quote(text, safe="")


def _contents(entry: StoredObject, name: Callable[[str], str], owner: str) -> str:
    return (
        f"<Contents><Key>{name(entry.key)}</Key><LastModified>{iso_time(entry.modified)}</LastModified>"
        f"<ETag>&quot;{entry.etag}&quot;</ETag><Type>{entry.kind}</Type><Size>{entry.size}</Size>"
        f"<StorageClass>{entry.headers.get('x-oss-storage-class', 'Standard')}</StorageClass>{owner}</Contents>"
    )


def delete_objects(store: BucketStore, request: Request) -> Answer:
    """Delete up to 1,000 keys and say which."""
    root = ElementTree.fromstring(small_body(request))
    url = request.params.get("encoding-type") == "url"
    keys = [node.findtext("Key") or "" for node in root.iter("Object")]
    if len(keys) > 1000:
        raise OssError(400, "MalformedXML", "At most 1000 keys can be deleted at once.")
    deleted = []
    for key in keys:
        try:
            store.remove(unquote(key) if _is_encoded(root) else key)
        except OssError as error:
            if error.code != "FileImmutable":
                raise
        else:
            deleted.append(key)
    if root.findtext("Quiet") == "true":
        return Answer(200)
    name = _url_name if url else escape
    inner = "<EncodingType>url</EncodingType>" if url else ""
    inner += "".join(f"<Deleted><Key>{name(key)}</Key></Deleted>" for key in deleted)
    return xml_answer("DeleteResult", inner)


def _is_encoded(root: ElementTree.Element) -> bool:
    return root.findtext("EncodingType") == "url"


def bucket_info(store: BucketStore, _request: Request) -> Answer:
    """Return the facts of the bucket."""
    inner = elements(_identity(store) | {"DataRedundancyType": "LRS", "AccessMonitor": "Disabled"})
    inner += f"<Owner>{_OWNER}</Owner><AccessControlList><Grant>private</Grant></AccessControlList>"
    versioning = _versioning(store)
    inner += f"<Versioning>{versioning}</Versioning>" if versioning else ""
    inner += "<ServerSideEncryptionRule><SSEAlgorithm>None</SSEAlgorithm></ServerSideEncryptionRule>"
    return xml_answer("BucketInfo", f"<Bucket>{inner}</Bucket>")


def _versioning(store: BucketStore) -> str:
    stored = store.catalog.setting("versioning")
    return (ElementTree.fromstring(stored).findtext("Status") or "") if stored else ""


def bucket_stat(store: BucketStore, _request: Request) -> Answer:
    """Return how much is in the bucket."""
    count, size, uploads = store.catalog.totals()
    return xml_answer(
        "BucketStat", elements({"Storage": size, "ObjectCount": count, "MultipartUploadCount": uploads})
    )


def bucket_location(store: BucketStore, _request: Request) -> Answer:
    """Return the region in OSS's old form."""
    return xml_answer("LocationConstraint", f"oss-{store.credentials.region}")


def bucket_acl(_store: BucketStore, _request: Request) -> Answer:
    """Return that the bucket is private."""
    inner = f"<Owner>{_OWNER}</Owner><AccessControlList><Grant>private</Grant></AccessControlList>"
    return xml_answer("AccessControlPolicy", inner)


def start_worm(store: BucketStore, request: Request) -> Answer:
    """Put a retention policy on the bucket; from now on nothing is replaced or removed."""
    days = ElementTree.fromstring(small_body(request)).findtext("RetentionPeriodInDays") or "1"
    set_worm(store, int(days), "InProgress")
    return Answer(200, {"x-oss-worm-id": _worm_id(store)})


def complete_worm(store: BucketStore, request: Request) -> Answer:
    """Lock the retention policy."""
    request.body.skip()
    stored = store.catalog.setting("worm") or ""
    store.catalog.set_setting("worm", stored.replace("InProgress", "Locked"))
    return Answer(200)


def abort_worm(store: BucketStore, _request: Request) -> Answer:
    """Remove a retention policy that is not locked yet."""
    if "Locked" in (store.catalog.setting("worm") or ""):
        raise OssError(409, "WORMConfigurationLocked", "The WORM configuration is locked.")
    store.catalog.set_setting("worm", None)
    return Answer(204)


def set_worm(store: BucketStore, days: int, state: str) -> None:
    """Store the retention policy's document."""
    fields = {
        "WormId": secrets.token_hex(16).upper(),
        "State": state,
        "RetentionPeriodInDays": days,
        "CreationDate": iso_time(store.created),
    }
    store.catalog.set_setting("worm", document("WormConfiguration", elements(fields)).decode())


def _worm_id(store: BucketStore) -> str:
    return ElementTree.fromstring(store.catalog.setting("worm") or "<a/>").findtext("WormId") or ""


# Settings that are only kept and given back. Name → error code when there is none (empty: an empty document).
SETTINGS = {
    "lifecycle": "NoSuchLifecycle",
    "encryption": "NoSuchServerSideEncryptionRule",
    "policy": "NoSuchBucketPolicy",
    "cors": "NoSuchCORSConfiguration",
    "worm": "NoSuchWORMConfiguration",
    "website": "NoSuchWebsiteConfiguration",
    "versioning": "",
    "referer": "",
    "logging": "",
    "tagging": "",
}
_EMPTY = {
    "versioning": "VersioningConfiguration",
    "referer": "RefererConfiguration",
    "logging": "BucketLoggingStatus",
    "tagging": "Tagging",
}


def _setting_name(request: Request) -> str:
    return next(name for name in SETTINGS if name in request.params)


def get_setting(store: BucketStore, request: Request) -> Answer:
    """Return a stored setting."""
    name = _setting_name(request)
    stored = store.catalog.setting(name)
    if stored is not None:
        return Answer(200, {"Content-Type": "application/xml"}, stored.encode())
    if SETTINGS[name]:
        raise OssError(404, SETTINGS[name], "The bucket has no such configuration.")
    return xml_answer(_EMPTY[name], "")


def put_setting(store: BucketStore, request: Request) -> Answer:
    """Store a setting as it came."""
    store.catalog.set_setting(_setting_name(request), small_body(request).decode())
    return Answer(200)


def delete_setting(store: BucketStore, request: Request) -> Answer:
    """Remove a stored setting."""
    store.catalog.set_setting(_setting_name(request), None)
    return Answer(204)
