"""The fencing ladder as the flow climbs it: what fails on one rung leads to the next, and ends nothing."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

import flows.failover as flow
import flows.machinery.confirm as confirming
import flows.machinery.fence as ladder
import flows.machinery.operation as machinery
import flows.machinery.service as service
from flows.machinery.confirm import confirm
from flows.machinery.fence import fence
from flows.machinery.operation import Operation
from flows.machinery.protocol import Protocol
from flows.machinery.traffic import put_back
from flows.rules.fence import ECHO_S
from flows.rules.policy import Policy
from tasks.clock import Moment
from tasks.errors import (
    HarborHaError,
    Refused,
    RemoteCommandFailed,
    RemoteConnectionLost,
    RemoteTimeout,
    Superseded,
)
from tasks.harbor.web import HarborRefused, HarborUnreachable
from tasks.observation.look import SiteLook
from tasks.operation.record import LastPrimary, OperationKind, OperationRecord, Phase
from tasks.operation.store import LockLost
from tasks.operation.witnesses import Witnesses
from tasks.outcome import Outcome
from tasks.postgres.facts import NodeFacts
from tasks.postgres.lsn import Lsn, WalPosition
from tasks.postgres.stop import NotFenced
from tests.unit.facts_builder import (
    NOW,
    deaf_standby,
    harbor,
    primary,
    standby,
    stopped,
    unreached,
    witnesses,
)

SSH, COMMAND = "Fence over SSH", "Fence by the site's command"
RECORD = OperationRecord(
    op_id="failover-1",
    kind=OperationKind.FAILOVER,
    site="site",
    expected_primary="node-a",
    target="node-b",
    from_timeline=2,
    started_at=1.0,
    orchestrator="here:1",
    term=3,
)


class World:
    """Two nodes; what the steps do to them, and what is seen of them as time goes on."""

    def __init__(self) -> None:
        self.now = NOW.monotonic
        self.done: list[str] = []
        self.looks: list[bool] = []
        self.dry_run = False
        self.site = SimpleNamespace(
            failover=SimpleNamespace(repoint="edit"),
            node=lambda name: SimpleNamespace(address=name, runs_harbor=True),
        )
        self.old: NodeFacts = primary()
        self.other: NodeFacts = deaf_standby()
        self.said: Witnesses = witnesses()
        self.ssh: Callable[[], None] = lambda: None
        self.confirms = True
        self.after_off: Callable[[float], None] = lambda _: None
        self.off_at: float | None = None
        self.write_error: HarborHaError | None = None

    def watch(self, title: str, look: Callable[[], Any], describe: Callable[[Any], str], *nodes: str) -> Any:
        self.done.append(title)
        self.now += 6.0
        return look()

    def on(self, step: Any, *nodes: str, **plain: Any) -> Outcome:
        self.done.append(step.name)
        if step.name == SSH:
            self.ssh()
        if step.name == COMMAND and self.confirms:
            self.off_at, self.old = self.now, unreached()
        return Outcome(True, "", {"locked": list(nodes), "confirmed": self.confirms})

    def try_each(self, step: Any, nodes: Any, **plain: Any) -> tuple[dict[str, Outcome], dict[str, str]]:
        self.done.append(step.name)
        # A node that cannot be written takes no lock.
        return {node: Outcome(True, "", {"locked": []}) for node in nodes}, {}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self, work: Operation, *, said_off: bool = False) -> None:
        self.looks.append(said_off)
        if self.off_at is not None:
            self.after_off(self.now - self.off_at)
        at = Moment(self.now, NOW.wall)
        work.seen = SiteLook(
            (replace(self.old, observed_at=at), replace(self.other, observed_at=at)),
            frozenset({"node-a", "node-b"}),
            0.1,
        )
        work.witnesses = replace(self.said, observed_at=at)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(machinery, "publish", lambda run, headline, sections, **_: None)
    time = SimpleNamespace(monotonic=lambda: made.now, sleep=made.sleep, time=lambda: NOW.wall)
    for module in (ladder, machinery, confirming):
        monkeypatch.setattr(module, "time", time)
    for module in (ladder, flow, confirming):
        monkeypatch.setattr(module, "clock", SimpleNamespace(now=lambda: Moment(made.now, NOW.wall)))
    monkeypatch.setattr(Operation, "policy", Policy(has_fence_command=True))
    monkeypatch.setattr(service, "try_write", lambda run, limit_s: made.write_error)
    return made


def begun(world: World, *, locked: tuple[str, ...] = ("node-a", "node-b")) -> Operation:
    """A failover that is about to fence."""
    seen = SiteLook((world.old, world.other), frozenset({"node-a", "node-b"}), 0.1)
    work = Operation(cast(Protocol, world), seen, world.said, locked=set(locked))
    work.record = RECORD.at(Phase.FENCING)
    work.look_at = lambda node, **how: world.look(work, **how)  # type: ignore[method-assign]
    work.way_back = put_back
    return work


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        NotFenced("It is not fenced: start.conf cannot be written: disk full.", where="node-a"),
        RemoteTimeout("It did not end in time.", where="node-a"),
        RemoteConnectionLost("The connection broke.", where="node-a"),
        RemoteCommandFailed("python3", "node-a", 127, "python3: not found"),
        OSError("a defect of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fence_over_ssh_that_fails_in_any_way_leads_to_the_fence_command(
    world: World, error: Exception
) -> None:
    """A full or hanging disk ended every failover at the first rung, and the site's fence command was never reached."""
    world.ssh = raising(error)
    work = begun(world)
    fence(work, attest_fenced=False)
    assert world.done.index(COMMAND) > world.done.index(SSH)
    assert work.held.phase is Phase.FENCED
    assert work.held.fence is not None
    assert work.held.fence.rung == "COMMANDED"


