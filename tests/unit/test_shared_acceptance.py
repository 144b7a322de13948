"""An acceptance that was written while the NAS was away: a node that was off then must find it there all the same."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.guard.on_node import guard_watch
from tasks.guard.on_node.guard_look import local
from tasks.guard.on_node.guard_share import must_share
from tests.unit.guarded_server import accept, guard_of, p  # noqa: F401 - a fixture

# Something is mounted there on each Linux; what is written to a mount point without its NAS nobody else sees.
MOUNTED = Path("/dev/shm")
OWN = {"primary": "node-a", "timeline": 3, "term": 7, "system_identifier": "7301"}


@pytest.mark.parametrize(
    ("own", "shared", "must"),
    [
        (OWN, None, True),
        (OWN, {**OWN, "timeline": 2, "primary": "node-b"}, True),
        (OWN, {**OWN, "term": 6, "primary": "node-b"}, True),
        (OWN, OWN, False),
        # Of a bootstrap that was run again, which has no term.
        ({**OWN, "timeline": 2}, {**OWN, "term": 0, "primary": "node-b"}, False),
        (OWN, {**OWN, "timeline": 4, "primary": "node-b"}, False),
        (OWN, {**OWN, "timeline": 1, "term": 8, "primary": "node-b", "system_identifier": "9155"}, False),
        ({**OWN, "primary": "node-b"}, None, True),
        (None, None, False),
    ],
)
def test_whoever_knows_tells_the_nas_and_never_over_a_newer_record_or_another_databases(
    own: dict[str, Any] | None, shared: dict[str, Any] | None, must: bool
) -> None:
    assert must_share(own, shared) is must


@pytest.fixture
def nas(p: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """A NAS that is mounted, without a record on it."""
    site = f"test-{os.getpid()}"
    record = MOUNTED / ".harbor-ha" / site / "accepted.json"
    p |= {"nas_path": str(MOUNTED), "site": site, "nas_accepted": str(record)}
    monkeypatch.setattr(guard_watch, "SHARE_S", 0.0)
    yield record
    shutil.rmtree(record.parent, ignore_errors=True)


def passes_until(guard: guard_watch.Guard, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        guard.one_pass()
        time.sleep(0.1)


@pytest.mark.servers
@pytest.mark.skipif(not os.path.ismount(MOUNTED), reason="nothing is mounted there")
def test_the_nas_that_was_away_is_told_of_the_accepted_primary_and_a_newer_one_is_left_alone(
    p: dict[str, Any],  # noqa: F811
    nas: Path,
    tmp_path: Path,
) -> None:
    accept(p, tmp_path / "state" / "accepted.json", "node-a", timeline=3)
    guard = guard_of(p, tmp_path)
    passes_until(guard, nas.exists)
    assert json.loads(nas.read_text())["timeline"] == 3
    accept(p, nas, "node-b", timeline=2)
    passes_until(guard, lambda: json.loads(nas.read_text())["primary"] == "node-a")
    accept(p, nas, "node-b", timeline=4)
    asked_at = time.monotonic()
    passes_until(guard, lambda: guard.sharing.asked_at > asked_at)
    assert guard.sharing.answer is False
    assert json.loads(nas.read_text())["primary"] == "node-b"


@pytest.mark.servers
@pytest.mark.skipif(not os.path.ismount(MOUNTED), reason="nothing is mounted there")
@pytest.mark.parametrize("newer", [False, True])
def test_the_guard_of_a_promoted_node_accepts_it_here_and_on_the_nas_unless_that_knows_a_later_one(
    p: dict[str, Any],  # noqa: F811
    nas: Path,
    tmp_path: Path,
    newer: bool,
) -> None:
    here = local(p)
    assert here is not None
    state = tmp_path / "state"
    state.mkdir()
    note = {"operation": "op-5", "term": 5, "from_timeline": 0, "system_identifier": here.sysid}
    (state / "promotion.json").write_text(json.dumps(note))
    if newer:
        accept(p, nas, "node-a", timeline=2)
    guard = guard_of(p, tmp_path)
    passes_until(guard, (state / "accepted.json").exists)
    own = json.loads((state / "accepted.json").read_text())
    assert own == {"primary": "node-a", "timeline": 1, "term": 5, "system_identifier": here.sysid}
    passes_until(guard, nas.exists)
    assert json.loads(nas.read_text())["timeline"] == (2 if newer else 1)
