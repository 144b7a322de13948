"""The lab's OSS server, as oss2 itself sees it: whatever the SDK insists on must be right."""

import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import fastcrc
import oss2
import pytest
import requests

from lab.oss import crc64
from lab.oss.server import OssServer
from lab.oss.signature import Credentials, Signed, verify
from tests.unit.local_oss import ACCESS_KEY_ID, BUCKET, running_oss, sdk_bucket

AWKWARD_KEY = "dir/ünïcode name+%25&?=#.txt"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with running_oss(tmp_path / "oss") as running:
        yield running


@pytest.mark.parametrize("version", [1, 4])
def test_both_signatures_work_for_every_kind_of_key_in_headers_and_in_urls(
    server: OssServer, version: int
) -> None:
    bucket = sdk_bucket(server, version=version)
    bucket.put_object(AWKWARD_KEY, b"content", headers={"x-oss-meta-origin": "node-a"})

    assert bucket.get_object(AWKWARD_KEY, byte_range=(3, 5)).read() == b"ten"
    assert bucket.head_object(AWKWARD_KEY).headers["x-oss-meta-origin"] == "node-a"
    signed_url = bucket.sign_url("GET", AWKWARD_KEY, 60)
    assert requests.get(signed_url, timeout=5).content == b"content"
    tampered = signed_url.replace("unicode", "x").replace("name", "nome")
    assert requests.get(tampered, timeout=5).status_code == 403


@pytest.mark.parametrize("version", [1, 4])
def test_a_wrong_secret_is_refused_and_nothing_is_stored(server: OssServer, version: int) -> None:
    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch) as refusal:
        sdk_bucket(server, version=version, secret="wrong").put_object("key", b"x" * 2_000_000)

    assert refusal.value.request_id
    assert refusal.value.ec.startswith("0002-")
    assert server.store.catalog.get("key") is None


def test_a_wrong_region_and_a_missing_signature_are_refused(server: OssServer) -> None:
    with pytest.raises(oss2.exceptions.ServerError) as refusal:
        sdk_bucket(server, region="cn-hangzhou").get_bucket_info()
    assert (refusal.value.code, refusal.value.ec) == ("InvalidArgument", "0002-00000226")

    assert requests.get(f"{server.endpoint}/{BUCKET}/key", timeout=5).status_code == 403


