"""The lab's OSS server, the S3 way: nothing passes that was not signed as it came."""

import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from lab.oss.server import OssServer
from tests.unit.local_oss import (
    ACCESS_KEY_ID,
    ACCESS_KEY_SECRET,
    BUCKET,
    REGION,
    running_oss,
    sdk_bucket,
)

HOST = f"{BUCKET}.s3.lab.test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


def signed(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    secret: str = ACCESS_KEY_SECRET,
    region: str = REGION,
    at: datetime | None = None,
    host: str = HOST,
) -> dict[str, str]:
    """The headers of a request without a query, signed as Amazon describes it."""
    stamp = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    payload = hashlib.sha256(body).hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    headers = f"host:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n"
    canonical = f"{method}\n{path}\n\n{headers}\n{names}\n{payload}"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for word in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {
        "Host": host,
        "x-amz-content-sha256": payload,
        "x-amz-date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 {credential}",
    }


def put(server: OssServer, headers: dict[str, str], body: bytes = b"content") -> requests.Response:
    """Put an object."""
    return requests.put(f"{server.endpoint}/dir/key", headers=headers, data=body, timeout=5)


def test_what_was_put_the_s3_way_is_the_same_object_in_oss_own_protocol(server: OssServer) -> None:
    assert put(server, signed("PUT", "/dir/key", b"content")).status_code == 200
    assert sdk_bucket(server).get_object("dir/key").read() == b"content"


def test_a_body_that_is_not_the_signed_one_is_refused_and_not_kept(server: OssServer) -> None:
    answer = put(server, signed("PUT", "/dir/key", b"content"), b"cOntent")
    assert answer.status_code == 400
    assert "XAmzContentSHA256Mismatch" in answer.text
    assert server.store.catalog.get("dir/key") is None
    assert not [file for file in (server.store.disk.root).rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (signed("PUT", "/dir/key", b"content", secret="wrong"), "SignatureDoesNotMatch"),
        (signed("PUT", "/dir/other", b"content"), "SignatureDoesNotMatch"),
        (signed("GET", "/dir/key", b"content"), "SignatureDoesNotMatch"),
        (signed("PUT", "/dir/key", b"content", region="cn-x"), "InvalidArgument"),
        (signed("PUT", "/dir/key", b"content") | {"x-amz-acl": "public-read"}, "AccessDenied"),
        (
            signed("PUT", "/dir/key", b"content") | {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
            "InvalidArgument",
        ),
        (signed("PUT", "/dir/key", b"content", host=f"other.{HOST}"), "NoSuchBucket"),
    ],
    ids=["secret", "path", "method", "region", "unsigned header", "unsigned body", "bucket"],
)
def test_whatever_was_not_signed_so_is_refused(server: OssServer, headers: dict[str, str], code: str) -> None:
    answer = put(server, headers)
    assert code in answer.text
    assert answer.status_code >= 400
    assert server.store.catalog.get("dir/key") is None


def test_a_clock_that_is_an_hour_off_is_refused(server: OssServer) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert "RequestTimeTooSkewed" in put(server, signed("PUT", "/dir/key", b"content", at=hour_ago)).text
