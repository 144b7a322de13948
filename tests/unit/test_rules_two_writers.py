"""A model of the world, all of it: whatever is true and whatever is seen, two nodes never take writes.

The truth is a machine, its server, its Harbor and five network paths. What the flows would see follows
honestly from it. The rules are then asked step by step, and what they order is done to the truth.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest

from flows.rules.fence import SUFFICIENT, Command, Rung, choose_fence
from flows.rules.last_look import LastLook, last_look
from flows.rules.policy import Policy
from flows.rules.primary import Primary, classify_primary
from tasks.operation.witnesses import Witnesses
from tasks.postgres.facts import NodeFacts
from tests.unit.facts_builder import (
    NOW,
    deaf_standby,
    primary,
    standby,
    stopped,
    unreached,
    witnesses,
)

# What a flow acts on; everything else it refuses or leaves alone.
ACTED_ON = {
    Primary.HUNG,
    Primary.READ_ONLY,
    Primary.DOWN_HOST_UP,
    Primary.BROKEN,
    Primary.DEMOTED,
    Primary.AMBIGUOUS,
    Primary.GONE,
    Primary.UNRESPONSIVE,
}


@dataclass(frozen=True)
class World:
    """What is true. `ab`: the path between two of orchestrator, standby, primary, balancer, redis."""

    on: bool
    server: str  # writable, read-only, stopped, held; hung: with its machine, whose kernel alone answers
    harbor: bool
    op: bool
    os: bool
    sp: bool
    lp: bool
    rp: bool
    drained: bool = False

    @property
    def takes_writes(self) -> bool:
        # A machine that hangs may go on at any moment.
        return self.on and self.server in ("writable", "hung")

    @property
    def isolated(self) -> bool:
        return not (self.op or self.sp or self.lp or self.rp)

    @property
    def harbor_writes(self) -> bool:
        """Whether any Harbor can write there for a client: its own while not drained, or the other one."""
        own = self.harbor and self.lp and not self.drained
        return self.takes_writes and (own or self.sp)


@dataclass(frozen=True)
class Means:
    """What the site and the operator have."""

    policy: Policy
    command_works: bool
    attests: bool


def worlds() -> Iterator[World]:
    for server, harbor, *paths in itertools.product(
        ("writable", "read-only", "stopped", "held"), *[(False, True)] * 6
    ):
        yield World(True, server, harbor, *paths)
    for paths in itertools.product((False, True), repeat=5):
        yield World(True, "hung", False, *paths)
    for paths in itertools.product((False, True), repeat=5):
        yield World(False, "stopped", False, *paths)


MEANS = [
    Means(Policy(fencing=fencing, has_fence_command=command, self_fence_s=self_fence), works, attests)
    for fencing in ("confirmed", "witnesses")
    for command, works in ((False, False), (True, False), (True, True))
    for self_fence in (None, 20)
    for attests in (False, True)
]


@cache
def seen_primary(world: World) -> NodeFacts:
    if world.server == "hung" or not (world.on and (world.op or (world.os and world.sp))):
        return unreached()
    if world.server == "writable":
        return primary()
    if world.server == "read-only":
        return primary(server_changes={"read_only": True})
    return stopped(held=world.server == "held")


@cache
def seen_standby(world: World) -> NodeFacts:
    if not world.os:
        return unreached("node-b")
    return standby() if running(world) and world.server != "hung" and world.sp else deaf_standby()


@cache
def seen_by_witnesses(world: World) -> Witnesses:
    alive = world.on and world.harbor
    tcp = {"orchestrator": "open" if running(world) and world.op else "silent"}
    if world.os:
        tcp["node-b"] = "open" if running(world) and world.sp else "silent"
    return witnesses(
        tcp=tcp,
        mute=() if world.os else ("node-b",),
        # A load balancer does not look at what is in maintenance.
        balancer_up=None if world.drained else alive and world.lp,
        drained_by_us=world.drained,
        balancer_drained=world.drained,
        redis_connected=alive and world.rp,
    )


def running(world: World) -> bool:
    """Whether its port is open."""
    return world.on and world.server in ("writable", "read-only", "hung")


def obey(world: World, rung: Rung, means: Means) -> tuple[World, Command]:
    """Do to the truth what a rung orders."""
    if rung is Rung.SSH:
        return replace(world, server="held"), Command.NONE
    if rung is Rung.COMMAND and means.command_works:
        return replace(world, on=False, harbor=False), Command.CONFIRMED
    if rung is Rung.COMMAND:
        return world, Command.FAILED
    if rung is Rung.DRAIN:
        return replace(world, drained=True), Command.NONE
    if rung is Rung.WAIT and world.isolated and world.takes_writes:
        return replace(world, server="read-only"), Command.NONE
    return world, Command.NONE


def climb(world: World, means: Means, attests: bool) -> tuple[World, Rung]:
    """Climb the ladder until it ends."""
    command, silent = Command.NONE, 0.0
    for _ in range(8):
        rung = choose_fence(
            seen_primary(world),
            (seen_standby(world),),
            seen_by_witnesses(world),
            means.policy,
            NOW,
            command=command,
            silent_for_s=silent,
            attest_fenced=attests,
            # A guard that was seen with the limit of the site file, and goes by it.
            self_fence_seen_s=means.policy.self_fence_s,
            unresponsive=world.server == "hung",
        ).kind
        if rung is Rung.REFUSE or rung in SUFFICIENT:
            return world, rung
        world, result = obey(world, rung, means)
        command = result if result is not Command.NONE else command
        silent = 60.0 if rung is Rung.WAIT else silent
    raise AssertionError(f"the ladder does not end: {world} {means} at {rung}")


def fail_over(world: World, means: Means, heal: bool) -> tuple[World, Rung, bool]:
    """Run the protocol; return the truth, the rung and whether the standby was promoted."""
    rung = Rung.REFUSE
    found = classify_primary(
        seen_primary(world),
        [seen_standby(world)],
        seen_by_witnesses(world),
        NOW,
        unresponsive=world.server == "hung",
    ).kind
    if found not in ACTED_ON:
        return world, rung, False
    # An honest operator attests what is true.
    attests = means.attests and not world.on
    for _ in range(3):
        world, rung = climb(world, means, attests)
        if heal:
            world = replace(world, op=True, os=True, sp=True, lp=True, rp=True)
        if rung not in SUFFICIENT:
            return world, rung, False
        seen = (seen_primary(world), seen_standby(world), seen_by_witnesses(world))
        decision = last_look(rung, *seen, NOW, fence_age_s=5.0)
        if decision.kind is not LastLook.FENCE_AGAIN:
            return world, rung, decision.kind is LastLook.PROMOTE
    raise AssertionError(f"fencing does not end: {world} {means}")


@pytest.mark.parametrize("means", MEANS, ids=str)
def test_no_world_ends_with_two_writers(means: Means) -> None:
    promotions = 0
    for world in worlds():
        for heal in (False, True):
            after, rung, promoted = fail_over(world, means, heal)
            if not promoted:
                continue
            promotions += 1
            assert not after.harbor_writes, (world, after, rung)
            if means.policy.fencing == "confirmed" and rung is not Rung.SELF_FENCE:
                assert not after.takes_writes, (world, after, rung)
            if rung is Rung.SELF_FENCE and world.isolated:
                assert not after.takes_writes, (world, after, rung)
    assert promotions > 0, "a model in which nothing is ever promoted proves nothing"


@pytest.mark.parametrize("means", MEANS, ids=str)
def test_no_world_with_a_primary_in_service_is_touched(means: Means) -> None:
    for world in worlds():
        in_service = world.takes_writes and world.server != "hung"
        if in_service and (world.sp or world.op) and (world.op or world.os):
            after, _, promoted = fail_over(world, means, heal=False)
            assert not promoted
            assert after == world


def test_a_power_cut_is_failed_over_as_far_as_the_policy_allows() -> None:
    off = World(False, "stopped", False, op=False, os=True, sp=False, lp=False, rp=False)
    rungs = {str(means): fail_over(off, means, heal=False)[1:] for means in MEANS}
    plain = Means(Policy(), command_works=False, attests=False)
    assert rungs[str(plain)] == (Rung.REFUSE, False)
    assert rungs[str(replace(plain, attests=True))] == (Rung.ATTESTED, True)
    assert rungs[str(replace(plain, policy=Policy(fencing="witnesses")))] == (Rung.WITNESSES, True)
    assert rungs[str(replace(plain, policy=Policy(self_fence_s=20)))] == (Rung.SELF_FENCE, True)


def test_a_dead_server_on_a_living_host_is_always_failed_over_safely() -> None:
    dead = World(True, "stopped", True, op=True, os=True, sp=True, lp=True, rp=True)
    for means in MEANS:
        after, rung, promoted = fail_over(dead, means, heal=False)
        assert (rung, promoted) == (Rung.STOPPED, True)
        assert after.server == "held"


def test_a_machine_that_hangs_is_switched_off_where_the_site_can_and_left_alone_where_it_cannot() -> None:
    hung = World(True, "hung", False, op=True, os=True, sp=True, lp=True, rp=True)
    for means in MEANS:
        after, rung, promoted = fail_over(hung, means, heal=False)
        assert promoted is means.command_works
        assert (rung is Rung.COMMANDED) is means.command_works
        assert after.on is not means.command_works