def test_a_clock_that_is_an_hour_off_is_refused(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    headers: dict[str, str] = {}
    request = oss2.http.Request(
        "GET", f"{server.endpoint}/{BUCKET}/", headers=headers, region="cn-lab", product="oss"
    )
    bucket.auth._sign_request(request, BUCKET, "")
    lower = {name.lower(): value for name, value in request.headers.items() if value}
    signed = Signed("GET", BUCKET, "", {}, lower)
    credentials = Credentials(ACCESS_KEY_ID, "test-key-secret", "cn-lab")

    verify(signed, credentials, now=time.time())
    with pytest.raises(Exception, match="RequestTimeTooSkewed"):
        verify(signed, credentials, now=time.time() + 3600)


def test_the_crc_of_every_answer_is_right_and_that_of_a_multipart_object_is_combined(
    server: OssServer,
) -> None:
    bucket = sdk_bucket(server)
    parts = [os.urandom(150_000), os.urandom(150_000), os.urandom(17)]
    upload = bucket.init_multipart_upload("object").upload_id
    infos = []
    for number, content in enumerate(parts, 1):
        answer = bucket.upload_part("object", upload, number, content)
        assert answer.crc == fastcrc.crc64.xz(content)
        infos.append(oss2.models.PartInfo(number, answer.etag))
    answer = bucket.complete_multipart_upload("object", upload, infos)

    assert answer.crc == fastcrc.crc64.xz(b"".join(parts))
    assert bucket.get_object("object").read() == b"".join(parts)
    assert list(oss2.MultipartUploadIterator(bucket)) == []


def test_the_crc_without_liblzma_is_the_same() -> None:
    content = os.urandom(4096)
    assert crc64._by_table()(content, 0) == fastcrc.crc64.xz(content) == crc64.crc64(content, 0)


def test_small_parts_wrong_etags_and_unknown_uploads_are_refused_as_oss_does(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    upload = bucket.init_multipart_upload("object").upload_id
    infos = [oss2.models.PartInfo(n, bucket.upload_part("object", upload, n, b"small").etag) for n in (1, 2)]

    for wanted, wrong in [
        ("EntityTooSmall", infos),
        ("InvalidPart", [oss2.models.PartInfo(1, "0" * 32)]),
    ]:
        with pytest.raises(oss2.exceptions.ServerError) as refusal:
            bucket.complete_multipart_upload("object", upload, wrong)
        assert refusal.value.code == wanted
    bucket.abort_multipart_upload("object", upload)
    with pytest.raises(oss2.exceptions.NoSuchUpload):
        bucket.upload_part("object", upload, 1, b"late")
    assert list(server.store.catalog.files()) == []


def test_listings_page_through_thousands_of_keys_with_and_without_a_delimiter(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    source = server.store
    bucket.put_object("seed", b"x")
    entry = source.find("seed")
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    keys = sorted(f"blobs/{number % 16:x}/{number:05}" for number in range(2500))
    for key in keys:
        source.catalog.put(type(entry)(**(fields | {"key": key})))

    assert [found.key for found in oss2.ObjectIterator(bucket, prefix="blobs/", max_keys=1000)] == keys
    assert [found.key for found in oss2.ObjectIteratorV2(bucket, prefix="blobs/", max_keys=999)] == keys
    for page_size in (1, 3, 1000):
        found = list(oss2.ObjectIteratorV2(bucket, prefix="blobs/", delimiter="/", max_keys=page_size))
        assert [item.key for item in found] == [f"blobs/{digit:x}/" for digit in range(16)]
        assert all(item.is_prefix() for item in found)
    mixed = [item.key for item in oss2.ObjectIterator(bucket, delimiter="/", max_keys=1)]
    assert mixed == ["blobs/", "seed"]


def test_batch_delete_names_what_it_deleted_and_missing_keys_are_no_error(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    bucket.put_object(AWKWARD_KEY, b"x")
    deleted = bucket.batch_delete_objects([AWKWARD_KEY, "missing"]).deleted_keys
    assert sorted(deleted) == sorted([AWKWARD_KEY, "missing"])
    assert not bucket.object_exists(AWKWARD_KEY)


def test_a_second_creation_with_forbid_overwrite_is_refused(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    header = {"x-oss-forbid-overwrite": "true"}
    bucket.put_object("marker", b"first", headers=header)
    with pytest.raises(oss2.exceptions.ServerError) as refusal:
        bucket.put_object("marker", b"second", headers=header)
    assert (refusal.value.status, refusal.value.code) == (409, "FileAlreadyExists")
    assert bucket.get_object("marker").read() == b"first"


def test_under_a_retention_policy_nothing_is_replaced_or_removed(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    bucket.put_object("kept", b"first")
    worm_id = bucket.init_bucket_worm(1).worm_id
    bucket.complete_bucket_worm(worm_id)

    assert bucket.get_bucket_worm().state == "Locked"
    for attempt in (lambda: bucket.delete_object("kept"), lambda: bucket.put_object("kept", b"second")):
        with pytest.raises(oss2.exceptions.ServerError) as refusal:
            attempt()
        assert refusal.value.code == "FileImmutable"
    assert bucket.batch_delete_objects(["kept", "never-there"]).deleted_keys == ["never-there"]
    assert bucket.get_object("kept").read() == b"first"


def test_copy_append_tags_and_settings_are_understood(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    bucket.put_object("a", b"content", headers={"x-oss-tagging": "kind=dump"})
    bucket.copy_object(BUCKET, "a", "b")
    assert bucket.get_object("b").read() == b"content"
    assert bucket.get_object_tagging("b").tag_set.tagging_rule == {"kind": "dump"}
    bucket.append_object("log", 0, b"one")
    with pytest.raises(oss2.exceptions.PositionNotEqualToLength):
        bucket.append_object("log", 0, b"again")
    with pytest.raises(oss2.exceptions.NoSuchLifecycle):
        bucket.get_bucket_lifecycle()
    rule = oss2.models.LifecycleRule(
        "uploads", "", abort_multipart_upload=oss2.models.AbortMultipartUpload(days=3)
    )
    bucket.put_bucket_lifecycle(oss2.models.BucketLifecycle([rule]))
    assert bucket.get_bucket_lifecycle().rules[0].abort_multipart_upload.days == 3
    info = bucket.get_bucket_info()
    assert (info.name, info.versioning_status, info.location) == (BUCKET, None, "oss-cn-lab")
    assert bucket.get_bucket_stat().object_count == 3


def test_a_restart_finds_everything_again_and_sweeps_what_a_crash_left(tmp_path: Path) -> None:
    with running_oss(tmp_path) as server:
        sdk_bucket(server).put_object("key", b"kept")
        lost = server.store.disk.write([b"half an upload"])
    with running_oss(tmp_path) as server:
        assert sdk_bucket(server).get_object("key").read() == b"kept"
        assert not (tmp_path / "segments" / lost.file[:2] / lost.file).exists()


def test_a_body_without_a_length_is_accepted_in_chunks(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    bucket.put_object("chunked", iter([b"one", b"two", b"three"]))
    assert bucket.get_object("chunked").read() == b"onetwothree"


def test_one_connection_serves_many_requests(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    bucket.put_object("key", b"x")
    address = urlsplit(bucket.sign_url("GET", "key", 60))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    for path in (
        f"{address.path}?{address.query}",
        "/harbor-test/refused",
        f"{address.path}?{address.query}",
    ):
        connection.request("GET", path)
        before = connection.sock
        connection.getresponse().read()
        assert connection.sock is before is not None
    connection.close()


def test_faults_are_set_counted_and_cleared_through_the_admin_calls(server: OssServer) -> None:
    rule = {"kind": "error", "operation": "PutObject", "code": "QpsLimitExceeded", "delay_ms": 250, "skip": 1}
    assert requests.post(f"{server.endpoint}/_faults", data=json.dumps(rule), timeout=5).status_code == 200
    bucket = sdk_bucket(server)

    bucket.put_object("first", b"x")
    with pytest.raises(oss2.exceptions.ServerError) as refusal:
        bucket.put_object("second", b"x")
    assert refusal.value.status == 503
    assert refusal.value.headers["x-oss-qos-delay-time"] == "250"
    bucket.put_object("third", b"x")
    assert requests.get(f"{server.endpoint}/_faults", timeout=5).json()[0]["hits"] == 1
    assert requests.get(f"{server.endpoint}/_requests", timeout=5).json() == {
        "PutObject": {"200": 2, "503": 1}
    }
    requests.delete(f"{server.endpoint}/_faults", timeout=5)
    assert requests.get(f"{server.endpoint}/_faults", timeout=5).json() == []
    bad = requests.post(f"{server.endpoint}/_faults", data=b'{"kind": "explode"}', timeout=5)
    assert bad.status_code == 400
    assert "explode" in bad.json()["error"]


def test_the_admin_calls_are_refused_from_elsewhere(tmp_path: Path) -> None:
    with OssServer(tmp_path, BUCKET, "id", "secret", admin_from=["192.0.2.0/24"]) as server:
        assert requests.get(f"{server.endpoint}/_faults", timeout=5).status_code == 403


def test_damage_at_rest_leaves_the_checksum_as_it_was(server: OssServer) -> None:
    bucket = sdk_bucket(server)
    stored = bucket.put_object("key", b"content")
    requests.post(f"{server.endpoint}/_damage", data=json.dumps({"key": "key", "offset": 2}), timeout=5)
    answer = bucket.get_object("key")
    content = answer.read()
    assert content != b"content"
    assert len(content) == 7
    assert answer.server_crc == stored.crc != fastcrc.crc64.xz(content)
