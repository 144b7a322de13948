"""A page of a listing, in the usual shape and in any other that OSS may choose."""

from itertools import pairwise

import pytest

from tasks.storage.objects import ListedObject
from tasks.storage.wire import parse_page

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


def test_directories_and_the_next_page_are_read_beside_lines() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>a%2Fb</NextContinuationToken>"
    found = parse_page(page(USUAL, "<CommonPrefixes><Prefix>a%2Fz%2F</Prefix></CommonPrefixes>", end=more))
    assert found == ([FOUND, ListedObject("a/z/", is_prefix=True)], "a/b")


def test_an_empty_page_is_empty_and_half_a_page_is_an_error() -> None:
    assert parse_page(page()) == ([], "")
    with pytest.raises(SyntaxError):
        parse_page(page(USUAL, USUAL)[:-30])
