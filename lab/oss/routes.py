"""Which call a request is: the first line of the table that fits."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.oss import bucket, objects, uploads
from lab.oss.answers import Answer, OssError
from lab.oss.request import Request
from lab.oss.store import BucketStore

Call = Callable[[BucketStore, Request], Answer]


@dataclass(frozen=True)
class Route:
    """A call: its method, where it applies, the query parameters that mark it, its name."""

    method: str
    level: str
    marks: tuple[str, ...]
    name: str
    call: Call


def _settings() -> list[Route]:
    routes = []
    for setting in bucket.SETTINGS:
        title = setting.capitalize()
        routes.append(Route("GET", "bucket", (setting,), f"GetBucket{title}", bucket.get_setting))
        if setting != "worm":
            routes.append(Route("PUT", "bucket", (setting,), f"PutBucket{title}", bucket.put_setting))
            routes.append(
                Route("DELETE", "bucket", (setting,), f"DeleteBucket{title}", bucket.delete_setting)
            )
    return routes


ROUTES = [
    Route("GET", "service", (), "ListBuckets", bucket.list_buckets),
    *_settings(),
    Route("GET", "bucket", ("bucketInfo",), "GetBucketInfo", bucket.bucket_info),
    Route("GET", "bucket", ("stat",), "GetBucketStat", bucket.bucket_stat),
    Route("GET", "bucket", ("location",), "GetBucketLocation", bucket.bucket_location),
    Route("GET", "bucket", ("acl",), "GetBucketAcl", bucket.bucket_acl),
    Route("GET", "bucket", ("uploads",), "ListMultipartUploads", uploads.list_uploads),
    Route("GET", "bucket", ("list-type",), "ListObjectsV2", bucket.list_objects_v2),
    Route("GET", "bucket", (), "ListObjects", bucket.list_objects),
    Route("POST", "bucket", ("delete",), "DeleteMultipleObjects", bucket.delete_objects),
    Route("POST", "bucket", ("wormId",), "CompleteBucketWorm", bucket.complete_worm),
    Route("POST", "bucket", ("worm",), "InitiateBucketWorm", bucket.start_worm),
    Route("DELETE", "bucket", ("worm",), "AbortBucketWorm", bucket.abort_worm),
    Route("PUT", "object", ("uploadId", "partNumber"), "UploadPart", uploads.put_part),
    Route("POST", "object", ("uploads",), "InitiateMultipartUpload", uploads.start_upload),
    Route("POST", "object", ("uploadId",), "CompleteMultipartUpload", uploads.complete_upload),
    Route("DELETE", "object", ("uploadId",), "AbortMultipartUpload", uploads.abort_upload),
    Route("GET", "object", ("uploadId",), "ListParts", uploads.list_parts),
    Route("POST", "object", ("restore",), "RestoreObject", objects.thaw_object),
    Route("POST", "object", ("append",), "AppendObject", objects.append_object),
    Route("PUT", "object", ("tagging",), "PutObjectTagging", objects.put_tags),
    Route("GET", "object", ("tagging",), "GetObjectTagging", objects.get_tags),
    Route("DELETE", "object", ("tagging",), "DeleteObjectTagging", objects.delete_tags),
    Route("PUT", "object", (), "PutObject", objects.put_object),
    Route("GET", "object", (), "GetObject", objects.get_object),
    Route("HEAD", "object", (), "HeadObject", objects.get_object),
    Route("DELETE", "object", (), "DeleteObject", objects.delete_object),
]


_UNKNOWN = {"acl", "symlink", "restore", "versions", "x-oss-process", "callback", "group", "qosInfo"}


def find_route(request: Request) -> Route:
    """Return the call that a request is.

    Raises:
        OssError: 501, the call is not implemented here.
    """
    level = "object" if request.key else "bucket" if request.bucket else "service"
    for route in ROUTES:
        if (route.method, route.level) == (request.method, level) and all(
            m in request.params for m in route.marks
        ):
            if not route.marks and _UNKNOWN & set(request.params):
                break  # PUT ?acl must not end as a PUT of the object
            if route.name == "PutObject" and "x-oss-copy-source" in request.headers:
                return Route("PUT", "object", (), "CopyObject", objects.copy_object)
            return route
    raise OssError(501, "NotImplemented", f"{request.method} of {level} with {sorted(request.params)}")
