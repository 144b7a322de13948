"""The pair's configuration is the same on both nodes, and nobody but them and Harbor may log in."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from blocks import HarborSite, read_site_file
from tasks.errors import Refused
from tasks.hosts.connection import Host
from tasks.postgres.cluster import configure
from tasks.postgres.settings import (
    HBA_BEGIN,
    HBA_END,
    configuration,
    conninfo,
    host_based_authentication,
    merged_hba,
    passfile,
)
from tests.unit.site_on_disk import NOW, correct_site


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return read_site_file(correct_site(tmp_path).write(), now=NOW)


def lines(text: str) -> dict[str, str]:
    pairs = (line.partition(" = ") for line in text.splitlines() if " = " in line)
    return {name: value.strip("'") for name, _, value in pairs}


def test_the_two_nodes_differ_only_in_who_they_are_and_whom_they_follow(site: HarborSite) -> None:
    one, other = lines(configuration(site, "node-a")), lines(configuration(site, "node-b"))
    assert {name for name in one if one[name] != other[name]} == {
        "listen_addresses",
        "primary_conninfo",
        "primary_slot_name",
    }
    assert "host=10.20.0.12" in one["primary_conninfo"]
    assert "host=10.20.0.11" in other["primary_conninfo"]


def test_no_password_stands_in_the_configuration(site: HarborSite) -> None:
    text = configuration(site, "node-a") + conninfo(site, "node-a") + host_based_authentication(site)
    assert "secret" not in text


def test_wal_goes_to_the_bucket_only_after_it_is_whole_on_the_node(site: HarborSite) -> None:
    policy = site.backup.model_copy(update={"wal_archive": "oss"})
    shipping = lines(configuration(site.model_copy(update={"backup": policy}), "node-a"))
    local = lines(configuration(site, "node-a"))

    assert shipping["archive_command"].startswith(f"{local['archive_command']} && timeout ")
    assert "pgbackrest" in shipping["archive_command"]
    assert "pgbackrest" not in local["archive_command"]
    # A segment that is not full is never shipped without it.
    assert ("archive_timeout" in shipping, "archive_timeout" in local) == (True, False)


def test_the_pass_file_lets_a_node_in_at_its_peer_for_replication_and_rewind(site: HarborSite) -> None:
    assert passfile(site, "node-a").splitlines() == [
        "10.20.0.12:5432:*:replicator:Replication-secret.1",
        "10.20.0.12:5432:*:rewinder:Rewind-secret.1",
    ]


def test_replication_is_open_to_single_addresses_over_tls_only(site: HarborSite) -> None:
    entries = [line.split() for line in host_based_authentication(site).splitlines() if "replication" in line]
    assert [(entry[0], entry[3], entry[4]) for entry in entries] == [
        ("hostssl", "10.20.0.11/32", "scram-sha-256"),
        ("hostssl", "10.20.0.12/32", "scram-sha-256"),
    ]


def test_lines_of_the_operator_stay_and_a_second_merge_changes_nothing(site: HarborSite) -> None:
    block = host_based_authentication(site)
    existing = "# mine\nhost all backup 10.9.9.9/32 scram-sha-256\n"
    once = merged_hba(existing, block)
    assert once == block + existing
    assert merged_hba(once, block) == once


@pytest.mark.parametrize(
    "damaged",
    [
        lambda text: text.replace(f"{HBA_END}\n", ""),
        lambda text: text.replace(f"{HBA_END}\n", "# END harbor ha\n"),
        lambda text: text.replace(f"{HBA_BEGIN}\n", ""),
        lambda text: text + text,
    ],
)
def test_a_block_whose_end_cannot_be_told_is_refused_and_no_line_of_the_operators_is_lost(
    site: HarborSite, damaged: Callable[[str], str]
) -> None:
    block = host_based_authentication(site)
    with pytest.raises(Refused, match="which lines are ours"):
        merged_hba(damaged(block + "host all backup 10.9.9.9/32 md5\n"), block)


def test_blanks_and_line_ends_of_an_editor_do_not_hide_the_block(site: HarborSite) -> None:
    block = host_based_authentication(site)
    edited = block.replace(HBA_END, HBA_END + "  \r").replace(HBA_BEGIN, " " + HBA_BEGIN)
    assert merged_hba(edited + "host all backup 10.9.9.9/32 md5\n", block).count("harbor-ha:") == 1


def test_a_file_in_another_encoding_keeps_its_bytes_and_a_copy_of_what_was(site: HarborSite) -> None:
    host, existing = Written(), "# für das Büro\nhost all x 10.9.9.9/32 md5\n".encode("latin-1")
    host.files["/etc/postgresql/15/main/pg_hba.conf"] = existing
    configure(site, cast(Host, host))
    assert host.files["/etc/postgresql/15/main/pg_hba.conf"].endswith(existing)
    assert host.files["/etc/postgresql/15/main/pg_hba.conf.before-harbor-ha"] == existing
    configure(site, cast(Host, host))
    assert host.files["/etc/postgresql/15/main/pg_hba.conf.before-harbor-ha"] == existing


class Written:
    """A node's files."""

    name = "node-a"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def put(self, path: str, content: str | bytes, **_: object) -> bool:
        data = content.encode() if isinstance(content, str) else content
        did = self.files.get(path) != data
        self.files[path] = data
        return did


def test_an_old_block_is_replaced_by_the_new_one(site: HarborSite) -> None:
    once = merged_hba("local all all peer\n", host_based_authentication(site))
    other = host_based_authentication(site).replace("10.20.0.12", "10.20.0.99")
    again = merged_hba(once, other)
    assert again.count("BEGIN harbor-ha") == 1
    assert "10.20.0.12/32" not in again
    assert again.endswith("local all all peer\n")