def test_a_node_that_could_not_take_the_lock_and_says_superseded_is_switched_off(world: World) -> None:
    world.ssh = raising(Superseded("The step was not done: the lock is held by nobody.", where="node-a"))
    work = begun(world, locked=("node-b",))
    fence(work, attest_fenced=False)
    assert COMMAND in world.done


@pytest.mark.parametrize(
    "error",
    [Superseded("term 9 has begun since", where="node-a"), LockLost("taken", where="node-a")],
    ids=lambda error: type(error).__name__,
)
def test_whoever_was_replaced_switches_nothing_off(world: World, error: Exception) -> None:
    world.ssh = raising(error)
    with pytest.raises(type(error)):
        fence(begun(world), attest_fenced=False)
    assert COMMAND not in world.done


def test_ssh_that_says_done_while_the_machine_does_not_look_so_leads_to_the_command(world: World) -> None:
    world.old = stopped()
    work = begun(world)
    fence(work, attest_fenced=False)
    assert [step for step in world.done if step in (SSH, COMMAND)] == [SSH, SSH, COMMAND]


def test_without_a_command_it_is_refused_with_what_to_do_and_what_may_have_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Operation, "policy", Policy())
    world.ssh = raising(NotFenced("It is not fenced: disk full.", where="node-a"))
    work = begun(world)
    with pytest.raises(Refused) as caught, work:
        fence(work, attest_fenced=False)
    assert "could not be fenced over SSH: It is not fenced: disk full" in str(caught.value)
    assert "Switch node-a off" in str(caught.value)
    assert "attest_fenced=true" in str(caught.value)
    assert "Nothing was changed" not in str(caught.value)
    assert "PostgreSQL on node-a was told to stop over SSH, and may be stopped" in caught.value.changed


def test_a_command_that_fails_after_ssh_is_refused(world: World) -> None:
    world.ssh = raising(NotFenced("It is not fenced.", where="node-a"))
    world.confirms = False
    with pytest.raises(Refused, match="could not be fenced over SSH"):
        fence(begun(world), attest_fenced=False)


def test_only_the_look_after_the_commands_word_is_short(world: World) -> None:
    world.old = unreached()
    fence(begun(world), attest_fenced=False)
    assert world.looks == [True]


def test_after_a_command_that_failed_a_silent_machine_is_given_all_its_time(world: World) -> None:
    world.old, world.confirms = unreached(), False
    with pytest.raises(Refused):
        fence(begun(world), attest_fenced=False)
    assert True not in world.looks


def test_a_command_that_says_off_of_a_machine_that_is_reached_is_not_believed(world: World) -> None:
    world.ssh = raising(NotFenced("It is not fenced.", where="node-a"))

    def alive(_: float) -> None:
        world.old = primary()

    world.after_off = alive
    work = begun(world)
    with pytest.raises(Refused, match="the command is not true") as caught, work:
        fence(work, attest_fenced=False)
    assert "node-a was switched off by the fence command" in caught.value.changed


def test_who_heard_it_a_moment_before_it_was_switched_off_gets_time_to_lose_it(world: World) -> None:
    """A standby's receiver is fresh for 8 s after its primary's last word; that word must not end the failover."""
    world.ssh = raising(NotFenced("It is not fenced.", where="node-a"))
    world.other = standby()

    def lost(seconds: float) -> None:
        if seconds > 9:
            world.other = deaf_standby()

    world.after_off = lost
    work = begun(world)
    fence(work, attest_fenced=False)
    assert work.held.fence is not None
    assert work.held.fence.rung == "COMMANDED"


