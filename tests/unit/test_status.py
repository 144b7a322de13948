"""The status of a site as an operator reads it at night, without Prefect."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import HarborSite
from blocks.site_file import read_site_file
from blocks.store import forget, write_copy
from deployments import cli, exits, status
from tasks import clock
from tasks.backup.format.catalogue import Entry
from tasks.backup.format.layout import parse_backup_id
from tasks.errors import HarborHaError
from tasks.observation.look import SiteLook
from tasks.observation.witnesses import Answers
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import (
    deaf_standby,
    guard,
    harbor,
    node,
    primary,
    sender,
    standby,
    stopped,
    unreached,
)
from tests.unit.site_on_disk import NOW, correct_site

A = primary(harbor=harbor(), guard=guard(), server_changes={"senders": (sender(lag_bytes=2_500_000),)})
B = standby(harbor=harbor(), guard=guard())
BOTH = {"node-a", "node-b"}


def test_a_sound_pair_is_shown_with_who_follows_whom_and_how_far_behind() -> None:
    rows = status.topology((A, B), BOTH, {"node-a": True, "node-b": False})
    assert rows == [
        ("node-a", "primary", "running", "2", "", "healthy", "served", "runs"),
        ("node-b", "standby", "streaming, async", "2", "2.5 MB", "healthy", "not served", "runs"),
    ]
    lines = status.table(status.HEAD, rows)
    assert len({line.index("healthy") for line in lines[1:]}) == 1
    assert lines[0].split() == list(status.HEAD)


@pytest.mark.parametrize(
    ("facts", "role", "state", "lag"),
    [
        (unreached("node-b"), "unknown", "not reached", ""),
        (stopped("node-b"), "unknown", "stopped", ""),
        (deaf_standby(), "standby", "hears nothing", "unknown"),
        (node("node-b"), "unknown", "", ""),
    ],
)
def test_what_is_not_known_is_shown_as_not_known(facts: NodeFacts, role: str, state: str, lag: str) -> None:
    row = status.topology((replace(A, server=None), facts), BOTH, None)[1]
    assert (row[1], row[2], row[4], row[6]) == (role, state, lag, "unknown")


def test_a_node_without_a_database_is_no_lost_one() -> None:
    row = status.topology((A, B, node("node-c", harbor=harbor())), BOTH, {"node-c": True})[2]
    assert row == ("node-c", "no database", "", "", "", "healthy", "served", "")


def entry(day: int, *, complete: bool) -> Entry:
    backup = parse_backup_id(f"202611{day:02d}T020000Z-0a1b2c3d")
    return Entry(backup, complete, False, (), 3_000_000, ())


def test_the_last_backup_is_the_newest_complete_one() -> None:
    entries = [entry(20, complete=True), entry(21, complete=True), entry(22, complete=False)]
    told = status.describe_last(entries, entries[1].backup.started + timedelta(hours=26))
    assert "20261121T020000Z" in told
    assert "1 day, 2:00:00 ago" in told
    assert "1 begun after it are not complete" in told
    assert status.describe_last(entries[2:], datetime.now(UTC)) == "last backup: none is complete"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarborSite:
    """A saved site of which this machine has the copy; Prefect is away."""
    monkeypatch.setenv("HARBOR_HA_HOME", str(tmp_path / "home"))
    forget()
    made = read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)
    write_copy(made)
    return made


@pytest.mark.parametrize(
    ("second", "verdict", "exit_status"),
    [(B, "HEALTHY", exits.DONE), (unreached("node-b"), "DEGRADED", exits.DEGRADED)],
)
def test_without_prefect_the_command_shows_nodes_verdict_and_what_to_do(
    second: NodeFacts,
    verdict: str,
    exit_status: int,
    site: HarborSite,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = clock.now()
    first = replace(A, server=replace(A.server, senders=(sender(),)) if A.server else None)
    facts = tuple(
        replace(one, observed_at=now, guard=one.guard and guard(version=status.guard_version()))
        for one in (first, second)
    )
    right = replace(harbor(), configured_database="10.20.0.11", running_database="10.20.0.11")
    facts = tuple(replace(one, harbor=right if one.reachable else None) for one in facts)
    monkeypatch.setattr(status, "look", lambda site, budget: SiteLook(facts, frozenset(BOTH), 0.1))
    monkeypatch.setattr(status, "ask_witnesses", lambda site, names: Answers(now))

    def no_bucket(site: HarborSite) -> None:
        raise HarborHaError("OSS does not answer.")

    monkeypatch.setattr(status, "store_of", no_bucket)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert cli.main(["status"]) == exit_status
        assert cli.main(["backups", "example"]) == exits.FAILED
    told = capsys.readouterr()
    assert f"example is {verdict}" in told.out
    assert "node-a  primary" in told.out
    assert "the bucket cannot be asked: OSS does not answer." in told.out
    assert ("do now: " in told.out) is (verdict != "HEALTHY")
    assert "OSS does not answer." in told.err


def test_a_site_that_nobody_saved_is_refused(site: HarborSite, capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert cli.main(["status", "nain"]) == exits.REFUSED
    assert "nain" in capsys.readouterr().err
