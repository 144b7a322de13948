"""Runs on a database node all the time: a primary that must not be one stops itself.

Two reasons. Another node is the primary: it was accepted on this timeline or a newer one, or both booted at once.
Or this one is isolated: for the configured seconds neither the standby nor the load balancer nor Redis has answered.
Redis is shared, so an isolated Harbor cannot serve anybody; stopping loses nothing that was not lost already.

It stops the server. default_transaction_read_only would be softer, but every session can turn it off again.

Stop first, note afterwards: on a full disk the note failed, for ever, and nothing was stopped. And whatever cannot
be looked at is no sign of life: a pass that fails counts toward the self-fence.
"""

import json
import os
import sys
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from tasks.guard.on_node.guard_acts import fence, hold_back, start_containers, yield_to_peer
from tasks.guard.on_node.guard_look import (
    CONFIG,
    accepted,
    ask,
    gone_back,
    in_touch,
    local,
    pending_promotion,
    read_config,
    restored_site,
    shared_claim,
    version_of,
)
from tasks.guard.on_node.guard_note import (
    forget,
    heartbeat_path,
    held,
    write_volatile,
)
from tasks.guard.on_node.guard_promoted import settle_own_promotion
from tasks.guard.on_node.guard_question import Question, beside
from tasks.guard.on_node.guard_rules import (
    FENCE,
    FORGET,
    HOLD,
    NONE,
    SELF_FENCED,
    START,
    STARTING,
    YIELD,
    YIELD_S,
    Claim,
    Peer,
    Sight,
    next_act,
    still_claims,
    when_settled,
)
from tasks.guard.on_node.guard_share import share_acceptance
from tasks.on_node.pg_disk import (
    age_of,
    attempt,
    postmaster_in,
    servers_in,
    single_user,
    up_s,
)
from tasks.on_node.pg_run import systemctl

# A pass in which nothing answers takes 3.5 s, the fast and the immediate stop five (guard_acts): together well within
# the ten seconds that a failover adds to the limit.
PERIOD_S = 1.0
DISK_S = 0.5
# What peers say of a server of long standing; right after a start, and when a record speaks against it, each pass.
LOOK_S = 10.0
# The slowest honest answer of a peer; see `ask`.
PEER_S = 1.0
PEER_AGE_S = 6.0
# How often it is seen to that the NAS has what this node has.
SHARE_S = 5.0


