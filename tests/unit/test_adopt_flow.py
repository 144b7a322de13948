"""The order of an adoption, and when the old Harbor is put back: never once the pair may have its rows."""

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import flows.adopt as flow
from blocks import HarborSite
from flows import bootstrap
from flows.machinery.protocol import Protocol, StepRecord
from flows.rules.preflight import Plan
from tasks.errors import HarborHaError, Refused, RemoteCommandFailed, RemoteTimeout
from tasks.harbor.adoption import NotAtThisPoint
from tasks.harbor.external_database import ExternalSeen
from tasks.hosts.observation import SiteSeen
from tasks.operation.store import LockLost
from tasks.outcome import Outcome
from tests.unit.harbor_site import make_site
from tests.unit.test_preflight_rule import node
from tests.unit.test_rules_take_over import FOUND, OLD

PLAN = Plan("node-b", ("node-a",), ("node-b", "node-a"), first_time=True)
COPY = "Copy the images while the old Harbor serves"
AGAIN = "Copy the images that came since"
READ_ONLY = "Make the old Harbor read-only"
STOP = "Stop what writes in the old Harbor"
ROWS = "Take over the bundled database"
EMPTY = "See that the pair is empty"
ALLOW = "End read-only mode in the pair"
BACK = "Put the old Harbor back"
NOTE = "Note how far the adoption is"


