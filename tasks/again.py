"""Which steps Prefect may repeat by itself, when, and after which errors; every other step is run once.

A step is repeated only if a second run finds what the first one left, whatever that is. What promotes, fences, rewinds
or moves data aside never is: whoever repeats that looks at the facts first, which is a new run of the flow. Nor is a
step of a failover, where a pause is an outage.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.errors import HostUnreachable, RemoteCommandFailed, RemoteConnectionLost, RemoteTimeout
from tasks.hosts.packages import mirror_away
from tasks.pitr.errors import RepositoryUnreachable
from tasks.storage.errors import CrcMismatch, EndpointUnreachable, ServiceFailed, Throttled, UploadLost

_BUCKET_AWAY = (EndpointUnreachable, ServiceFailed, Throttled, CrcMismatch, UploadLost)
_NODE_AWAY = (HostUnreachable, RemoteConnectionLost, RemoteTimeout)


def passing(error: BaseException) -> bool:
    """Whether an error may be gone in a while: of the bucket or of the way to a node, and nothing that says no."""
    return isinstance(error, (*_BUCKET_AWAY, *_NODE_AWAY))


def contact_lost(error: BaseException) -> bool:
    """Whether a node could not be reached, or was lost in the middle; not what took too long, which would again."""
    return isinstance(error, HostUnreachable | RemoteConnectionLost)


def not_begun(error: BaseException) -> bool:
    """Whether the node was never reached, so that nothing of the step can be at work on it."""
    return isinstance(error, HostUnreachable)


def repository_away(error: BaseException) -> bool:
    """Whether a node did not reach the bucket; a base backup that the node may still be making is not begun again."""
    return isinstance(error, (*_BUCKET_AWAY, HostUnreachable, RepositoryUnreachable))


def packages_away(error: BaseException) -> bool:
    """Whether the node, or the repository that it takes packages from, was away."""
    return contact_lost(error) or (isinstance(error, RemoteCommandFailed) and mirror_away(error))


def images_away(error: BaseException) -> bool:
    """Whether the node was lost, or the address of the installer gave no answer; not one that says 404."""
    no_answer = isinstance(error, RemoteCommandFailed) and "urllib.error.URLError" in error.stderr
    return contact_lost(error) or no_answer


@dataclass(frozen=True)
class Again:
    """How a step is repeated.

    Attributes:
        pauses_s: seconds before each further attempt, so as many as there are.
        worth: tells of an error whether another attempt could end better.
    """

    pauses_s: tuple[int, ...]
    worth: Callable[[BaseException], bool]


PACKAGES = Again((15, 60), packages_away)
IMAGES = Again((15, 60), images_away)
COPY = Again((10, 30), not_begun)
BASE_BACKUP = Again((60, 300), repository_away)
# Each call tries for three minutes by itself, and the night does for an hour: flows/rules/again.py.
TRANSFER = Again((20, 60), passing)
WAIT = Again((5, 15), contact_lost)
