"""One writer of backups at a time, also with two orchestrators: a lock in the bucket.

OSS knows one atomic operation: create an object unless it exists. So a lock is a row of generations,
`<name>/00000001.json` and so on. Whoever creates the next number has the lock; the highest number is never
deleted, only overwritten by its owner, because a slow contender could otherwise create it a second time.
Where a retention policy forbids overwriting, the owner creates the next number instead.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from tasks.backup.format.layout import LOCKS
from tasks.errors import HarborHaError
from tasks.operation.holder import describe, known_dead, this_process
from tasks.storage.errors import ObjectExists, ObjectImmutable, ObjectMissing, StorageError
from tasks.storage.store import ObjectStore

_LOG = logging.getLogger(__name__)

# How far the clocks of two orchestrators may be apart.
_CLOCKS = timedelta(minutes=2)


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


class BucketLock:
    """One generation of a lock that is ours.

    Args:
        store: the bucket.
        key: of our generation.
        holder: what we wrote there.
        ttl: how long it is ours without being renewed.
        now: the clock, for tests.
    """

    def __init__(
        self, store: ObjectStore, key: str, holder: Holder, ttl: timedelta, now: Callable[[], datetime]
    ) -> None:
        self._store, self._key, self._ttl, self._now = store, key, ttl, now
        self.holder = holder

    def renew(self) -> None:
        """Push the expiry forward; raises LockLost when a later generation exists."""
        self._require_ours()
        self._write(self._now() + self._ttl)

    def release(self) -> None:
        """Let the next run have it at once; harmless when it was lost."""
        with contextlib.suppress(LockLost):
            self._require_ours()
            self._write(datetime(2000, 1, 1, tzinfo=UTC))

    def _require_ours(self) -> None:
        keys = _generations(self._store, self._key.rsplit("/", 1)[0] + "/")
        if not keys or keys[-1] != self._key:
            raise _lost(self._store, self._key)

    def _write(self, expires: datetime) -> None:
        holder = replace(self.holder, expires=expires.isoformat())
        try:
            self._store.put_bytes(self._key, _encode(holder))
        except ObjectImmutable:
            # Under a retention policy nothing is overwritten: the next generation is ours, too.
            following = _following(self._key)
            try:
                self._store.create_marker(following, _encode(holder))
            except ObjectExists:
                raise _lost(self._store, following) from None
            self._key = following
        self.holder = holder


def acquire(
    store: ObjectStore,
    name: str,
    purpose: str,
    *,
    ttl: timedelta = timedelta(minutes=15),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BucketLock:
    """Take a lock, or the lock of a run that is dead.

    Args:
        store: the bucket.
        name: which lock, for example `backup`.
        purpose: what for, so that the next one knows who is in its way.
        ttl: how long without a renewal until the lock counts as abandoned.
        now: the clock, for tests.

    Raises:
        LockedByAnother: with owner, purpose and expiry.
    """
    directory = f"{LOCKS}{name}/"
    keys = _generations(store, directory)
    if keys:
        _require_free(store, keys[-1], now())
    key = _following(keys[-1] if keys else f"{directory}0.json")
    holder = Holder(new_owner(), purpose, now().isoformat(), (now() + ttl).isoformat(), str(this_process()))
    try:
        store.create_marker(key, _encode(holder))
    except ObjectExists:
        raise _in_the_way(store, key, "Another run took the lock at this very moment") from None
    with contextlib.suppress(ObjectImmutable):
        store.delete_many(keys)
    return BucketLock(store, key, holder, ttl, now)


@contextmanager
def held(
    store: ObjectStore, name: str, purpose: str, *, ttl: timedelta = timedelta(minutes=15)
) -> Iterator[BucketLock]:
    """Hold a lock for the length of a context and renew it on the side; see `acquire`."""
    lock = acquire(store, name, purpose, ttl=ttl)
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(lock, stop, ttl.total_seconds() / 4), daemon=True)
    keeper.start()
    try:
        yield lock
    finally:
        stop.set()
        keeper.join()
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


def _following(key: str) -> str:
    directory, _, name = key.rpartition("/")
    return f"{directory}/{int(name.removesuffix('.json')) + 1:08}.json"


def _lost(store: ObjectStore, key: str) -> LockLost:
    return LockLost(
        "The lock of this run expired and another run took it.",
        where=store.where(key),
        meaning="This run stops: two writers would contradict each other.",
        remedy="Look why this run was silent for so long, and run it again.",
    )


def _generations(store: ObjectStore, directory: str) -> list[str]:
    return [found.key for found in store.list(directory) if found.key.endswith(".json")]


def _require_free(store: ObjectStore, key: str, now: datetime) -> None:
    try:
        holder = _read(store, key)
    except ObjectMissing:
        return
    if holder is None or not holder.expired(now):
        raise _in_the_way(store, key, "Another run has the lock")


def _in_the_way(store: ObjectStore, key: str, what: str) -> LockedByAnother:
    try:
        holder = _read(store, key)
    except StorageError:
        holder = None
    who = f": {holder.purpose}, {describe(holder.owner)}, until {holder.expires[:19]} UTC." if holder else "."
    return LockedByAnother(
        what + who,
        where=store.where(key),
        remedy="Wait for it. A run that was killed gives way by itself after its time.",
    )


def _read(store: ObjectStore, key: str) -> Holder | None:
    try:
        return Holder(**json.loads(store.get_bytes(key)))
    except (ValueError, TypeError):
        return None


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), sort_keys=True).encode()