def test_who_goes_on_hearing_it_after_that_time_is_believed_and_the_command_is_not(world: World) -> None:
    world.ssh = raising(NotFenced("It is not fenced.", where="node-a"))
    world.other = standby()
    with pytest.raises(Refused, match="still receives WAL"):
        fence(begun(world), attest_fenced=False)
    assert world.now - NOW.monotonic < ECHO_S + 2


UNANSWERED = HarborUnreachable("The load balancer did not answer in time.", where="harbor")
NO_BACKEND = HarborRefused("503 Service Unavailable", 503, where="harbor")
READ_ONLY = HarborRefused("The system is in read only mode.", 403, where="harbor", code="DENIED")


def hung(world: World) -> None:
    """Its machine hangs: SSH gets no answer, the standby has lost it, its kernel accepts connections."""
    world.old, world.other = unreached(), deaf_standby()
    world.said = witnesses(tcp={"the orchestrator": "open", "node-b": "open"})

    def silent(_: float) -> None:
        world.said = witnesses()

    world.after_off = silent


@pytest.mark.parametrize("error", [UNANSWERED, NO_BACKEND], ids=["time limit", "503"])
def test_a_machine_that_hangs_while_clients_cannot_write_is_switched_off(
    world: World, error: HarborHaError
) -> None:
    hung(world)
    world.write_error = error
    work = begun(world)
    fence(work, attest_fenced=False)
    assert COMMAND in world.done
    assert work.held.fence is not None
    assert work.held.fence.rung == "COMMANDED"


def test_a_machine_that_hangs_is_left_on_while_clients_can_write(world: World) -> None:
    hung(world)
    with pytest.raises(Refused, match="can open its PostgreSQL port"):
        fence(begun(world), attest_fenced=False)
    assert COMMAND not in world.done


@pytest.mark.parametrize(("state", "off"), [("unhealthy", True), ("healthy", False), (None, False)])
def test_where_harbor_refuses_the_write_its_health_says_whether_the_database_is_away(
    world: World, state: str | None, off: bool
) -> None:
    hung(world)
    world.write_error = READ_ONLY
    told = harbor(health="unhealthy", components={} if state is None else {"database": state})
    world.other = replace(deaf_standby(), harbor=told)
    if off:
        fence(begun(world), attest_fenced=False)
    else:
        with pytest.raises(Refused):
            fence(begun(world), attest_fenced=False)
    assert (COMMAND in world.done) is off


def test_a_machine_that_hangs_and_cannot_be_switched_off_from_here_is_refused_with_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Operation, "policy", Policy())
    hung(world)
    world.write_error = UNANSWERED
    work = begun(world)
    work.record = RECORD
    with pytest.raises(Refused, match="Without one: switch node-a off"):
        confirm(work, "node-a")
    with pytest.raises(Refused, match="nothing here can switch it off"):
        fence(begun(world), attest_fenced=True)


def test_two_rounds_agree_before_a_machine_is_called_unresponsive(world: World) -> None:
    hung(world)
    world.write_error = UNANSWERED
    work = begun(world)
    assert confirm(work, "node-a") == ""
    assert world.done.count("Write through the load balancer") == 2
    assert "UNRESPONSIVE" in work.sections["The primary"][0]


def test_no_write_is_tried_while_anybody_sees_more_than_a_handshake(world: World) -> None:
    hung(world)
    world.said = replace(world.said, redis_connected=True)
    with pytest.raises(Refused):
        flow.confirm(begun(world), "node-a")
    assert world.done == []


def self_fencing(world: World, monkeypatch: pytest.MonkeyPatch) -> Operation:
    """A silent primary whose guard goes by 20 s, on a site that cannot switch it off."""
    monkeypatch.setattr(Operation, "policy", Policy())
    world.old, world.said = unreached(), witnesses(balancer_drained=True)
    work = begun(world)
    work.record = replace(
        work.held, last_primary=LastPrimary("node-a", WalPosition(2, Lsn(1)), NOW.wall, self_fence_s=20.0)
    )
    return work


def test_a_silence_that_is_watched_all_the_time_is_long_enough_after_the_self_fence_and_its_margin(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, begun_at = self_fencing(world, monkeypatch), world.now
    ladder.fence(work, attest_fenced=False)
    assert world.now - begun_at >= 30.0
    assert work.held.fence is not None
    assert work.held.fence.rung == "SELF_FENCE"


def test_an_orchestrator_that_stands_still_at_every_wait_is_told_so_and_fences_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = self_fencing(world, monkeypatch)
    monkeypatch.setattr(ladder, "_MAX_WAITS", 20)
    monkeypatch.setattr(ladder.time, "sleep", lambda _: world.sleep(12.0))
    with pytest.raises(Refused, match="not fenced") as refused:
        ladder.fence(work, attest_fenced=False)
    assert "too slow" in str(refused.value)
    assert work.held.fence is None
