"""A second look begins while the first one goes on; what the two prove of a silence is what they proved before."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import flows.machinery.operation as machinery
import flows.machinery.protocol as protocol
from blocks import FailoverPolicy, HarborSite
from flows.machinery.ahead import Ahead
from flows.machinery.confirm import confirm
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.rules.primary import Primary
from flows.rules.silence import PACE_S, SILENCE_APART_S, Round, at_the_end, conclusive, quiet
from flows.rules.table import Decision
from tasks import clock
from tasks.clock import Moment
from tasks.hosts.ssh import HANDSHAKE_TIMEOUT_S
from tasks.observation.look import SiteLook
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import deaf_standby, primary, unreached, witnesses
from tests.unit.harbor_site import make_site

Looked = tuple[SiteLook, Witnesses]


def at(began: float, kind: Primary = Primary.GONE, *, quiet: bool | None = None) -> Round:
    silent = kind is Primary.GONE if quiet is None else quiet
    return Round(Decision(kind, kind), Moment(began, 0.0), silent)


def test_one_look_proves_no_silence() -> None:
    assert conclusive([at(0.0)]) is None
    assert at_the_end([at(0.0)]) is None


@pytest.mark.parametrize("kind", [Primary.GONE, Primary.HUNG, Primary.UNRESPONSIVE])
def test_two_looks_prove_a_silence_by_when_they_began(kind: Primary) -> None:
    """Two looks at the same moment lose their packets to the same trouble, and the same facts twice are one look."""
    assert conclusive([at(0.0, kind), at(0.0, kind)]) is None
    assert conclusive([at(0.0, kind), at(SILENCE_APART_S - 0.1, kind)]) is None
    found = conclusive([at(0.0, kind), at(SILENCE_APART_S, kind)])
    assert found is not None
    assert found.kind is kind


def test_a_site_may_ask_for_a_longer_silence_and_not_for_a_shorter_one() -> None:
    rounds = [at(0.0), at(2.5), at(4.9)]
    assert conclusive(rounds, 5.0) is None
    assert conclusive([*rounds, at(5.0)], 5.0) is not None
    field = FailoverPolicy.model_fields["silence_s"]
    assert field.default == SILENCE_APART_S
    with pytest.raises(ValidationError):
        FailoverPolicy(silence_s=SILENCE_APART_S / 2)


def test_when_the_time_is_over_one_moment_of_silence_is_looked_at_once_more() -> None:
    """What is ambiguous goes on to the fence, and a fence command would have switched the machine off."""
    assert at_the_end([at(0.0), at(0.0)]) is None
    differ = at_the_end([at(0.0), at(2.0, Primary.WRITERS_ATTACHED)])
    assert differ is not None
    assert differ.kind is Primary.AMBIGUOUS


def test_a_silence_that_was_broken_begins_anew() -> None:
    broken = [at(0.0), at(2.0, Primary.CONTROL_PARTITION), at(4.0)]
    assert conclusive(broken) is None
    assert conclusive([*broken, at(6.0)]) is not None


@pytest.mark.parametrize("late", [Primary.CONTROL_PARTITION, Primary.WRITERS_ATTACHED, Primary.AMBIGUOUS])
def test_a_look_that_only_who_tells_of_before_had_not_lost_is_one_of_the_two(late: Primary) -> None:
    """Receiver, balancer and Redis lose a machine seconds after its power cut, and a third look waited for that."""
    found = conclusive([at(0.0, late, quiet=True), at(SILENCE_APART_S, Primary.GONE)])
    assert found is not None
    assert found.kind is Primary.GONE
    assert conclusive([at(0.0, late, quiet=True), at(SILENCE_APART_S - 0.1, Primary.GONE)]) is None


def test_as_long_as_anybody_has_not_lost_it_no_number_of_quiet_looks_is_enough() -> None:
    quiet_ones = [at(float(began), Primary.CONTROL_PARTITION, quiet=True) for began in range(9)]
    assert conclusive(quiet_ones) is None


def test_a_hung_server_is_seen_hanging_twice_whatever_the_machine_said_before() -> None:
    assert conclusive([at(0.0, Primary.CONTROL_PARTITION, quiet=True), at(2.0, Primary.HUNG)]) is None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (primary(), witnesses()),
        (unreached(), witnesses(tcp={"node-b": "open"})),
        (unreached(), witnesses(tcp={}, mute=("node-b",))),
    ],
    ids=["reached over some path", "its port is open to somebody", "the other node was not asked"],
)
def test_a_look_is_not_quiet_when_the_machine_answers_or_nobody_else_asked_it(
    facts: NodeFacts, said: Witnesses
) -> None:
    assert not quiet(facts, said)


def test_a_look_is_quiet_whatever_is_told_of_before() -> None:
    assert quiet(unreached(), witnesses(balancer_up=True, redis_connected=True))


def test_what_the_machine_itself_tells_needs_one_look() -> None:
    assert conclusive([at(0.0, Primary.DOWN_HOST_UP)]) is not None


def test_the_second_look_begins_when_a_silent_path_of_the_first_is_over() -> None:
    """Else both would try one path at the same time, and prove a shorter silence than one after the other."""
    assert PACE_S >= HANDSHAKE_TIMEOUT_S
    assert PACE_S > SILENCE_APART_S


def test_a_look_that_nobody_wants_does_not_begin() -> None:
    begun = threading.Event()
    ahead = Ahead(begun.set, 0.3)
    ahead.leave()
    ahead._thread.join(5)
    assert not begun.is_set()


def test_what_a_look_raises_is_raised_to_who_takes_it() -> None:
    def broken() -> None:
        raise KeyError("node-z")

    with pytest.raises(KeyError, match="node-z"):
        Ahead(broken, 0.0).take()


class Looks:
    """A site whose looks last for as long as a test wants; each tells when it began."""

    def __init__(self, site: HarborSite) -> None:
        self.site = site
        self.began: list[float] = []
        self.ended: list[float] = []
        self.old: list[NodeFacts] = [unreached(), unreached()]
        self.first_ends = threading.Event()

    def __call__(self, site: HarborSite, node: str, *_: float, **__: bool) -> Looked:
        number = len(self.began)
        now = clock.now()
        self.began.append(now.monotonic)
        if number == 0:
            assert self.first_ends.wait(20), "the first look waits for the second to begin"
        else:
            self.first_ends.set()
        old = self.old[min(number, len(self.old) - 1)]
        nodes = (replace(old, observed_at=now), replace(deaf_standby(), observed_at=now))
        self.ended.append(time.monotonic())
        return SiteLook(nodes, frozenset({"node-a", "node-b"}), 0.1), replace(witnesses(), observed_at=now)


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    made = Looks(make_site(tmp_path))
    monkeypatch.setattr(machinery, "look_with_witnesses", made)
    monkeypatch.setattr(protocol, "run_logger", lambda: Silent())
    yield made
    made.first_ends.set()


class Silent:
    def info(self, *_: Any) -> None:
        pass


def begun(looks: Looks) -> Operation:
    return Operation.begin_with(Protocol("failover", looks.site), "node-a")


def test_a_second_look_does_not_wait_for_the_end_of_the_first(looks: Looks) -> None:
    work = begun(looks)
    assert confirm(work, "node-a") == ""
    assert len(looks.began) == 2
    assert looks.began[1] < looks.ended[0]
    assert looks.began[1] - looks.began[0] >= SILENCE_APART_S
    assert "GONE" in work.sections["The primary"][0]
    first, second = work.run.records
    assert second.begin_s < first.begin_s + first.seconds, "the report shows that they overlap"


def test_a_primary_that_the_second_look_reaches_is_left_alone(looks: Looks) -> None:
    looks.old = [unreached(), primary()]
    assert "answers as a writable primary" in confirm(begun(looks), "node-a")


def after_a_wait(looks: Looks, work: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock was long in coming: the second look is of then."""
    age = Moment.age
    work.ahead and work.ahead.take()
    monkeypatch.setattr(Moment, "age", lambda self, now: age(self, now) + 10)


def after_another_look(looks: Looks, work: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else has looked since, and saw more."""
    work.look_at("node-a")


@pytest.mark.parametrize("meanwhile", [after_a_wait, after_another_look])
def test_a_second_look_that_is_behind_the_times_is_not_taken(
    looks: Looks, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[..., None]
) -> None:
    work = begun(looks)
    meanwhile(looks, work, monkeypatch)
    seen = work.seen
    assert not work.look_taken_ahead("node-a")
    assert work.seen is seen


def test_a_look_at_another_node_is_none_at_this_one(looks: Looks) -> None:
    work = begun(looks)
    assert not work.look_taken_ahead("node-b")
