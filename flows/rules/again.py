"""Whether a backup that failed is worth another attempt in the same night, and when."""

from tasks.errors import HostUnreachable, RemoteConnectionLost, RemoteTimeout
from tasks.storage.errors import CrcMismatch, EndpointUnreachable, ServiceFailed, Throttled, UploadLost

# After the attempts that each call makes by itself, three minutes long: what lasts longer than that is an outage.
_PASSING = (
    EndpointUnreachable,
    ServiceFailed,
    Throttled,
    CrcMismatch,
    UploadLost,
    HostUnreachable,
    RemoteConnectionLost,
    RemoteTimeout,
)
FIRST_PAUSE_S = 300
ATTEMPTS = 5


def pause_before_another(error: BaseException, attempt: int) -> int | None:
    """Say how many seconds to wait before the next attempt; None when none would help.

    Five attempts within an hour and a quarter: 5, 10, 20 and 40 minutes apart. What a human must put right, such as a
    missing right or a full bucket, is not repeated; nor is a refusal.

    Args:
        error: what ended the attempt.
        attempt: its number, 1 at first.
    """
    if attempt >= ATTEMPTS or not isinstance(error, _PASSING):
        return None
    return int(FIRST_PAUSE_S * 2 ** (attempt - 1))
