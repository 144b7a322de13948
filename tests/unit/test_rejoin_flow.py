"""The rejoin flow over scripted steps: what it does after the attempt before it, and what it says of losses."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

import flows.rejoin as flow
from flows.rules.rejoin import Rejoin
from tasks.clock import Moment
from tasks.errors import HarborHaError
from tasks.observation.look import SiteLook
from tasks.operation.record import Phase
from tasks.postgres.rejoin import CannotFollow, NotFollowing
from tests.unit.facts_builder import NOW, control, primary, stopped
from tests.unit.rejoin_steps import NO_HARBOR, Steps, work_at


def cannot(kind: Callable[..., Exception] = CannotFollow) -> Exception:
    return kind("It does not follow: requested WAL segment 7 has already been removed", where="node-a")


def test_wal_that_was_removed_leads_to_a_clone_and_not_to_the_same_error_for_ever() -> None:
    steps = Steps({"Start as a standby": [cannot()]})
    work = work_at(Phase.STARTED, steps)
    assert flow.follow(work, "node-a", "node-b", Rejoin.FOLLOW, NO_HARBOR) is Rejoin.CLONE
    order = [title for title in steps.done if title in ("Fence over SSH", "Clone from the primary")]
    assert order == ["Fence over SSH", "Clone from the primary"]
    assert steps.done[-1] == "Start as a standby"
    assert "List what only the old primary had" in steps.done


def test_a_copy_that_does_not_follow_is_not_copied_again() -> None:
    steps = Steps({"Start as a standby": [cannot()]})
    with pytest.raises(CannotFollow):
        flow.follow(work_at(Phase.SETTLING, steps), "node-a", "node-b", Rejoin.CLONE, NO_HARBOR)
    assert "Clone from the primary" not in steps.done


def test_a_node_that_does_not_start_for_another_reason_is_not_cloned() -> None:
    steps = Steps({"Start as a standby": [cannot(NotFollowing)]})
    with pytest.raises(NotFollowing):
        flow.follow(work_at(Phase.STARTED, steps), "node-a", "node-b", Rejoin.FOLLOW, NO_HARBOR)
    assert "Clone from the primary" not in steps.done


def phases(steps: Steps) -> list[str]:
    """The phases that were written."""
    return [title.rpartition(": ")[2] for title in steps.done if ": " in title]


def test_the_phase_says_cloning_until_the_copy_is_complete() -> None:
    steps = Steps()
    flow.return_of_the_data(work_at(Phase.STARTED, steps), "node-a", "node-b", Rejoin.CLONE, NO_HARBOR)
    assert phases(steps) == ["cloning", "settling"]


def test_a_clone_that_failed_leaves_the_phase_at_cloning_and_is_a_clone_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record `cloning` was overwritten by a rewind that the new slot had made to look right."""
    steps = Steps({"Clone from the primary": [RuntimeError("no room")]})
    work = work_at(Phase.STARTED, steps)
    with pytest.raises(RuntimeError):
        flow.return_of_the_data(work, "node-a", "node-b", Rejoin.CLONE, NO_HARBOR)
    assert phases(steps) == ["cloning"]
    assert work.held.phase is Phase.CLONING
    a = stopped(control=control(), checkpoint_end=None)
    work.seen = SiteLook(
        (a, primary("node-b", server_changes={"timeline": 3})), frozenset({a.name, "node-b"}), 0
    )
    monkeypatch.setattr(flow, "open_record", lambda seen: work.record)
    monkeypatch.setattr(flow.clock, "now", lambda: Moment(NOW.monotonic, NOW.wall))
    assert flow.classify(work, "node-a", "node-b").kind is Rejoin.CLONE


@pytest.mark.parametrize(
    ("way", "listed", "claims"),
    [
        (Rejoin.FOLLOW, False, True),
        (Rejoin.NOTHING, False, False),
        (Rejoin.START_ONLY, False, False),
        (Rejoin.CLONE, True, True),
    ],
)
def test_nothing_was_lost_is_said_only_where_it_was_shown(way: Rejoin, listed: bool, claims: bool) -> None:
    work = work_at(Phase.SETTLING, Steps())
    if listed:
        flow.list_losses(work, "node-a", "node-b")
    assert ("nothing was lost" in flow.headline(work, "node-a", "node-b", way)) is claims


def test_what_cannot_be_known_is_said_in_the_headline() -> None:
    work = work_at(Phase.CLONING, Steps(known=False))
    flow.list_losses(work, "node-a", "node-b")
    assert "cannot be known" in flow.headline(work, "node-a", "node-b", Rejoin.CLONE)


def test_after_a_copy_that_another_run_completed_only_the_kept_list_tells() -> None:
    steps = Steps()
    work = work_at(Phase.SETTLING, steps)
    way = flow.return_of_the_data(work, "node-a", "node-b", Rejoin.START_ONLY, NO_HARBOR)
    assert way is Rejoin.START_ONLY
    assert steps.done == ["List what only the old primary had"]


def test_losses_that_could_not_be_read_are_not_noted_as_told() -> None:
    """The node still has the list; a report that only knew of a broken connection would have been its last word."""
    title = "List what only the old primary had"
    steps = Steps({title: [HarborHaError("No answer within 30 s.", where="node-a")]})
    work = work_at(Phase.SETTLING, steps)
    flow.list_losses(work, "node-a", "node-b", kept_only=True)
    flow.note_told(work, "node-a")
    assert steps.done == [title]
    assert "run rejoin again" in work.sections["Lost commits"][1]
    flow.list_losses(work, "node-a", "node-b", kept_only=True)
    flow.note_told(work, "node-a")
    assert steps.done[1:] == [title, "Note that the losses are told"]


def test_a_rejoin_that_ends_after_it_has_stopped_the_server_says_so() -> None:
    # A standby that did not answer was stopped, the primary lost its power meanwhile: "Nothing was changed."
    steps = Steps()
    steps.dry_run = False  # type: ignore[attr-defined]
    work = work_at(Phase.STARTED, steps)
    flow.stop(work, "node-a")
    assert work.abort() == [
        "PostgreSQL on node-a was stopped and is kept from starting, until a rejoin has ended"
    ]
    assert steps.done[-1] == "Close the operation: aborted"


def test_what_was_lost_is_told_before_the_rejoin_is_recorded_as_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Killed between the record's end and the report, it was never told: the next rejoin found nothing to do.
    steps = Steps()
    steps.site = SimpleNamespace(node=lambda name: SimpleNamespace(runs_harbor=True, address="10.0.0.2"))
    work = work_at(Phase.SETTLING, steps)
    monkeypatch.setattr(flow.Protocol, "begin", lambda *_: steps)
    monkeypatch.setattr(flow.Operation, "begin", lambda run: work)
    monkeypatch.setattr(flow, "find_primary", lambda *_: "node-b")
    monkeypatch.setattr(flow, "classify", lambda *_: SimpleNamespace(kind=Rejoin.NOTHING))
    monkeypatch.setattr(flow, "begin", lambda *_: False)
    monkeypatch.setattr(flow, "serve_again", lambda *_: steps.done.append("Harbor serves again"))
    monkeypatch.setattr(flow, "publish", lambda *_: steps.done.append("the report") or {"report": ""})
    flow.rejoin.fn("demo", "node-a")
    told = "Note that the losses are told"
    assert steps.done[-3:] == ["the report", told, "Close the operation: done"]
    harbor = "Bring Harbor back"
    order = [f"{harbor} begins", "Start as a standby", f"{harbor} is waited for", "Harbor serves again"]
    assert [title for title in steps.done if title in order] == order
