"""What follows a promotion does not depend on Harbor's answer to a client's write."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.machinery import traffic
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from tasks.errors import HarborHaError
from tasks.harbor import proof
from tasks.harbor.web import Endpoint
from tasks.observation.look import SiteLook
from tasks.operation.record import OperationKind, OperationRecord, Phase
from tasks.outcome import Outcome, unchanged
from tests.unit.facts_builder import standby, unreached
from tests.unit.harbor_site import make_site
from tests.unit.loopback_harbor import HOSTNAME, LoopbackHarbor, serving
from tests.unit.site_on_disk import certificate

KEY_PAIR = certificate(HOSTNAME, days=36500)


@pytest.fixture
def harbor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHarbor]:
    with serving(*KEY_PAIR, tmp_path) as server:
        endpoint = Endpoint("127.0.0.1", server.port, HOSTNAME, KEY_PAIR[0], password="Secret12345")
        monkeypatch.setattr(proof, "through_balancer", lambda site: endpoint)
        yield server


def answered(tmp_path: Path, timeout: float = 0.6, settle_s: float = 0.2) -> Outcome:
    return proof.write_through_balancer(make_site(tmp_path), timeout=timeout, settle_s=settle_s)


def test_a_write_that_is_accepted_is_told(harbor: LoopbackHarbor, tmp_path: Path) -> None:
    assert answered(tmp_path, timeout=60.0).data["answer"] == proof.OK


@pytest.mark.parametrize("refusal", ["read only", "another password"])
def test_a_write_that_policy_refuses_is_an_answer_and_no_error(
    refusal: str, harbor: LoopbackHarbor, tmp_path: Path
) -> None:
    if refusal == "read only":
        harbor.read_only = True
    else:
        harbor.refusal = (401, {"errors": [{"code": "UNAUTHORIZED", "message": "unauthorized"}]})
    told = answered(tmp_path, timeout=60.0)
    assert told.data["answer"] == proof.BY_POLICY
    assert ("read only mode" if refusal == "read only" else "admin password") in told.data["why"]


def test_a_password_that_is_refused_while_the_database_changes_is_asked_again(
    harbor: LoopbackHarbor, tmp_path: Path
) -> None:
    # A core that has lost its database cannot look a user up, and answers 401.
    harbor.refusal, harbor.refusals = (401, {"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}), 3
    assert answered(tmp_path, timeout=120.0, settle_s=60.0).data["answer"] == proof.OK


@pytest.mark.parametrize("status", [403, 500, 502])
def test_what_is_not_harbors_own_refusal_is_a_failure_and_no_policy(
    status: int, harbor: LoopbackHarbor, tmp_path: Path
) -> None:
    harbor.refusal = (status, "<html>blocked by a proxy</html>")
    assert answered(tmp_path).data["answer"] == proof.FAILED


def test_no_answer_is_a_failure_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Endpoint("127.0.0.1", 1, HOSTNAME, KEY_PAIR[0])
    monkeypatch.setattr(proof, "through_balancer", lambda site: nobody)
    told = answered(tmp_path)
    assert told.data["answer"] == proof.FAILED
    assert "got no answer" in told.data["why"]


RECORD = OperationRecord(
    "op-1", OperationKind.FAILOVER, "demo", "node-a", "node-b", 2, 1.0, "x:1", term=4, promoted_timeline=3
)


class Steps:
    """The steps of a flow by title; a client's write is answered as the test wants."""

    def __init__(self, site: Any, answer: Outcome | Exception) -> None:
        self.site, self.answer, self.dry_run = site, answer, False
        self.titles: list[str] = []
        self.not_repointed = 0
        self.failing = ""

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        self.titles.append(step.name)
        if step.name == "Write through the load balancer":
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer
        return Outcome(True, "", {"locked": list(nodes)})

    def try_each(
        self, step: Any, nodes: Sequence[str], **plain: Any
    ) -> tuple[dict[str, Outcome], dict[str, str]]:
        self.titles += [step.name for _ in nodes]
        if step.name == self.failing:
            return {}, dict.fromkeys(nodes, "no answer.")
        if step.name == "Repoint Harbor" and self.not_repointed:
            self.not_repointed -= 1
            return {}, dict.fromkeys(nodes, "core did not answer.")
        return {node: Outcome(True, "") for node in nodes}, {}

    def in_turn(self, first: Any, second: Any, nodes: Sequence[str], **plain: Any) -> dict[str, str]:
        done, failed = self.try_each(first, nodes, **plain)
        self.try_each(second, list(done))
        return failed


