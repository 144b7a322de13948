"""One writer of backups at a time, also with two orchestrators: a lock in the bucket.

The one atomic operation of OSS, to create an object unless it exists, is ignored where the bucket keeps versions:
two runs held the lock there, and both renewed it. So nothing here rests on it. What every bucket has is a put of a
name of one's own, and a listing that shows every put that was answered before it. Each run writes *claims* under names
that nobody else uses; no claim is ever overwritten, so that a retention policy (WORM) is no obstacle either:

1. list; whoever has a live claim has the lock, or is about to have it;
2. put a claim `taking`; list; another live claim means that we withdraw;
3. put a claim `held`; list; another live claim that is `held` means that we withdraw.

Of two runs that both came to the end of 3, the one whose put was later would have listed the other's: one at most has
the lock. When two withdraw, each tries again after a time of its own. A renewal is step 3 again.
"""

import contextlib
import json
import logging
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from tasks.backup.format.layout import LOCKS
from tasks.errors import HarborHaError
from tasks.operation.holder import describe, known_dead, this_process
from tasks.storage.errors import ObjectImmutable, ObjectMissing, StorageError
from tasks.storage.store import ObjectStore

_LOG = logging.getLogger(__name__)

# How far the clocks of two orchestrators may be apart.
_CLOCKS = timedelta(minutes=2)
# Until a claim that is only being taken counts as abandoned; its run lists and decides within seconds.
_TAKING = timedelta(minutes=3)
# Of several runs at the same instant, one wins within a few attempts.
_ATTEMPTS = 12
_PAUSE_S = 0.3
_TIME = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(
    r"(?P<token>[0-9a-f]{12})-(?P<turn>\d{6})-(?P<state>taking|held|free)-(?P<until>\d{8}T\d{12}Z)\.json"
)


class LockedByAnother(HarborHaError):
    """Another run has the lock and is not known to be dead."""


class LockLost(HarborHaError):
    """Our lock expired and another run took it."""


@dataclass(frozen=True)
class Holder:
    """Who has a lock.

    Attributes:
        owner: host, process and a random part, unique for every run.
        purpose: what it is doing, for the message.
        process: as `tasks.operation.holder` names it, so that the next run on the same machine need not wait for
            the time of one that was killed.
        expires: ISO 8601 in UTC; a released lock has expired.
    """

    owner: str
    purpose: str
    since: str
    expires: str
    process: str = ""

    def expired(self, now: datetime) -> bool:
        """Whether it may be taken over: its time is up, or its process is dead for certain."""
        return now > datetime.fromisoformat(self.expires) + _CLOCKS or known_dead(self.process)


