"""What the bucket is like, and whether it can be used: the questions to ask before a first backup."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.storage.errors import (
    AccessDenied,
    EndpointUnreachable,
    ObjectMissing,
    ServiceFailed,
    StorageError,
    Throttled,
)
from tasks.storage.store import ObjectStore


@dataclass(frozen=True)
class BucketFacts:
    """The bucket as OSS describes it; None where the AccessKey may not ask.

    Attributes:
        versioning: `Enabled`, `Suspended`, or empty when it was never on.
        worm: state of the retention policy, empty when there is none.
        worm_days: retention in days, 0 without a policy.
        aborts_uploads: whether a lifecycle rule removes unfinished uploads.
        encryption: the bucket's own default encryption, empty when none.
    """

    name: str
    location: str | None
    storage_class: str | None
    redundancy: str | None
    versioning: str | None
    encryption: str | None
    worm: str | None
    worm_days: int
    aborts_uploads: bool | None


def bucket_facts(store: ObjectStore) -> BucketFacts:
    """Ask OSS about the bucket; a RAM user that may only use objects gets few answers, but no error."""
    info = _ask(store, lambda bucket: bucket.get_bucket_info())
    worm, worm_known = _ask_optional(store, lambda bucket: bucket.get_bucket_worm())
    lifecycle, lifecycle_known = _ask_optional(store, lambda bucket: bucket.get_bucket_lifecycle())
    rules = lifecycle.rules if lifecycle else []
    rule = info.bucket_encryption_rule if info else None
    return BucketFacts(
        name=store.bucket.bucket_name,
        location=info.location if info else None,
        storage_class=info.storage_class if info else None,
        redundancy=info.data_redundancy_type if info else None,
        versioning=(info.versioning_status or "") if info else None,
        encryption=((rule.sse_algorithm if rule else None) or "") if info else None,
        worm=(worm.state if worm else "") if worm_known else None,
        worm_days=int(worm.retention_period_days) if worm else 0,
        aborts_uploads=any(r.abort_multipart_upload for r in rules) if lifecycle_known else None,
    )


def _ask(store: ObjectStore, question: Callable[[Any], Any]) -> Any:
    try:
        return store.call(lambda bucket, _: question(bucket))
    except AccessDenied:
        return None


def _ask_optional(store: ObjectStore, question: Callable[[Any], Any]) -> tuple[Any, bool]:
    """Return the answer and whether we know; no such setting is an answer."""
    try:
        return store.call(lambda bucket, _: question(bucket)), True
    except AccessDenied:
        return None, False
    except StorageError as error:
        if isinstance(error, ObjectMissing) or error.code.startswith("NoSuch"):
            return None, True
        raise


def preflight(store: ObjectStore) -> list[str]:
    """Write, read, list and delete a small object, and return every problem as a sentence; empty is good.

    An OSS that does not answer is no problem of the bucket's, and raised: it may answer later.

    Under a retention policy the object cannot be deleted; that is said by `advice`, it is no problem.
    """
    key = f"meta/preflight/{secrets.token_hex(8)}"
    content = os.urandom(4096)
    try:
        facts = bucket_facts(store)
        store.put_bytes(key, content)
        if store.get_bytes(key) != content:
            return [f"{store.where(key)}: what was read is not what was written."]
        if [found.key for found in store.list(key)] != [key]:
            return [f"{store.where(key)}: an object that was just written is not listed."]
    except (EndpointUnreachable, ServiceFailed, Throttled):
        raise
    except StorageError as error:
        return [str(error)]
    if facts.worm:
        return []
    try:
        store.delete_many([key])
    except StorageError as error:
        return [f"{error} Retention (prune) needs oss:DeleteObject."]
    return []


def advice(facts: BucketFacts) -> list[str]:
    """Return what the operator should know about the bucket; nothing of it stops a backup."""
    notes = []
    if facts.aborts_uploads is False:
        notes.append("No lifecycle rule removes unfinished uploads; add AbortMultipartUpload after 3 days.")
    if facts.versioning in ("", "Suspended") and facts.worm == "":
        # Not for the check of each minute: it is no state of the site, and a finding that never goes away hides others.
        notes.append(
            "Whoever has the AccessKey, or an administrator by mistake, can remove every backup for good: turn on "
            "versioning with a lifecycle rule for old versions, or a retention policy (WORM) of some days."
        )
    if facts.versioning == "Enabled":
        notes.append(
            "The bucket is versioned: removed backups keep costing until a lifecycle rule expires old "
            "versions, markers are not protected by forbid-overwrite, and wal-g refuses such a bucket."
        )
    if facts.worm:
        notes.append(
            f"A retention policy of {facts.worm_days} days is {facts.worm}: backups cannot be pruned before."
        )
    if facts.storage_class in ("Archive", "ColdArchive", "DeepColdArchive"):
        notes.append(f"The bucket's class is {facts.storage_class}: a restore waits hours for every object.")
    return notes