def promoted(site: Any, answer: Outcome | Exception) -> tuple[Operation, Steps]:
    steps = Steps(site, answer)
    seen = SiteLook((unreached("node-a"), standby("node-b")), frozenset({"node-a", "node-b"}), 0.1)
    record = replace(RECORD, phase=Phase.PROMOTED)
    return Operation(cast(Protocol, steps), seen, record=record, locked={"node-b"}), steps


ANSWERS: dict[str, Outcome | Exception] = {
    "by policy": unchanged("", answer="refused-by-policy", why="read only mode"),
    "not at all": unchanged("", answer="failed", why="502"),
    "with an error": HarborHaError("502"),
    "with a defect of ours": KeyError("x"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_harbor_answers_the_new_primary_is_completed_and_the_report_says_it(
    answer: str, tmp_path: Path
) -> None:
    work, steps = promoted(make_site(tmp_path), ANSWERS[answer])
    followed: list[str] = []
    traffic.open_traffic(work)
    traffic.finish(work, follow=lambda work: followed.append(work.held.target))
    wanted = ["Restart Harbor's jobservice", "Close the operation"]
    assert [title for title in wanted if title not in steps.titles] == []
    assert followed == ["node-b"]
    assert work.held.phase is Phase.DONE
    assert work.sections["Clients"]


def test_a_write_that_was_accepted_leaves_no_warning(tmp_path: Path) -> None:
    work, _ = promoted(make_site(tmp_path), unchanged("accepted", answer="ok", why=""))
    traffic.open_traffic(work)
    assert "Clients" not in work.sections


def with_durability(site: Any, durability: str) -> Any:
    return SimpleNamespace(
        **{name: getattr(site, name) for name in ("name", "nodes", "failover", "balancer", "node")},
        postgres=site.postgres.model_copy(update={"durability": durability}),
    )


def test_where_writes_wait_for_a_standby_it_follows_before_a_client_is_let_write(tmp_path: Path) -> None:
    site = with_durability(make_site(tmp_path), "required")
    work, steps = promoted(site, unchanged("accepted", answer="ok", why=""))
    traffic.open_traffic(work, follow=lambda work: steps.titles.append("follow"))
    assert steps.titles.index("follow") < steps.titles.index("Write through the load balancer")


def test_where_writes_wait_and_there_is_no_standby_no_client_is_waited_for(tmp_path: Path) -> None:
    site = with_durability(make_site(tmp_path), "required")
    work, steps = promoted(site, unchanged("", answer="failed", why="timeout"))
    traffic.open_traffic(work)
    assert "Write through the load balancer" not in steps.titles
    assert "rejoin" in work.sections["Clients"][0]


@pytest.mark.parametrize("follows_later", [True, False])
def test_a_harbor_that_did_not_follow_at_once_is_served_again_when_it_does(
    follows_later: bool, tmp_path: Path
) -> None:
    # The new primary's own Harbor was left out of the load balancer; rejoin refuses a primary, and nothing served it.
    work, steps = promoted(make_site(tmp_path), unchanged("accepted", answer="ok", why=""))
    steps.not_repointed = 1 if follows_later else 2
    traffic.open_traffic(work)
    assert work.held.drained == ("node-b",)
    assert "node-b is taken out of the load balancer." in work.sections["Left behind"][0]
    traffic.finish(work)
    served = "End the drain at the load balancer" in steps.titles
    assert (served, "Left behind" in work.sections) == (follows_later, not follows_later)


def test_a_jobservice_that_was_not_restarted_is_told_since_no_look_shows_it(tmp_path: Path) -> None:
    work, steps = promoted(make_site(tmp_path), unchanged("accepted", answer="ok", why=""))
    steps.failing = "Restart Harbor's jobservice"
    traffic.finish(work)
    assert "the jobservice of node-b still uses the old database" in work.sections["Left behind"][0]
