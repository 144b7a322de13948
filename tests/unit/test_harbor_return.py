"""A node's Harbor comes back to its clients: beside its data, or after it, and what of it may fail."""

from types import SimpleNamespace

import pytest

from flows.machinery.beside import Beside, first_of
from flows.machinery.harbor_return import serve_again, serve_meanwhile
from flows.machinery.operation import Operation
from tasks.harbor.api import NotHealthy
from tasks.operation.record import Phase
from tasks.outcome import Outcome
from tests.unit.rejoin_steps import NO_HARBOR, Steps, ended, under_way, work_at

BACK = Outcome(True, "")


@pytest.fixture(autouse=True)
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Operation, "in_time", lambda self: None)


def waited(result: Outcome | Exception) -> Beside:
    """The Harbor of node-a, which has come back, or has not."""
    harbors = ended({"node-a": result})
    harbors.wait()
    return harbors


def test_a_node_serves_clients_while_its_data_is_copied() -> None:
    """The copy of 100 GB takes an hour, in which half of the site's Harbors were idle."""
    steps = Steps()
    serve_meanwhile(work_at(Phase.CLONING, steps), "node-a", under_way("node-a"), ended({"node-a": BACK}))
    assert steps.done == ["Wait for Harbor to serve", "Serve the node through the load balancer"]


@pytest.mark.parametrize(
    "harbors", [under_way("node-a"), ended({"node-a": BACK})], ids=["its Harbor goes on", "both have ended"]
)
def test_data_that_has_come_waits_for_no_harbor(harbors: Beside) -> None:
    steps = Steps()
    serve_meanwhile(work_at(Phase.REWINDING, steps), "node-a", ended({"node-a": BACK}), harbors)
    assert steps.done == []


@pytest.mark.parametrize(
    "harbors",
    [NO_HARBOR, ended({"node-a": NotHealthy("core waits")})],
    ids=["it has none", "it did not come back"],
)
def test_a_node_without_a_harbor_that_runs_is_not_served_meanwhile(harbors: Beside) -> None:
    steps = Steps()
    serve_meanwhile(work_at(Phase.REWINDING, steps), "node-a", under_way("node-a"), harbors)
    assert steps.done == []


def test_a_harbor_that_does_not_serve_yet_is_left_for_later_and_ends_nothing() -> None:
    steps = Steps({"Wait for Harbor to serve": [NotHealthy("core: no answer")]})
    serve_meanwhile(work_at(Phase.REWINDING, steps), "node-a", under_way("node-a"), ended({"node-a": BACK}))
    assert steps.done == ["Wait for Harbor to serve"]


def test_the_first_of_two_is_waited_for_and_not_the_other() -> None:
    first_of(under_way("node-a"), ended({"node-b": BACK}))
    first_of(ended({"node-a": NotHealthy("core waits")}), under_way("node-b"))


def test_a_harbor_that_could_not_come_back_beside_the_data_does_so_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where writes wait for a standby, core cannot start before this one follows."""
    steps = Steps()
    work = work_at(Phase.SETTLING, steps)
    steps.site = SimpleNamespace(node=lambda name: SimpleNamespace(address="10.0.0.2"))
    monkeypatch.setattr(Operation, "in_time", lambda self: None)
    serve_again(work, "node-a", "node-b", waited(NotHealthy("core waits")))
    assert steps.done[-5:-3] == ["Bring Harbor back", "Wait for Harbor to serve"]
    assert "Left behind" not in work.sections


def test_a_harbor_that_does_not_come_back_is_not_served_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps({"Bring Harbor back": [NotHealthy("core: no answer")]})
    work = work_at(Phase.SETTLING, steps)
    steps.site = SimpleNamespace(node=lambda name: SimpleNamespace(address="10.0.0.2"))
    serve_again(work, "node-a", "node-b", waited(NotHealthy("core waits")))
    assert steps.done[-1] == "Bring Harbor back"
    (said,) = work.sections["Left behind"]
    assert said == "the Harbor of node-a does not follow: core: no answer"


def test_a_jobservice_that_does_not_follow_keeps_no_client_away(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(jobs="it does not stop")
    work = work_at(Phase.SETTLING, steps)
    steps.site = SimpleNamespace(node=lambda name: SimpleNamespace(address="10.0.0.2"))
    monkeypatch.setattr(Operation, "in_time", lambda self: None)
    serve_again(work, "node-a", "node-b", waited(BACK))
    assert steps.done[-3:] == [
        "Serve the node through the load balancer",
        "Start the rest of Harbor",
        "Wait for Harbor to be healthy",
    ]
    (said,) = work.sections["Left behind"]
    assert said.startswith("the jobservice of node-a still uses the old database: it does not stop")


def test_a_node_whose_jobservice_stays_ill_takes_clients_and_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = Steps({"Wait for Harbor to be healthy": [NotHealthy("jobservice: unhealthy")]})
    work = work_at(Phase.SETTLING, steps)
    machine = SimpleNamespace(runs_harbor=True, address="10.0.0.2")
    steps.site = SimpleNamespace(node=lambda name: machine, failover=SimpleNamespace(repoint="edit"))
    monkeypatch.setattr(Operation, "in_time", lambda self: None)
    serve_again(work, "node-a", "node-b", waited(BACK))
    assert steps.done[-4] == "Wait for Harbor to serve"
    assert steps.done[-1] == "Wait for Harbor to be healthy"
    (said,) = work.sections["Left behind"]
    assert "node-a serves" in said
    assert "jobservice: unhealthy" in said
