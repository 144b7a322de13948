"""A page of a listing, in the usual shape and in any other that OSS may choose."""

from itertools import pairwise
from pathlib import Path

import oss2
import pytest
from pydantic import SecretStr

from blocks import OssBucket
from tasks.storage.errors import AnswerUnreadable, explain
from tasks.storage.objects import ListedObject
from tasks.storage.retry import Patience, persistently
from tasks.storage.wire import open_bucket, parse_page
from tests.unit.changed_store import outlasting, store_for
from tests.unit.local_oss import running_oss

USUAL = (
    "<Contents><Key>a%2Fb%20c</Key><LastModified>2026-11-22T01:00:00.000Z</LastModified>"
    "<ETag>&quot;0A&quot;</ETag><Type>Normal</Type><Size>7</Size><StorageClass>Standard</StorageClass></Contents>"
)
WITH_OWNER = USUAL.replace("</Contents>", "<Owner><ID>1</ID><DisplayName>n</DisplayName></Owner></Contents>")
OTHER_ORDER = USUAL.replace("<Size>7</Size>", "").replace("<Key>", "<Size>7</Size><Key>")
SPACED = USUAL.replace("><", ">\n  <")
RAW_QUOTES = USUAL.replace("&quot;", '"')
FOUND = ListedObject("a/b c", 7, "0A", "2026-11-22T01:00:00.000Z")


def page(*contents: str, end: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    text = "".join(contents)
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\n<ListBucketResult>{end}{text}</ListBucketResult>".encode()
    )


@pytest.mark.parametrize("contents", [USUAL, WITH_OWNER, OTHER_ORDER, SPACED, RAW_QUOTES])
def test_a_line_is_read_whatever_its_shape(contents: str) -> None:
    assert parse_page(page(contents)) == ([FOUND], "")


@pytest.mark.parametrize("pair", list(pairwise([USUAL, WITH_OWNER, OTHER_ORDER, USUAL])))
def test_one_unusual_line_does_not_hide_the_others(pair: tuple[str, str]) -> None:
    assert parse_page(page(*pair)) == ([FOUND, FOUND], "")


def test_an_entity_in_a_key_is_no_part_of_it() -> None:
    plain = USUAL.replace("a%2Fb%20c", "a&amp;b")
    found = parse_page(page(USUAL, plain))
    assert [line.key for line in found[0]] == ["a/b c", "a&b"]


def test_keys_are_told_without_their_base_whatever_the_shape_of_a_line() -> None:
    for contents in (USUAL, OTHER_ORDER):
        assert parse_page(page(contents), "a/") == ([FOUND._replace(key="b c")], "")


def test_directories_and_the_next_page_are_read_beside_lines() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>a%2Fb</NextContinuationToken>"
    found = parse_page(page(USUAL, "<CommonPrefixes><Prefix>a%2Fz%2F</Prefix></CommonPrefixes>", end=more))
    assert found == ([FOUND, ListedObject("a/z/", is_prefix=True)], "a/b")


def test_an_empty_page_is_empty_and_half_a_page_is_an_error() -> None:
    assert parse_page(page()) == ([], "")
    with pytest.raises(AnswerUnreadable, match="damaged"):
        parse_page(page(USUAL, USUAL)[:-30])


@pytest.mark.parametrize("contents", [USUAL, OTHER_ORDER])
def test_a_listing_with_a_name_space_is_read_to_its_last_page(contents: str) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"
    spaced = page(contents, "<CommonPrefixes><Prefix>z%2F</Prefix></CommonPrefixes>", end=more).replace(
        b"<ListBucketResult>", b"<ListBucketResult xmlns='http://doc.oss-cn-hangzhou.aliyuncs.com'>"
    )
    assert parse_page(spaced) == ([FOUND, ListedObject("z/", is_prefix=True)], "n")


@pytest.mark.parametrize("document", [b"<html><body/></html>", b"", b"\xff\xfe", b"{}"])
def test_another_services_page_is_not_an_empty_bucket(document: bytes) -> None:
    with pytest.raises(AnswerUnreadable):
        parse_page(document)


def test_a_line_without_a_size_and_a_page_without_its_successor_are_errors() -> None:
    with pytest.raises(AnswerUnreadable, match="lacks"):
        parse_page(page(USUAL.replace("<Size>7</Size>", "<Size>many</Size>")))
    with pytest.raises(AnswerUnreadable, match="successor"):
        parse_page(page(USUAL, end="<IsTruncated>true</IsTruncated>"))


@pytest.mark.parametrize("answer", [b"<html><body/></html>", b"login, please"])
def test_what_the_sdk_cannot_read_ends_in_a_sentence(answer: bytes) -> None:
    def call(attempt: int) -> None:
        oss2.xml_utils.parse_list_multipart_uploads(
            oss2.models.ListMultipartUploadsResult(Response()), answer
        )

    with pytest.raises(AnswerUnreadable, match="is not OSS"):
        persistently(call, "oss://bucket", Patience())


class Response:
    """As much of an answer as the SDK's results ask for."""

    status, headers, request_id = 200, {}, "1"


def test_of_a_refusal_osss_own_sentence_is_told_and_no_key() -> None:
    details = {
        "Code": "AccessDenied",
        "Message": "Request has expired for LTAI5tKz0123456789ABCDEF\nby bucket policy.",
    }
    told = str(explain(403, details, "7", "oss://bucket"))
    assert "OSS says: Request has expired for (left out) by bucket policy." in told
    assert "LTAI5t" not in told


@pytest.mark.servers
def test_a_password_that_somebody_keeps_for_the_host_does_not_replace_our_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password mine\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    with running_oss(tmp_path / "oss") as server:
        assert store_for(server, patience=outlasting(1)).put_bytes("key", b"content").size == 7


def test_the_environment_is_asked_once_and_not_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/our-ca.pem")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    settings = OssBucket(
        endpoint="https://oss-cn-lab.example.com",
        region="cn-lab",
        bucket="a-bucket",
        access_key_id="id",
        access_key_secret=SecretStr("secret"),
    )
    session = open_bucket(settings, 1).session.session
    assert session.proxies["https"] == "http://proxy.example:3128"
    assert session.verify == "/etc/our-ca.pem"
    assert not session.trust_env
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert not open_bucket(settings, 1).session.session.proxies