class Steps:
    """Steps by their titles; a script says at which call one fails."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.nodes: dict[str, tuple[str, ...]] = {}
        self.phases: list[str] = []
        self.fails: dict[str, list[Exception | None]] = {}
        self.site = SimpleNamespace(node=lambda _: SimpleNamespace(address="10.20.0.12"))

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        self.done.append(step.name)
        self.nodes[step.name] = nodes
        self.phases += [plain["phase"]] if "phase" in plain else []
        script = self.fails.get(step.name)
        error = script.pop(0) if script else None
        if error is not None:
            raise error
        return Outcome(True, "")

    def on_each(self, step: Any, nodes: list[str], **plain: Any) -> dict[str, Outcome]:
        return {node: self.on(step, node, **plain) for node in nodes}

    def going_back(self) -> Any:
        return contextlib.nullcontext()

    def as_run(self) -> Protocol:
        return cast(Protocol, self)


class Run(Steps):
    """A run whose looks are taken and whose report is kept."""

    def watch(self, _: str, look: Any, describe: Any, *nodes: str) -> Any:
        seen = look()
        assert describe(seen)
        return seen


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(flow, "publish", lambda _, headline, sections: said.append(f"{headline} {sections}"))
    return said


def run_of(site: HarborSite) -> Protocol:
    run = Run()
    run.site = cast(Any, site)
    return run.as_run()


def test_without_a_harbor_elsewhere_bootstrap_is_named(tmp_path: Path, published: list[str]) -> None:
    site = make_site(tmp_path, install_dir="/usr/local/harbor")
    seen = SiteSeen((node("node-a", harbor=FOUND), node("node-b")))
    with pytest.raises(Refused, match="run `bootstrap`"):
        flow.look_into(run_of(site), seen)
    assert "Refused, nothing was changed" in published[0]


def test_two_old_harbors_are_refused(tmp_path: Path, published: list[str]) -> None:
    seen = SiteSeen((node("node-a", harbor=FOUND), node("node-b", harbor=FOUND)))
    with pytest.raises(Refused, match="node-a and node-b each have a Harbor"):
        flow.look_into(run_of(make_site(tmp_path)), seen)


def test_every_reason_is_told_at_once_those_against_the_site_too(
    tmp_path: Path, published: list[str]
) -> None:
    site = make_site(tmp_path, install_dir="/opt/harbor", data_volume="/data/harbor")
    seen = SiteSeen((node("node-a", harbor=FOUND), node("node-b", redis="NOAUTH")))
    with pytest.raises(Refused) as caught:
        flow.decide(run_of(site), seen, replace(OLD, login=401))
    reasons = "\n".join(caught.value.reasons)
    assert "admin cannot log in" in reasons
    assert "NOAUTH" in reasons
    assert published
    assert flow.decide(run_of(site), SiteSeen((node("node-a", harbor=FOUND), node("node-b"))), OLD).harbor


def test_a_refusal_in_the_middle_says_what_was_changed_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = SimpleNamespace(
        acquire=lambda *_, **__: Outcome(True, ""),
        renewed=lambda *_, **__: contextlib.nullcontext(),
        release=lambda *_, **__: None,
    )
    monkeypatch.setattr(bootstrap, "store", quiet)
    monkeypatch.setattr(Protocol, "watch", lambda *_: None)
    run = Protocol("adopt", make_site(tmp_path))
    for title, change in (("Install Docker", True), ("Mount the NAS", False)):
        run.records.append(StepRecord(title, ("node-a",), 0.0, 1.0, Outcome(change, "")))
    with pytest.raises(Refused) as caught, bootstrap.alone(run, PLAN):
        raise Refused("The pair has tables of its own.", ["rename it"])
    assert "tables of its own. What was changed: Install Docker on node-a." in str(caught.value)


def failed() -> Exception:
    return RemoteCommandFailed("x", "node-a", 1, "no")


def at(phase: str) -> Any:
    return replace(OLD, found=replace(FOUND, adoption=phase))


def test_everything_large_comes_before_read_only_and_the_last_pass_after_the_stop() -> None:
    steps = Steps()
    flow.move(steps.as_run(), PLAN, at(""))
    assert steps.done[:-1] == [EMPTY, COPY, READ_ONLY, AGAIN, NOTE, STOP, AGAIN, NOTE, ROWS, ALLOW]
    assert steps.nodes[ROWS] == ("node-a", "node-b")
    assert steps.phases == ["moving", "moving", "moved"], (
        "asked before each step that takes something from it"
    )


def test_an_external_database_is_rehearsed_before_anything_is_copied_and_taken_by_its_own_step() -> None:
    steps = Steps()
    old = replace(OLD, found=replace(FOUND, database_host="db.example.com"), external=ExternalSeen())
    flow.keep(steps.as_run(), PLAN, old)
    assert steps.done[:2] == [
        "Keep the old Harbor's configuration",
        "Rehearse the dump of the external database",
    ]
    flow.move(steps.as_run(), PLAN, old)
    assert steps.nodes["Take over the external database"] == ("node-a", "node-b")
    assert ROWS not in steps.done


def test_after_a_put_back_the_sites_harbor_is_stopped_everywhere_before_its_database_is_renamed() -> None:
    steps = Steps()
    flow.make_room(steps.as_run(), PLAN, at("returned"))
    assert steps.done == ["Stop the site's Harbor"] * 2 + ["Set the first adoption's database aside"]
    for phase in ("", "copying", "moving", "moved"):
        untouched = Steps()
        flow.make_room(untouched.as_run(), PLAN, at(phase))
        assert untouched.done == []


def test_a_run_killed_within_read_only_goes_on_there_and_one_killed_after_it_copies_nothing() -> None:
    steps = Steps()
    flow.move(steps.as_run(), PLAN, at("moving"))
    assert steps.done[0] == READ_ONLY
    after = Steps()
    flow.move(after.as_run(), PLAN, at("moved"))
    assert after.done == []


@pytest.mark.parametrize("title", [READ_ONLY, AGAIN, STOP, ROWS])
def test_a_failure_before_the_pair_has_rows_puts_the_old_harbor_back(title: str) -> None:
    steps = Steps()
    steps.fails[title] = [failed()]
    with pytest.raises(RemoteCommandFailed):
        flow.move(steps.as_run(), PLAN, at("copying"))
    assert steps.done[-2:] == [EMPTY, BACK]
    assert "moved" not in steps.phases


def test_once_the_pair_has_rows_the_old_harbor_is_not_put_back() -> None:
    steps = Steps()
    steps.fails = {ALLOW: [failed()], EMPTY: [None, Refused("it has tables", [])]}
    with pytest.raises(HarborHaError, match=r"Run `adopt` again") as caught:
        flow.move(steps.as_run(), PLAN, at("copying"))
    assert BACK not in steps.done
    assert "moved" not in steps.phases
    assert "/var/lib/harbor-ha/adopted/put-back" in str(caught.value)


def test_where_nobody_can_tell_whether_the_rows_were_committed_it_stays_down() -> None:
    steps = Steps()
    steps.fails = {ROWS: [RemoteTimeout("late", where="node-b")]}
    with pytest.raises(HarborHaError, match="may have them"):
        flow.move(steps.as_run(), PLAN, at("copying"))
    assert BACK not in steps.done
    assert steps.done.count(EMPTY) == 1, "it was asked before, and not after"


@pytest.mark.parametrize(
    "error",
    [NotAtThisPoint("at `returned`", where="node-a"), LockLost("held by another", where="node-a")],
)
def test_an_old_harbor_that_is_somebody_elses_by_now_is_neither_stopped_nor_put_back(
    error: HarborHaError,
) -> None:
    """Its operator has put it back, or another run goes on with it: both decide about it, and we do not."""
    steps = Steps()
    steps.fails[STOP] = [error]
    with pytest.raises(type(error)) as caught:
        flow.move(steps.as_run(), PLAN, OLD)
    assert caught.value is error
    assert steps.done[-1] == STOP
    assert isinstance(error, NotAtThisPoint) or "The old Harbor on node-a was left as it is" in str(error)


def test_a_failure_to_put_it_back_names_the_command() -> None:
    steps = Steps()
    steps.fails = {AGAIN: [failed()], BACK: [failed()]}
    with pytest.raises(HarborHaError, match="Run `/var/lib/harbor-ha/adopted/put-back` on node-a"):
        flow.move(steps.as_run(), PLAN, at("copying"))


def test_the_old_harbors_secrets_are_the_first_that_are_shared() -> None:
    assert flow.first(PLAN, OLD) == ["node-a", "node-b"]


def test_the_old_harbor_is_down_before_the_sites_configuration_is_written() -> None:
    steps = Steps()
    flow.install(steps.as_run(), PLAN, OLD)
    assert steps.done[0] == "Take the old Harbor down"