class Guard:
    """What the guard remembers from pass to pass.

    Attributes:
        version: the hash of the text that runs.
        touched_at: when the question was put that a witness answered last, by the monotonic clock.
        fenced: it has fenced itself; here in case that no note could be written.
        free_since: when the first of a row of passes that would start the server began; None: the last would not.
    """

    def __init__(self, version: str, config: str = CONFIG) -> None:
        self.version, self.passes, self.fenced = version, 0, False
        self.touched_at = time.monotonic()
        self.free_since: Optional[float] = None
        self.p: Dict[str, Any] = {}
        self.looked_at = self.shared_at = self.away_at = float("-inf")
        self.config = Question(lambda: read_config(config))
        self.signal = Question(lambda: os.path.exists(self.p["data"] + "/standby.signal"))
        self.local = Question(lambda: local(self.p))
        self.own = Question(lambda: accepted(self.p))
        self.back = Question(lambda: gone_back(self.p))
        self.shared = Question(lambda: shared_claim(self.p))
        self.restored = Question(lambda: restored_site(self.p))
        self.asked = Question(lambda: pending_promotion(self.p))
        self.settling = Question(lambda: settle_own_promotion(self.p))
        self.sharing = Question(lambda: share_acceptance(self.p))
        self.peers: Dict[str, Question] = {}
        self.said: Set[Tuple[str, str]] = set()

    def one_pass(self) -> str:
        """Look once and act; return what was done. Never raises."""
        act = NONE
        try:
            # The moment before the questions: an answer is as old as its question.
            begun = time.monotonic()
            self.read()
            if self.p:
                sight = self.look()
                act, why = next_act(sight, self.p["self_fence_s"])
                act = self.settled(act, begun)
                self.do(act, why)
                if sight.silent_s == 0.0:
                    self.touched_at = begun
                self.share()
            self.well("pass")
        except Exception as error:
            self.tell("pass", error)
            self.free_since = None
            act = self.without_looking()
        self.beat()
        return act

    def settled(self, act: str, begun: float) -> str:
        """Hold a start back; see `when_settled`."""
        if act != START:
            self.free_since = None
            return act
        if self.free_since is None:
            self.free_since = begun
        return when_settled(act, begun - self.free_since)

    def read(self) -> None:
        """Read the configuration; one that cannot be read leaves the last one in force."""
        self.config.put(DISK_S)
        self.heard("configuration", self.config)
        if self.config.answer is not None:
            self.p = self.config.answer

    def look(self) -> Sight:
        """See what this pass can see, within its time; what does not answer is left out."""
        p = self.p
        processes = servers_in(p["data"])
        running = bool(processes)
        self.signal.put(DISK_S)
        standby, why_not = self.signal.answer, SELF_FENCED if self.fenced else held(p)
        if standby and running:
            return Sight(True, True, held=why_not)
        if single_user(processes):
            # Rejoin recovers a crashed primary before it rewinds it, and the guard ended that: it was cloned instead.
            return Sight(True, True)
        if not running and why_not is None and p["self_fence_s"] is None:
            return Sight(False, standby)
        silent_s = self.silence()
        if silent_s > 0.0:
            self.away_at = time.monotonic()
        seen = Sight(running, standby, None, (), (), self.age(), silent_s, why_not)
        if silent_s > 0.0 and p["self_fence_s"] is not None:
            # Nobody could be asked, and the self-fence must not come late for it.
            return seen
        claims = self.claims()
        if not self.due(seen, claims):
            return seen
        # After the look at standby.signal: a promotion writes its timeline's history before it removes that.
        before = time.monotonic()
        self.local.put(DISK_S)
        self.heard("cluster", self.local)
        here = self.local.answer if self.local.asked_at >= before else None
        if here is not None:
            claims = list(still_claims(here, claims, self.back.answer))
        seen = seen._replace(local=here, claims=claims, peers=self.ask_peers())
        return seen._replace(restored=self.restored.answer, asked=self.asked.answer)

    def silence(self) -> float:
        """Return for how long no witness has answered; 0 when one has in this pass."""
        try:
            touched = in_touch(self.p)
            self.well("witnesses")
        except Exception as error:
            self.tell("witnesses", error)
            touched = False
        return 0.0 if touched else max(time.monotonic() - self.touched_at, 1e-3)

    def age(self) -> float:
        """Return for how long the server has run; infinite when that cannot be told."""
        try:
            postmaster = postmaster_in(self.p["data"])
            return float("inf") if postmaster is None else age_of(postmaster)
        except (ValueError, IndexError, OSError):
            return float("inf")

    def claims(self) -> List[Claim]:
        """Return the records of who was accepted: this node's own, and the NAS's."""
        self.own.put(DISK_S)
        self.back.put(DISK_S)
        self.heard("accepted.json", self.own)
        # Not waited for: its answer is of the pass before, and a dead NAS costs nothing.
        self.shared.put(0.0)
        self.heard("accepted.json on the NAS", self.shared)
        self.restored.put(0.0)
        self.heard("restored.json on the NAS", self.restored)
        self.asked.put(0.0)
        self.heard("promotion.json on the NAS", self.asked)
        return [self.own.answer, self.shared.answer]

    def due(self, seen: Sight, claims: List[Claim]) -> bool:
        """Tell whether the cluster and the peers are looked at in this pass."""
        another = any(claim is not None and claim.get("primary") != self.p["node"] for claim in claims)
        another = another or (self.asked.answer or {}).get("node", self.p["node"]) != self.p["node"]
        now = time.monotonic()
        # Whoever was away asks the others as soon as one of them answers, not up to ten seconds later.
        late = now - self.looked_at >= LOOK_S or now - self.away_at < LOOK_S
        if not (another or late or seen.held or seen.running_s <= YIELD_S):
            return False
        self.looked_at = now
        return True

    def ask_peers(self) -> List[Peer]:
        """Ask all peers at once; one that does not say in time what it is could not be asked."""
        found = []
        for name, address, port in self.p["peers"]:
            where = "%s %s %s" % (name, address, port)
            if where not in self.peers:
                self.peers[where] = Question(
                    lambda n=name, a=address, o=port: ask(self.p, n, a, o)  # type: ignore[misc]
                )
            self.peers[where].put(0.0)
            found.append((name, self.peers[where]))
        until = time.monotonic() + PEER_S
        for _, question in found:
            question.wait(until - time.monotonic())
        return [question.younger_than(PEER_AGE_S) or Peer(name, STARTING) for name, question in found]

    def share(self) -> None:
        """Have this node and the NAS say who was accepted, where they do not; not waited for, as it may hang."""
        if time.monotonic() - self.shared_at >= SHARE_S:
            self.shared_at = time.monotonic()
            # Two of them: a NAS that hangs keeps no node from saying here that it was promoted.
            self.settling.put(0.0)
            self.heard("its own promotion", self.settling)
            self.sharing.put(0.0)
            self.heard("accepted.json to the NAS", self.sharing)

    def without_looking(self) -> str:
        """Decide when the look itself has failed: nobody was in touch."""
        try:
            if not self.p:
                return NONE
            running, silent_s = bool(servers_in(self.p["data"])), time.monotonic() - self.touched_at
            sight = Sight(running, self.signal.answer, silent_s=silent_s)
            act, why = next_act(sight, self.p["self_fence_s"])
            if act == FENCE:
                self.do(act, why)
            return act
        except Exception as error:
            self.tell("fence", error)
            return NONE

    def do(self, act: str, why: str) -> None:
        """Act, and say so afterwards."""
        problems: List[str] = []
        if act == FENCE:
            problems = fence(self.p, why)
            self.fenced = True
        elif act == YIELD:
            problems = yield_to_peer(self.p, why)
        elif act == HOLD:
            problems = hold_back(self.p, why)
        elif act in (START, FORGET):
            problems = self.let_go(act)
        if act == NONE:
            self.well("act")
        else:
            self.say("act", act, "%s: %s" % (act, "; ".join([why] + problems)))

    def let_go(self, act: str) -> List[str]:
        """Drop the notes, then start what was stopped; with a note left nothing is started, or it were for ever."""
        problems: List[str] = []
        fenced, self.fenced = self.fenced or held(self.p) == SELF_FENCED, False
        attempt(problems, "notes", lambda: forget(self.p))
        if not problems and act == START:
            # The boot guard has the last word.
            systemctl("start", "--no-block", self.p["unit"])
        if not problems and fenced and not self.signal.answer:
            beside(start_containers)
        return problems

    def beat(self) -> None:
        """Tell that the guard runs, which one, and by which limit it goes."""
        self.passes += 1
        try:
            seen = {"version": self.version, "self_fence_s": self.p.get("self_fence_s")}
            seen.update({"uptime": up_s(), "pass": self.passes, "configured": bool(self.p)})
            write_volatile(heartbeat_path(self.p), json.dumps(seen, sort_keys=True) + "\n")
            self.well("heartbeat")
        except Exception as error:
            self.tell("heartbeat", error)

    def heard(self, what: str, question: Question) -> None:
        """Tell of a question that failed."""
        if question.error is None:
            self.well(what)
        else:
            self.tell(what, question.error)

    def tell(self, what: str, error: Exception) -> None:
        """Say what failed, once for each kind of failure, and again after it was well."""
        kind = type(error).__name__
        self.say(what, kind, "%s: %s: %s" % (what, kind, error))

    def say(self, what: str, kind: str, text: str) -> None:
        """Print a line unless it says again what was said."""
        if (what, kind) not in self.said:
            self.said.add((what, kind))
            print(text, flush=True)

    def well(self, what: str) -> None:
        """Note that it works: its next failure is news."""
        self.said = {said for said in self.said if said[0] != what}


def watch() -> None:
    """Look every second."""
    guard = Guard(version_of(sys.argv[0]) or "unknown")
    while True:
        time.sleep(PERIOD_S)
        guard.one_pass()


if __name__ == "__main__":
    watch()
