"""The manifest: written, read back, and refused when it is not what was written."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tasks.backup.format.manifest import (
    Artifact,
    Blobs,
    Database,
    Harbor,
    Links,
    Manifest,
    ManifestUnreadable,
    Source,
    Stage,
    decode,
    encode,
)

DUMP = Artifact(
    "pg/registry.dump.zst.age", "database", "registry", 10, "aa", 12, "bb", 2**63 + 5, "zstd", "age"
)
MANIFEST = Manifest(
    backup_id="20261122T010000Z-1a2b3c4d",
    site="main",
    started_at="2026-11-22T01:00:00+00:00",
    finished_at="2026-11-22T01:02:00+00:00",
    tool="harbor-ha 0.1.0",
    source=Source("node-b", "standby", 150004, "15.4", "7311111111111111111", 3, "0/3000060", "fresh"),
    harbor=Harbor("2.9.5", "harbor.example.com", "cc", ("trivy",)),
    databases=(Database("registry", "harbor", "UTF8", "C.UTF-8", "0-1-1", {"public.blob": 3}, 120),),
    artifacts=(DUMP,),
    blobs=Blobs(3, 300, 1, 100, True, missing_at_source=("sha256:x",), missing_at_source_count=1),
    links=Links(2, 9),
    stages=(Stage("dump", "2026-11-22T01:00:01+00:00", 12.5),),
    warnings=("one blob is missing at the source",),
)


def changed(path: list[str | int], value: Any) -> bytes:
    raw = json.loads(encode(MANIFEST))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(raw).encode()


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert decode(encode(MANIFEST)) == MANIFEST
    small = replace(MANIFEST, blobs=None, links=None, previous="x")
    assert decode(encode(small)) == small
    assert not small.has_images


def test_a_reader_ignores_what_a_later_writer_added() -> None:
    assert decode(changed(["source", "colour"], "blue")) == MANIFEST


def test_a_newer_schema_is_refused_with_the_remedy() -> None:
    with pytest.raises(ManifestUnreadable, match=r"schema version 9.*newer one"):
        decode(changed(["schema_version"], 9))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["artifacts", 0, "size"], "12", r"artifacts\[0\].size"),
        (["artifacts", 0, "encryption"], "rot13", r"artifacts\[0\].encryption"),
        (["databases", 0, "tables"], [], "tables"),
        (["blobs", "closure_ok"], 1, "closure_ok"),
        (["source"], None, "source"),
    ],
)
def test_a_damaged_field_is_named(path: list[str | int], value: Any, named: str) -> None:
    with pytest.raises(ManifestUnreadable, match=named):
        decode(changed(path, value))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", encode(MANIFEST)[:-40]])
def test_a_truncated_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestUnreadable):
        decode(content)


def test_a_missing_field_is_refused() -> None:
    raw = json.loads(encode(MANIFEST))
    del raw["databases"][0]["tables"]
    with pytest.raises(ManifestUnreadable, match="tables"):
        decode(json.dumps(raw).encode())


def test_asking_for_what_the_backup_does_not_hold_says_so() -> None:
    assert MANIFEST.artifact("database", "registry") == DUMP
    with pytest.raises(ManifestUnreadable, match="no links"):
        MANIFEST.artifact("links")