def new_owner() -> str:
    """Name this run."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class _Claim:
    """What the name of an object in the lock's directory says; its content is read only when it is in our way.

    Attributes:
        token: of the run that wrote it.
        turn: the later claims of a run replace its earlier ones, also where those cannot be removed.
        state: `taking`, `held` or `free`; `old` for a lock of the version before, which has only its content.
        until: when it ends without a further claim.
    """

    key: str
    token: str
    turn: int
    state: str
    until: datetime


class BucketLock:
    """A lock that is ours.

    Args:
        store: the bucket.
        directory: of the lock.
        token: of this run.
        holder: who we are.
        ttl: how long it is ours without being renewed.
        now: the clock, for tests.
    """

    def __init__(
        self,
        store: ObjectStore,
        directory: str,
        token: str,
        holder: Holder,
        ttl: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._directory, self._token, self._ttl, self._now = store, directory, token, ttl, now
        self._turn = 0
        self._keys: list[str] = []
        self._lost = False
        self.holder = holder

    def renew(self) -> None:
        """Push the expiry forward; raises LockLost when another run has the lock."""
        # Looked at first: a claim of ours that comes too late must not end the run that took over.
        self._require_ours()
        self._claim("held", self._ttl)
        self._require_ours()

    def _require_ours(self) -> None:
        if not self._lost and not self._still_ours():
            self._lost = True
            self.release()
        if self._lost:
            raise self._loss()

    def _still_ours(self) -> bool:
        """Tell whether nobody else has the lock, or has had it: whoever takes over a claim that is over removes it.

        A run that had stood still while another one came and went believed its lock its own, and would have removed
        blobs that the other's backup needs. Under a retention policy nothing can be removed, and that is not seen.
        """
        claims = _claims(self._store, self._directory)
        others = [claim for claim in claims if claim.token != self._token]
        live = [claim for claim in others if claim.state in ("held", "old")]
        ours = len(others) < len(claims)
        return ours and not any(_live(self._store, claim, self._now()) for claim in live)

    def release(self) -> None:
        """Let the next run have it at once; harmless when it was lost."""
        self._claim("free", timedelta(0))
        with contextlib.suppress(ObjectImmutable):
            self._store.delete_many(self._keys)

    def take(self) -> bool:
        """One attempt; False when another run tries at this moment, too: then neither has it."""
        self._claim("taking", min(self._ttl, _TAKING))
        if self._others():
            self.release()
            return False
        self._claim("held", self._ttl)
        if any(other.state in ("held", "old") for other in self._others()):
            self.release()
            return False
        return True

    def _others(self) -> list[_Claim]:
        claims = _claims(self._store, self._directory)
        return [c for c in claims if c.token != self._token and _live(self._store, c, self._now())]

    def _claim(self, state: str, ttl: timedelta) -> None:
        until = self._now() + ttl
        self._turn += 1
        self.holder = replace(self.holder, expires=until.isoformat())
        key = f"{self._directory}{self._token}-{self._turn:06}-{state}-{until.strftime(_TIME)}.json"
        self._store.put_bytes(key, _encode(self.holder))
        earlier, self._keys = self._keys, [*self._keys, key]
        if state == "held":
            with contextlib.suppress(ObjectImmutable):
                self._store.delete_many(earlier)
                self._keys = [key]

    def _loss(self) -> LockLost:
        return LockLost(
            "The lock of this run expired and another run took it.",
            where=self._store.where(self._directory),
            meaning="This run stops: two writers would contradict each other.",
            remedy="Look why this run was silent for so long, and run it again.",
        )


def acquire(
    store: ObjectStore,
    name: str,
    purpose: str,
    *,
    ttl: timedelta = timedelta(minutes=15),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> BucketLock:
    """Take a lock, or the lock of a run that is dead.

    Args:
        store: the bucket.
        name: which lock, for example `backup`.
        purpose: what for, so that the next one knows who is in its way.
        ttl: how long without a renewal until the lock counts as abandoned.
        now: the clock, for tests.
        sleep: how to wait for other runs of the same instant, for tests.

    Raises:
        LockedByAnother: with owner, purpose and expiry.
    """
    directory = f"{LOCKS}{name}/"
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(random.uniform(0.1, 1.0) * _PAUSE_S * attempt)
        found = _claims(store, directory)
        live = [claim for claim in found if _live(store, claim, now())]
        if any(claim.state != "taking" for claim in live):
            break
        if live:
            continue
        holder = Holder(new_owner(), purpose, now().isoformat(), now().isoformat(), str(this_process()))
        lock = BucketLock(store, directory, holder.owner.rsplit(":", 1)[1], holder, ttl, now)
        if lock.take():
            with contextlib.suppress(ObjectImmutable):
                store.delete_many(claim.key for claim in found)
            return lock
    raise _in_the_way(store, [c for c in _claims(store, directory) if _live(store, c, now())], directory)


@contextmanager
def held(
    store: ObjectStore, name: str, purpose: str, *, ttl: timedelta = timedelta(minutes=15)
) -> Iterator[BucketLock]:
    """Hold a lock for the length of a context and renew it on the side; see `acquire`.

    Whoever makes something final calls `renew` before it: this thread learns of a loss in no other way.
    """
    lock = acquire(store, name, purpose, ttl=ttl)
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(lock, stop, ttl.total_seconds() / 4), daemon=True)
    keeper.start()
    try:
        yield lock
    finally:
        stop.set()
        keeper.join()
        with contextlib.suppress(StorageError):  # it ends by itself; what the body raised is what counts
            lock.release()


def _keep(lock: BucketLock, stop: threading.Event, every_s: float) -> None:
    while not stop.wait(every_s):
        try:
            lock.renew()
        except LockLost as error:
            _LOG.error("%s", error)
            return
        except StorageError as error:
            _LOG.warning("The lock could not be renewed yet: %s", error)


def _claims(store: ObjectStore, directory: str) -> list[_Claim]:
    """The newest claim of every run, and the lock of the version before, which numbered its objects."""
    found = [
        _claim_of(listed.key, listed.key.removeprefix(directory))
        for listed in store.list(directory)
        if listed.key.endswith(".json")
    ]
    newest: dict[str, _Claim] = {}
    for claim in sorted(found, key=lambda claim: (claim.turn, claim.key)):
        newest[claim.token] = claim
    return list(newest.values())


def _claim_of(key: str, name: str) -> _Claim:
    match = _NAME.fullmatch(name)
    if match is None:
        return _Claim(key, "", 0, "old", datetime.max.replace(tzinfo=UTC))
    until = datetime.strptime(match["until"], _TIME).replace(tzinfo=UTC)
    return _Claim(key, match["token"], int(match["turn"]), match["state"], until)


def _live(store: ObjectStore, claim: _Claim, now: datetime) -> bool:
    """Whether a claim counts; its content is read only while its time runs."""
    if claim.state == "free" or (claim.state != "old" and now > claim.until + _CLOCKS):
        return False
    try:
        holder = _read(store, claim.key)
    except ObjectMissing:
        # Removed since it was listed: a run that released, withdrew, or renewed under another name.
        return claim.state == "held"
    return holder is None or not holder.expired(now)


def _in_the_way(store: ObjectStore, claims: Iterable[_Claim], directory: str) -> LockedByAnother:
    holder = None
    for claim in claims:
        with contextlib.suppress(StorageError):
            holder = holder or _read(store, claim.key)
    who = f": {holder.purpose}, {describe(holder.owner)}, until {holder.expires[:19]} UTC." if holder else "."
    return LockedByAnother(
        "Another run has the lock" + who,
        where=store.where(directory),
        remedy="Wait for it. A run that was killed gives way by itself after its time.",
    )


def _read(store: ObjectStore, key: str) -> Holder | None:
    try:
        holder = Holder(**json.loads(store.get_bytes(key)))
        datetime.fromisoformat(holder.expires)
    except (ValueError, TypeError):
        return None
    return holder


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), sort_keys=True).encode()
